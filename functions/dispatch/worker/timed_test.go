package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// blocked is a model server that answers when it is let, or when nobody waits any more.
type blocked struct {
	predictor
	let chan struct{}
}

func newBlocked() *blocked {
	b := &blocked{let: make(chan struct{})}
	b.predict = func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
		select {
		case <-b.let:
			return network(ctx, in)
		case <-ctx.Done():
			return tfserving.Tensor{}, ctx.Err()
		}
	}
	return b
}

// begin delivers in a goroutine of its own and returns when it is waiting for something.
func (w *world) begin(req *http.Request) <-chan int {
	status := make(chan int, 1)
	go func() { status <- w.deliver(req).Code }()
	synctest.Wait()
	return status
}

// bubble runs a test in a bubble of time. The model is made outside.
func bubble(t *testing.T, more string, test func(t *testing.T, m *models.Model)) {
	t.Helper()
	m := newModel(t, pixels+more)
	synctest.Test(t, func(t *testing.T) { test(t, m) })
}

func TestADuplicateWaitsForTheFirstAndIsAnsweredAlike(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		r := w.event(picture(t, 9))
		first := w.begin(w.request(r))
		second := w.begin(w.request(r))
		require.Empty(t, second)
		close(p.let)
		require.Equal(t, http.StatusNoContent, <-first)
		require.Equal(t, http.StatusNoContent, <-second)
		require.Len(t, w.replies, 1)

		require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code, "when it is done, too")
		require.Len(t, w.replies, 1)
		require.EqualValues(t, 1, p.calls.Load())
		require.Equal(t, map[string]int64{"completed": 1, "duplicate": 2}, w.outcomes())
	})
}

func TestADuplicateFailsAsTheFirstDoes(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		let := make(chan struct{})
		p := &predictor{predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
			<-let
			return tfserving.Tensor{}, tfserving.ErrNotFound
		}}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		r := w.event(picture(t, 9))
		first, second := w.begin(w.request(r)), w.begin(w.request(r))
		close(let)
		require.Equal(t, http.StatusServiceUnavailable, <-first)
		require.Equal(t, http.StatusServiceUnavailable, <-second)

		p.predict = network
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code, "a redelivery computes")
		require.InDelta(t, 9./65535, *(<-w.replies).Answer.Probability, 1e-6)
		require.EqualValues(t, 2, p.calls.Load())
	})
}

func TestACopyUnderAnotherAddressNeitherTakesNorSuppressesAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := &predictor{predict: network}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		r := w.event(picture(t, 9))
		forged := *r
		forged.CorrelationID = "other"
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(&forged)).Code)
		require.Equal(t, "other", (<-w.replies).CorrelationID)
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
		require.Equal(t, r.CorrelationID, (<-w.replies).CorrelationID)
	})
}

func TestAResultThatCouldNotBeSentIsNotComputedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		fail func() error
	}{
		{"error", func() error { return errors.New("connection lost") }},
		{"panic", func() error { panic("out of luck") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, "", func(t *testing.T, m *models.Model) {
				t.Helper()
				p := &predictor{predict: network}
				var w *world
				failures := 2
				w = newWorld(t, worker.Config{Model: m, Predictor: p, Responder: responderFunc(func(ctx context.Context, to string, r *events.Result) error {
					if failures > 0 {
						failures--
						return tt.fail()
					}
					return w.hub.Respond(ctx, to, r)
				})})
				r := w.event(picture(t, 9))
				for range 2 {
					if tt.name == "panic" {
						require.Panics(t, func() { w.deliver(w.request(r)) }) // net/http logs it and hangs up
					} else {
						require.Equal(t, http.StatusServiceUnavailable, w.deliver(w.request(r)).Code)
					}
				}
				require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
				require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
				require.Len(t, w.replies, 1)
				require.InDelta(t, 9./65535, *(<-w.replies).Answer.Probability, 1e-6)
				require.EqualValues(t, 1, p.calls.Load())
			})
		})
	}
}

func TestWhatNobodyWaitsForIsDropped(t *testing.T) {
	t.Parallel()
	bubble(t, "batching: {size: 1, slots: 1, queue: 4}\n", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		computing := w.begin(w.request(w.event(picture(t, 1))))
		waiting := w.event(picture(t, 2))
		waiting.Deadline = time.Now().Add(time.Second)
		queued := w.begin(w.request(waiting))
		began := time.Now()
		require.Equal(t, http.StatusNoContent, <-queued)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, http.StatusNoContent, <-computing)
		require.Equal(t, 30*time.Second, time.Since(began))
		require.EqualValues(t, 1, p.calls.Load())
		require.Empty(t, w.replies)
		require.Equal(t, map[string]int64{"expired": 2}, w.outcomes())
	})
}

func TestAnEventIsHeldNoLongerThanTheTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p, Timeout: 10 * time.Second})
		began := time.Now()
		require.Equal(t, http.StatusServiceUnavailable, w.deliver(w.request(w.event(picture(t, 1)))).Code)
		require.Equal(t, 10*time.Second, time.Since(began))

		close(p.let)
		r := w.event(picture(t, 9))
		r.Deadline = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
		require.InDelta(t, 9./65535, *(<-w.replies).Answer.Probability, 1e-6)
	})
}

