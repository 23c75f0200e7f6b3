// Package worker answers the request events of one model: it decodes the picture, batches it with others, has the model
// server compute the batch, and sends each requester its own answer.
//
// A delivery is one HTTP request, which is held until its event is done with. The status then tells the broker what to
// do: 204 that the event is done with, whatever came of it, or 200 with an event for the broker to publish, which says that
// somebody is to be called about it; 503 to deliver it again later, or 500 when it was the model server that failed; any
// other that the event will never be any good and nobody could be told, which brokers take for done, too.
//
// It knows the event contract and the model, but neither the broker nor the transport of replies.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/batch"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// Predictor is a model server; *tfserving.Client is one. It must not keep the inputs' memory after Predict returns.
type Predictor interface {
	Predict(ctx context.Context, spec tfserving.Spec, inputs map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error)
	Status(ctx context.Context, spec tfserving.Spec) ([]tfserving.VersionStatus, error)
}

var _ Predictor = (*tfserving.Client)(nil)

// Config is what a Worker is made of. Model, Predictor and Responder are required; zero values of the rest are the
// defaults.
type Config struct {
	Model     *models.Model
	Predictor Predictor
	Responder reply.Responder
	Replica   string // which of the model's replicas this is, in the source of results; default the host's name

	MaxBytes    int64          // of a picture; default 16 MiB
	MaxRequests int            // held at once; default 128, more than a Trigger's parallelism. Pictures take MaxRequests*MaxBytes at most
	Decoders    int            // pictures decoded at once; default GOMAXPROCS
	Limits      picture.Limits // of a picture; default picture.DefaultLimits
	// Timeout is how long an event is held when its deadline is later; default 1 min. It must be shorter than the time-out
	// of the deliveries, or the broker gives up what is still being worked on.
	Timeout time.Duration
	Logger  *slog.Logger // default slog.Default()
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Model == nil:
		return c, errors.New("worker: no model")
	case c.Predictor == nil:
		return c, errors.New("worker: no predictor")
	case c.Responder == nil:
		return c, errors.New("worker: no responder")
	}
	if c.Replica == "" {
		name, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("worker: no replica is named, and the host has no name: %w", err)
		}
		c.Replica = name
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 16 << 20
	}
	if c.MaxRequests <= 0 {
		c.MaxRequests = 128
	}
	if c.Decoders <= 0 {
		c.Decoders = runtime.GOMAXPROCS(0)
	}
	if c.Limits == (picture.Limits{}) {
		c.Limits = picture.DefaultLimits
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Worker is an http.Handler for deliveries. It has no goroutine of its own while nothing is under way.
type Worker struct {
	Config
	source  string
	network *network
	batcher *batch.Batcher[item, row]
	window  *window
	memo    *memo
	in      *instruments

	gate     *gate
	decoding chan struct{} // one token a picture
	pictures sync.Pool     // of *[]byte, one delivery's picture each
	tensors  sync.Pool     // of *[]byte, one item's tensor each
	served   served
}

// New makes a Worker. Stop ends it.
func New(c Config) (*Worker, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	in, err := newInstruments(c.Model.Name, c.Model.Serving.Model)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	w := &Worker{
		Config:   c,
		source:   "/ebb/dispatch/" + c.Model.Name + "/" + c.Replica,
		network:  newNetwork(c.Model, c.Predictor, in, c.Logger),
		window:   newWindow(recentDeliveries),
		memo:     newMemo(),
		in:       in,
		gate:     newGate(c.MaxRequests),
		decoding: make(chan struct{}, c.Decoders),
	}
	w.tensors.New = func() any { return new([]byte) }
	w.batcher = batch.New(batch.Config{
		Size:      c.Model.Batching.Size,
		Slots:     c.Model.Batching.Slots,
		Queue:     c.Model.Batching.Queue,
		ItemFault: func(err error) bool { return errors.Is(err, tfserving.ErrInvalid) },
	}, batch.Retry(w.network.compute, func(err error) bool { return errors.Is(err, tfserving.ErrUnavailable) }, batch.Backoff{}))
	return w, nil
}

// Stop takes no more deliveries and waits for those under way. When ctx ends first, they are refused, so that the broker
// delivers them to another replica, and the error says so. It may be called any number of times.
func (w *Worker) Stop(ctx context.Context) error {
	w.gate.close()
	var err error
	select {
	case <-w.gate.empty:
	case <-ctx.Done():
		err = fmt.Errorf("stopping dispatch of %s: deliveries are still under way: %w", w.Model.Name, ctx.Err())
		w.gate.end()
	}
	return errors.Join(err, w.batcher.Stop(ctx))
}
