package batch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/batch"
)

var errAway = errors.New("away")

// flaky fails with err until it has been called a number of times, and remembers when it was called.
func flaky(failures int, err error, at *[]time.Time) batch.Func[int, int] {
	return func(_ context.Context, in []int) ([]int, error) {
		*at = append(*at, time.Now())
		if len(*at) <= failures {
			return nil, err
		}
		return in, nil
	}
}

func isAway(err error) bool { return errors.Is(err, errAway) }

func TestRetryGoesOnUntilItSucceedsWithGrowingPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		f := batch.Retry(flaky(6, errAway, &at), isAway, batch.Backoff{First: 100 * time.Millisecond, Most: time.Second})
		out, err := f(t.Context(), []int{5, 6})
		require.NoError(t, err)
		require.Equal(t, []int{5, 6}, out)
		require.Len(t, at, 7)
		for i, ms := range []int{100, 200, 400, 800, 1000, 1000} {
			most := time.Duration(ms) * time.Millisecond
			pause := at[i+1].Sub(at[i])
			require.LessOrEqual(t, pause, most, "pause %d", i)
			require.GreaterOrEqual(t, pause, most/2, "pause %d", i)
		}
	})
}

func TestRetryLeavesOtherErrorsAlone(t *testing.T) {
	t.Parallel()
	var at []time.Time
	f := batch.Retry(flaky(1, errors.New("wrong"), &at), isAway, batch.Backoff{})
	_, err := f(t.Context(), []int{5})
	require.EqualError(t, err, "wrong")
	require.Len(t, at, 1)
}

func TestRetryMakesNoAttemptAfterTheDeadlineAndSaysWhatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		f := batch.Retry(flaky(1000, errAway, &at), isAway, batch.Backoff{First: time.Second, Most: time.Second})
		deadline := time.Now().Add(10 * time.Second)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		defer cancel()
		_, err := f(ctx, []int{5})
		require.ErrorIs(t, err, errAway)
		require.Greater(t, len(at), 9)
		require.True(t, time.Now().Before(deadline), "it knows before the deadline that there is no time left")
		require.NoError(t, ctx.Err())
	})
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Time
		f := batch.Retry(flaky(1000, errAway, &at), isAway, batch.Backoff{First: time.Hour, Most: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(time.Second, cancel).Stop()
		_, err := f(ctx, []int{5})
		require.ErrorIs(t, err, errAway)
		require.Equal(t, time.Second, time.Since(start))
		require.Len(t, at, 1)
	})
}

func TestItemsOfABatchThatIsRetriedAreAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 2}, batch.Retry(flaky(3, errAway, &at), isAway, batch.Backoff{}))
		out, info, err := b.Do(t.Context(), 5)
		require.NoError(t, err)
		require.Equal(t, 5, out)
		require.Equal(t, at[3].Sub(at[0]), info.Compute, "the pauses are a part of it")
	})
}
