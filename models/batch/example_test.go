package batch_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-inference/ebb/models/batch"
)

func Example() {
	var (
		errNegative = errors.New("negative number")
		errStarting = errors.New("server is starting")
	)
	// What computes many items at once: here square roots, elsewhere a call of a model server.
	roots := func(_ context.Context, in []int) ([]int, error) {
		out := make([]int, len(in))
		for i, n := range in {
			if n < 0 {
				return nil, errNegative
			}
			for out[i]*out[i] < n {
				out[i]++
			}
		}
		return out, nil
	}
	patient := batch.Retry(roots, func(err error) bool { return errors.Is(err, errStarting) }, batch.Backoff{})
	b := batch.New(batch.Config{
		Size: 8, Slots: 2, Queue: 64,
		ItemFault: func(err error) bool { return errors.Is(err, errNegative) },
	}, patient)

	// Any number of goroutines may ask; each says how long it wants to wait.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range []int{49, -1} {
		root, info, err := b.Do(ctx, n)
		fmt.Println(root, err, "in a batch of", info.Size)
	}

	fmt.Println(b.Stop(ctx))
	_, _, err := b.Do(ctx, 9)
	fmt.Println(err)
	// Output:
	// 7 <nil> in a batch of 1
	// 0 negative number in a batch of 1
	// <nil>
	// batcher is stopped
}
