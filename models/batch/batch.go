// Package batch turns single items into batches: whoever has an item calls Do and gets the answer to that item; the
// network behind it sees few calls with many items.
//
// The batcher is work-conserving. When a slot is free it takes what waits, at most Size items, and goes: a lone item
// never waits for company, and batches form by themselves while the slots are busy.
//
// It knows nothing of pictures, tensors or transports.
package batch

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrFull says that as many items wait as may wait. Come back later.
	ErrFull = errors.New("batch queue is full")
	// ErrStopped says that the batcher takes no more items.
	ErrStopped = errors.New("batcher is stopped")
	// ErrExpired says that an item's deadline passed before it got into a batch; nothing was computed for it.
	ErrExpired = errors.New("deadline passed before the item was batched")
)

// Func computes one batch. It returns one output for each input, in order, or an error for the whole batch. Inputs must
// not be kept after it returns. Its context ends when nobody waits for any of the items any more, or at the latest of
// the items' deadlines.
type Func[In, Out any] func(ctx context.Context, inputs []In) ([]Out, error)

// Info says how an item fared.
type Info struct {
	Size    int           // items in the call that answered it
	Wait    time.Duration // from Do until its batch was taken
	Compute time.Duration // of the call that answered it
}
