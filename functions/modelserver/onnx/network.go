package onnx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/ebb-inference/ebb/models/tfserving"
)

// PredictMethod is what TensorFlow calls the kind of signature that every network here has.
const PredictMethod = "tensorflow/serving/predict"

// ErrMemory says that a call needs more memory than there is.
var ErrMemory = errors.New("out of memory")

// Network is one loaded network. It is safe for concurrent use.
type Network struct {
	signature tfserving.Signature
	inputs    []string // in the session's order
	outputs   []string
	batched   bool // the first dimension of every input may have any size
	single    bool // the network takes and answers one item: a batch is run item by item
	maxBatch  int64

	// One session serves all calls: it shares the weights, and each call runs on its caller's thread.
	session *ort.DynamicAdvancedSession
	slots   chan struct{} // one token for each call that is being computed
}

// describe makes a network of what a file says of its inputs and outputs.
func describe(inputs, outputs []ort.InputOutputInfo, o Options) (*Network, error) {
	if len(inputs) == 0 || len(outputs) == 0 {
		return nil, fmt.Errorf("the network has %d inputs and %d outputs, it needs at least one of each", len(inputs), len(outputs))
	}
	n := &Network{
		signature: tfserving.Signature{
			Method:  PredictMethod,
			Inputs:  make(map[string]tfserving.TensorInfo, len(inputs)),
			Outputs: make(map[string]tfserving.TensorInfo, len(outputs)),
		},
		maxBatch: int64(o.MaxBatch),
		slots:    make(chan struct{}, o.Sessions),
	}
	free, one := 0, 0
	for _, in := range inputs {
		t, err := tensorInfo(in)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
		if t.UnknownRank {
			return nil, fmt.Errorf("input %q: it has no dimensions, but a first one is needed to batch items along", in.Name)
		}
		switch t.Shape[0] {
		case -1:
			free++
		case 1:
			one++
		}
		n.inputs = append(n.inputs, in.Name)
		n.signature.Inputs[in.Name] = t
	}
	ones := 0
	for _, out := range outputs {
		t, err := tensorInfo(out)
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", out.Name, err)
		}
		if t.DType == tfserving.Float16 || t.DType == tfserving.BFloat16 {
			return nil, fmt.Errorf("output %q: type %v cannot be answered; add a Cast to float32 to the network", out.Name, t.DType)
		}
		if !t.UnknownRank && t.Shape[0] == 1 {
			ones++
		}
		n.outputs = append(n.outputs, out.Name)
		n.signature.Outputs[out.Name] = t
	}
	n.batched = free == len(inputs)
	n.single = one == len(inputs) && ones == len(outputs)
	if n.single {
		// Callers may send any number of items, so that is what the signature says.
		for _, infos := range []map[string]tfserving.TensorInfo{n.signature.Inputs, n.signature.Outputs} {
			for _, t := range infos {
				t.Shape[0] = -1
			}
		}
	}
	return n, nil
}

func tensorInfo(i ort.InputOutputInfo) (tfserving.TensorInfo, error) {
	if i.OrtValueType != ort.ONNXTypeTensor {
		return tfserving.TensorInfo{}, fmt.Errorf("it is a %v, only tensors are supported", i.OrtValueType)
	}
	d, ok := dtypes[i.DataType]
	if !ok {
		return tfserving.TensorInfo{}, fmt.Errorf("elements of type %v are not supported", i.DataType)
	}
	t := tfserving.TensorInfo{Name: i.Name, DType: d, UnknownRank: len(i.Dimensions) == 0}
	for _, size := range i.Dimensions {
		if size == 0 {
			return tfserving.TensorInfo{}, fmt.Errorf("shape %v has no elements", []int64(i.Dimensions))
		}
		t.Shape = append(t.Shape, max(size, -1))
	}
	return t, nil
}

// Signature returns the network's inputs and outputs. A dimension of -1 may have any size; the first one at most
// Options.MaxBatch. It must not be changed.
func (n *Network) Signature() tfserving.Signature { return n.signature }

