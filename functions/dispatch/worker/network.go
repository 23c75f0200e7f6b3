package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/wire"
)

// item is one picture as the network's input.
type item struct {
	data []byte // KindTensor: the pixels, without the batch dimension; KindEncoded: a JPEG file
	span trace.SpanContext
}

// row is the network's output for one item.
type row struct {
	values  []float32
	version int64 // that computed it
}

// network computes batches on the model server, one call each.
type network struct {
	model     *models.Model
	spec      tfserving.Spec
	predictor Predictor
	in        *instruments
	outage    outage
	dtype     tfserving.DType
	shape     []int64   // of one item; KindTensor
	buffers   sync.Pool // of *[]byte, one batch's tensor each
}

// specOf is how a model's server knows it.
func specOf(m *models.Model) tfserving.Spec {
	return tfserving.Spec{Model: m.Serving.Model, Version: m.Serving.Version, Label: m.Serving.Label, Signature: m.Serving.Signature}
}

func newNetwork(m *models.Model, p Predictor, in *instruments, log *slog.Logger) *network {
	n := &network{
		model:     m,
		spec:      specOf(m),
		predictor: p,
		in:        in,
		outage:    outage{log: log.With("model", m.Name)},
	}
	n.dtype, n.shape = wire.Item(m.Input)
	n.buffers.New = func() any { return new([]byte) }
	return n
}

// compute is the batcher's Func.
func (n *network) compute(ctx context.Context, items []item) ([]row, error) {
	ctx, span := n.in.startBatch(ctx, items)
	defer span.End()
	began := time.Now()
	rows, err := n.predict(ctx, items)
	n.outage.see(ctx, err)
	if err != nil {
		n.in.batchFailed(ctx, err)
		span.SetStatus(codes.Error, err.Error())
		return nil, err
	}
	n.in.batchDone(ctx, len(items), rows[0].version, time.Since(began))
	return rows, nil
}

func (n *network) predict(ctx context.Context, items []item) ([]row, error) {
	buffer := n.buffers.Get().(*[]byte) // nothing else is ever put there
	defer n.buffers.Put(buffer)
	inputs := map[string]tfserving.Tensor{n.model.Input.Tensor: n.input(items, buffer)}
	outputs, version, err := n.predictor.Predict(ctx, n.spec, inputs, n.model.Output.Tensor)
	if err != nil {
		return nil, err
	}
	rows, err := split(outputs[n.model.Output.Tensor], len(items))
	if err != nil {
		return nil, fmt.Errorf("%w: output %q of %s: %w", tfserving.ErrAnswer, n.model.Output.Tensor, n.spec, err)
	}
	for i := range rows {
		rows[i].version = version
	}
	return rows, nil
}

// input is one tensor of all items. A single item's memory is used as it is; several are joined in buffer.
func (n *network) input(items []item, buffer *[]byte) tfserving.Tensor {
	t := tfserving.Tensor{DType: n.dtype, Shape: append([]int64{int64(len(items))}, n.shape...)}
	switch {
	case n.dtype == tfserving.String:
		t.Strings = make([][]byte, len(items))
		for i, it := range items {
			t.Strings[i] = it.data
		}
	case len(items) == 1:
		t.Data = items[0].data
	default:
		t.Data = (*buffer)[:0]
		for _, it := range items {
			t.Data = append(t.Data, it.data...)
		}
		*buffer = t.Data
	}
	return t
}

// split divides an output into the rows of its items. How long a row must be is the model's to say.
func split(t tfserving.Tensor, items int) ([]row, error) {
	if len(t.Shape) == 0 || t.Shape[0] != int64(items) {
		return nil, fmt.Errorf("its shape is %v for a batch of %d", t.Shape, items)
	}
	values, err := t.Floats()
	if err != nil {
		return nil, err
	}
	length := len(values) / items // exact: the first dimension divides the number of elements
	rows := make([]row, items)
	for i := range rows {
		rows[i].values = values[i*length : (i+1)*length]
	}
	return rows, nil
}