func TestAModelServerThatIsAwayIsWaitedForUntilTheDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		back := time.Now().Add(5 * time.Second)
		p := &predictor{predict: func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
			if time.Now().Before(back) {
				return tfserving.Tensor{}, tfserving.ErrUnavailable
			}
			return network(ctx, in)
		}}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.event(picture(t, 9)))).Code)
		require.InDelta(t, 9./65535, *(<-w.replies).Answer.Probability, 1e-6)

		back = back.Add(time.Hour)
		r := w.event(picture(t, 9))
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
		require.False(t, time.Now().After(r.Deadline))
		told := (<-w.replies).Problem
		require.Equal(t, "urn:ebb:problem:model-unavailable", told.Type, "the requester learns why, while there is time")
		require.Equal(t, http.StatusServiceUnavailable, told.Status)
		require.Equal(t, map[string]int64{"completed": 1, "failed": 1}, w.outcomes())

		// With time left for another try, the event comes again.
		r = w.event(picture(t, 9))
		r.Deadline = r.Deadline.Add(time.Hour)
		require.Equal(t, http.StatusServiceUnavailable, w.deliver(w.request(r)).Code)
		require.Equal(t, map[string]int64{"completed": 1, "failed": 1, "retried": 1}, w.outcomes())
	})
}

func TestAnOutageOfTheModelServerIsLoggedOnceAndItsEndToo(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		back := time.Now().Add(5 * time.Second)
		p := &predictor{predict: func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
			if time.Now().Before(back) {
				return tfserving.Tensor{}, tfserving.ErrUnavailable
			}
			return network(ctx, in)
		}}
		var log bytes.Buffer
		w := newWorld(t, worker.Config{Model: m, Predictor: p, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 2 {
			require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.event(picture(t, 9)))).Code)
		}
		require.Greater(t, p.calls.Load(), int64(3))
		require.Equal(t, 1, strings.Count(log.String(), "the model server is unavailable"))
		require.Equal(t, 1, strings.Count(log.String(), "the model server answers again"))
		require.Equal(t, 2, strings.Count(log.String(), "\n"))
	})
}

func TestThereIsRoomForSoManyAndNoMore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		maxRequests int
		held        int // while one is being computed
	}{
		{"in the batcher's queue", 0, 3}, // one computing, two waiting
		{"at the door", 2, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, "batching: {size: 1, slots: 1, queue: 2}\n", func(t *testing.T, m *models.Model) {
				t.Helper()
				p := newBlocked()
				w := newWorld(t, worker.Config{Model: m, Predictor: p, MaxRequests: tt.maxRequests})
				var held []<-chan int
				for i := range tt.held {
					held = append(held, w.begin(w.request(w.event(picture(t, i)))))
				}
				r := w.event(picture(t, 9))
				res := w.deliver(w.request(r))
				require.Equal(t, http.StatusServiceUnavailable, res.Code)
				require.Equal(t, "1", res.Header().Get("Retry-After"))
				close(p.let)
				for _, status := range held {
					require.Equal(t, http.StatusNoContent, <-status)
				}
				require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
				require.Len(t, w.replies, tt.held+1)
				require.Equal(t, map[string]int64{"completed": int64(tt.held + 1), "overloaded": 1}, w.outcomes())
			})
		})
	}
}

func TestWhatWasBegunIsFinishedWhenTheDelivererHangsUp(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		r := w.event(picture(t, 9))
		ctx, hangUp := context.WithCancel(t.Context())
		first := w.begin(w.request(r).WithContext(ctx))
		duplicate := w.begin(w.request(r).WithContext(ctx))
		hangUp()
		require.Equal(t, http.StatusServiceUnavailable, <-duplicate)
		require.Empty(t, first)
		again := w.begin(w.request(r))
		close(p.let)
		require.Equal(t, http.StatusNoContent, <-first)
		require.Equal(t, http.StatusNoContent, <-again)
		require.Len(t, w.replies, 1)
		require.EqualValues(t, 1, p.calls.Load())
	})
}

func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		held := w.begin(w.request(w.event(picture(t, 9))))
		stopped := make(chan error, 2)
		for range 2 {
			go func() { stopped <- w.worker.Stop(context.Background()) }()
		}
		synctest.Wait()
		require.Equal(t, http.StatusServiceUnavailable, w.deliver(w.request(w.event(picture(t, 1)))).Code)
		require.ErrorContains(t, w.worker.Ready(), "stopping")
		require.Empty(t, stopped)
		close(p.let)
		require.Equal(t, http.StatusNoContent, <-held)
		require.NoError(t, <-stopped)
		require.NoError(t, <-stopped)
		require.Len(t, w.replies, 1)
	})
}