// Check says what is wrong with an input of a type and shape, without looking at its elements. The error wraps
// tfserving.ErrInvalid.
func (n *Network) Check(name string, d tfserving.DType, shape []int64) error {
	want, ok := n.signature.Inputs[name]
	if !ok {
		return fmt.Errorf("%w: there is no input %q, the inputs are %s", tfserving.ErrInvalid, name, names(n.signature.Inputs))
	}
	if d != want.DType {
		return fmt.Errorf("%w: input %q is of type %v, expected %v", tfserving.ErrInvalid, name, d, want.DType)
	}
	fits := len(shape) == len(want.Shape)
	for i := 0; fits && i < len(shape); i++ {
		fits = shape[i] > 0 && (want.Shape[i] == -1 || shape[i] == want.Shape[i])
	}
	if !fits {
		return fmt.Errorf("%w: input %q has shape %v, expected %v", tfserving.ErrInvalid, name, shape, want.Shape)
	}
	if (n.batched || n.single) && shape[0] > n.maxBatch {
		return fmt.Errorf("%w: input %q has %d items, at most %d are allowed in one call", tfserving.ErrInvalid, name, shape[0], n.maxBatch)
	}
	return nil
}

// check validates a whole call. It returns the number of items.
func (n *Network) check(inputs map[string]tfserving.Tensor) (int64, error) {
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		t := inputs[name]
		if err := n.Check(name, t.DType, t.Shape); err != nil {
			return 0, err
		}
		if err := t.Validate(); err != nil {
			return 0, fmt.Errorf("%w: input %q: %w", tfserving.ErrInvalid, name, err)
		}
	}
	for _, name := range n.inputs {
		if _, ok := inputs[name]; !ok {
			return 0, fmt.Errorf("%w: input %q is missing, the inputs are %s", tfserving.ErrInvalid, name, names(n.signature.Inputs))
		}
	}
	items := inputs[n.inputs[0]].Shape[0]
	if n.single {
		for _, name := range n.inputs {
			if got := inputs[name].Shape[0]; got != items {
				return 0, fmt.Errorf("%w: input %q has %d items, input %q has %d", tfserving.ErrInvalid, name, got, n.inputs[0], items)
			}
		}
	}
	return items, nil
}

// Predict runs the network. It returns the outputs that are named, or all of them when none is, and how long the call
// waited for its turn. A call whose context ends first is not run, or is broken off. The error wraps
// tfserving.ErrInvalid when the inputs do not fit the network or it cannot compute with them, ErrMemory, or the
// context's error. The inputs are not changed, and not kept.
func (n *Network) Predict(ctx context.Context, inputs map[string]tfserving.Tensor, outputs []string) (map[string]tfserving.Tensor, time.Duration, error) {
	for _, name := range outputs {
		if _, ok := n.signature.Outputs[name]; !ok {
			return nil, 0, fmt.Errorf("%w: there is no output %q, the outputs are %s", tfserving.ErrInvalid, name, names(n.signature.Outputs))
		}
	}
	items, err := n.check(inputs)
	if err != nil {
		return nil, 0, err
	}
	asked := time.Now()
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, time.Since(asked), ctx.Err()
	}
	defer func() { <-n.slots }()
	waited := time.Since(asked)
	var answer map[string]tfserving.Tensor
	if n.single && items > 1 {
		answer, err = n.each(ctx, inputs, items)
	} else {
		answer, err = n.run(ctx, inputs)
	}
	if err != nil {
		return nil, waited, err
	}
	if len(outputs) > 0 {
		maps.DeleteFunc(answer, func(name string, _ tfserving.Tensor) bool { return !slices.Contains(outputs, name) })
	}
	return answer, waited, nil
}

