package batch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestItemsThatAFreeSlotIsAboutToTakeDoNotFillTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Size: 5, Slots: 1, Queue: 3}, func(_ context.Context, in []int) ([]int, error) { return in, nil })
		gate := make(chan struct{})
		b.slots[0].start = func() { // a goroutine that the scheduler keeps waiting
			<-gate
			b.slots[0].run()
		}
		var group sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			group.Go(func() { _, _, errs[i] = b.Do(t.Context(), i) })
		}
		synctest.Wait()
		_, _, err := b.Do(t.Context(), 9)
		require.ErrorIs(t, err, ErrFull)
		close(gate)
		group.Wait()
		require.Equal(t, make([]error, 8), errs)
	})
}