func TestStopRefusesWhatDoesNotFinishInTime(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		w := newWorld(t, worker.Config{Model: m, Predictor: newBlocked()})
		held := w.begin(w.request(w.event(picture(t, 9))))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.worker.Stop(ctx), context.DeadlineExceeded)
		require.Equal(t, http.StatusServiceUnavailable, <-held)
		require.Empty(t, w.replies)
	})
}

func TestTheModelServerIsAskedWhenWhatIsKnownIsOld(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		state := tfserving.VersionStatus{State: 20}
		p := &predictor{status: func() ([]tfserving.VersionStatus, error) { return []tfserving.VersionStatus{state}, nil }}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		for _, step := range []struct {
			after time.Duration
			ready bool
			asked int64
		}{
			{0, false, 1},
			{499 * time.Millisecond, false, 1},
			{time.Millisecond, true, 2},
			{4999 * time.Millisecond, true, 2},
			{time.Millisecond, true, 3},
		} {
			time.Sleep(step.after)
			require.Equal(t, step.ready, w.worker.Served() == nil)
			require.Equal(t, step.asked, p.calls.Load())
			state.State = 30
		}
	})
}

func TestADeliveryIsTakenBeforeTheModelServerIsThereAndAnsweredThen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		starts  time.Duration // how long the model server takes
		timeout time.Duration // how long a delivery is held
		until   time.Duration // the event's deadline
		status  []int         // of the deliveries, one after the other
		answers bool
	}{
		{"in a moment", 2 * time.Second, time.Minute, 30 * time.Second, []int{204}, true},
		{"within the deadline", 28 * time.Second, time.Minute, 30 * time.Second, []int{204}, true},
		{"after the deadline", time.Hour, time.Minute, 30 * time.Second, []int{204}, false},
		{"after minutes, which who does not wait has", 3 * time.Minute, time.Minute, 15 * time.Minute, []int{503, 503, 503, 204}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, "", func(t *testing.T, m *models.Model) {
				t.Helper()
				there := time.Now().Add(tt.starts)
				away := fmt.Errorf("%w: connection refused", tfserving.ErrUnavailable)
				p := &predictor{
					predict: func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
						if time.Now().Before(there) {
							return tfserving.Tensor{}, away
						}
						return network(ctx, in)
					},
					status: func() ([]tfserving.VersionStatus, error) { return nil, away },
				}
				w := newWorld(t, worker.Config{Model: m, Predictor: p, Timeout: tt.timeout})
				require.NoError(t, w.worker.Ready())
				require.ErrorIs(t, w.worker.Served(), tfserving.ErrUnavailable)
				r := w.event(picture(t, 1))
				r.Deadline = time.Now().Add(tt.until)
				for _, status := range tt.status {
					held := w.begin(w.request(r))
					synctest.Wait()
					require.Empty(t, held, "it is held")
					require.Equal(t, status, <-held)
				}
				require.Len(t, w.replies, 1)
				got := <-w.replies
				require.Equal(t, tt.answers, got.Answer != nil, "%v", got.Problem)
			})
		})
	}
}

func TestRousingAModelServerWaitsForItAMinuteAtMost(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		var log bytes.Buffer
		began := time.Now()
		worker.Rouse(t.Context(), m, hanging{}, slog.New(slog.NewTextHandler(&log, nil)))
		require.Equal(t, time.Minute, time.Since(began))
		require.Contains(t, log.String(), "batches will wait for it")
		log.Reset()
		ended, end := context.WithCancel(t.Context())
		end()
		worker.Rouse(ended, m, hanging{}, slog.New(slog.NewTextHandler(&log, nil)))
		require.Empty(t, log.String(), "a dispatch that is told to end has nothing to say of it")
	})
}

// hanging is a model server that is being started.
type hanging struct{ worker.Predictor }

func (hanging) Status(ctx context.Context, _ tfserving.Spec) ([]tfserving.VersionStatus, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestABatchIsLinkedToEachOfItsItems(t *testing.T) {
	t.Parallel()
	bubble(t, "batching: {size: 4, slots: 1, queue: 4}\n", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		traces := []string{"21f7651916cd43dd8448eb211c80319c", "22f7651916cd43dd8448eb211c80319c", "23f7651916cd43dd8448eb211c80319c"}
		flags := []string{"01", "00", "01"} // the second is not sampled, and cannot be the batch's parent
		statuses := []<-chan int{w.begin(w.request(w.event(picture(t, 1))))}
		for _, i := range []int{1, 0, 2} {
			r := w.event(picture(t, i))
			r.TraceParent = "00-" + traces[i] + "-b7ad6b7169203331-" + flags[i]
			statuses = append(statuses, w.begin(w.request(r)))
		}
		close(p.let)
		for _, s := range statuses {
			require.Equal(t, http.StatusNoContent, <-s)
		}
		found := false
		for _, s := range spans.Ended() {
			if s.Name() != "batch" || s.SpanContext().TraceID().String() != traces[0] {
				continue
			}
			found = true
			var linked []string
			for _, l := range s.Links() {
				linked = append(linked, l.SpanContext.TraceID().String())
			}
			require.Equal(t, []string{traces[1], traces[0], traces[2]}, linked)
		}
		require.True(t, found)
	})
}