// each runs the items of a batch one by one and joins their outputs.
func (n *Network) each(ctx context.Context, inputs map[string]tfserving.Tensor, items int64) (map[string]tfserving.Tensor, error) {
	joined := make(map[string]tfserving.Tensor, len(n.outputs))
	item := make(map[string]tfserving.Tensor, len(inputs))
	for i := range items {
		for name, t := range inputs {
			size := int64(len(t.Data)) / items
			shape := slices.Clone(t.Shape)
			shape[0] = 1
			item[name] = tfserving.Tensor{DType: t.DType, Shape: shape, Data: t.Data[i*size : (i+1)*size]}
		}
		answer, err := n.run(ctx, item)
		if err != nil {
			return nil, fmt.Errorf("item %d of %d: %w", i, items, err)
		}
		for name, t := range answer {
			all, ok := joined[name]
			if !ok {
				all = tfserving.Tensor{DType: t.DType, Shape: t.Shape, Data: make([]byte, 0, int64(len(t.Data))*items)}
			} else if !slices.Equal(all.Shape[1:], t.Shape[1:]) {
				return nil, fmt.Errorf("%w: output %q has shape %v for item %d and %v for those before, send them one by one",
					tfserving.ErrInvalid, name, t.Shape, i, all.Shape)
			}
			all.Data = append(all.Data, t.Data...)
			joined[name] = all
		}
	}
	for name, t := range joined {
		t.Shape[0] = items
		joined[name] = t
	}
	return joined, nil
}

// run computes one call on this thread. The inputs have been checked.
func (n *Network) run(ctx context.Context, inputs map[string]tfserving.Tensor) (answer map[string]tfserving.Tensor, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var pinned runtime.Pinner // the library reads the inputs' memory where it is
	defer pinned.Unpin()
	in := make([]ort.Value, 0, len(n.inputs))
	out := make([]ort.Value, len(n.outputs))
	defer func() {
		for _, v := range slices.Concat(in, out) {
			if v != nil {
				err = errors.Join(err, v.Destroy())
			}
		}
	}()
	for _, name := range n.inputs {
		t := inputs[name]
		data := aligned(t.Data, t.DType.Size())
		pinned.Pin(&data[0])
		v, err := ort.NewCustomDataTensor(t.Shape, data, elementTypes[t.DType])
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		in = append(in, v)
	}
	if err := n.compute(ctx, in, out); err != nil {
		return nil, err
	}
	answer = make(map[string]tfserving.Tensor, len(out))
	for i, v := range out {
		if answer[n.outputs[i]], err = toTensor(v); err != nil {
			return nil, fmt.Errorf("output %q: %w", n.outputs[i], err)
		}
	}
	return answer, nil
}

// compute runs the session, and breaks it off when the context ends.
func (n *Network) compute(ctx context.Context, in, out []ort.Value) (err error) {
	options, err := ort.NewRunOptions()
	if err != nil {
		return fmt.Errorf("run options: %w", err)
	}
	defer func() { err = errors.Join(err, options.Destroy()) }()
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = options.Terminate() // fails only for options that are destroyed, which these are not yet
	})
	err = n.session.RunWithOptions(in, out, options)
	if !stop() {
		<-told
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.Contains(err.Error(), "allocate memory"), strings.Contains(err.Error(), "bad_alloc"):
		return fmt.Errorf("%w: %w", ErrMemory, err)
	default:
		// The network has run before, when it was warmed: what is different now is the inputs.
		return fmt.Errorf("%w: the network cannot compute with these inputs: %w", tfserving.ErrInvalid, err)
	}
}

// Warm runs one item of zeros, so that the first call finds memory allocated and caches filled. A network whose items
// have no fixed shape is not run.
func (n *Network) Warm(ctx context.Context) error {
	zeros := make(map[string]tfserving.Tensor, len(n.inputs))
	for name, t := range n.signature.Inputs {
		shape := slices.Clone(t.Shape)
		if shape[0] == -1 {
			shape[0] = 1
		}
		if slices.Contains(shape, -1) {
			return nil
		}
		elements, err := tfserving.Elements(shape)
		if err != nil {
			return fmt.Errorf("input %q: %w", name, err)
		}
		zeros[name] = tfserving.Tensor{DType: t.DType, Shape: shape, Data: make([]byte, elements*t.DType.Size())}
	}
	if _, _, err := n.Predict(ctx, zeros, nil); err != nil {
		return fmt.Errorf("run with zeros: %w", err)
	}
	return nil
}

// Close frees the network. No call may be under way.
func (n *Network) Close() error {
	if err := n.session.Destroy(); err != nil {
		return fmt.Errorf("close session: %w", err)
	}
	return nil
}

// names lists what there is, for error messages.
func names(infos map[string]tfserving.TensorInfo) string {
	return fmt.Sprintf("%q", slices.Sorted(maps.Keys(infos)))
}
