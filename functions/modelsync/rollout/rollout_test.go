package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

var allSteps = []string{"found 2", "staged 2", "shifted 2 10%", "shifted 2 50%", "shifted 2 100%", "serving 2"}

func TestANewerVersionComesToServeStepByStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r, _ := w.process("a")
		require.Equal(t, rollout.Current, look(t, r))
		require.Empty(t, happened(state(t, r)))

		w.published[2] = good
		began := time.Now()
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.Equal(t, 3*time.Minute, time.Since(began), "each step and all of the traffic are held")
		s := state(t, r)
		require.Equal(t, allSteps, happened(s))
		require.Equal(t, s.History, w.events)
		require.EqualValues(t, 2, s.Serving)
		require.EqualValues(t, 1, s.Previous)
		require.Equal(t, []int64{1, 2}, s.Kept)
		require.Equal(t, []string{"bright"}, s.Models)
		require.Nil(t, s.Candidate)
		require.Nil(t, s.Holder)
		require.Equal(t, map[int64]int{2: 100}, w.traffic)
		require.Equal(t, rollout.Current, look(t, r))
	})
}

func TestOfSeveralTheNewestIsRolledOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for _, v := range []int64{1, 2, 4, 7} {
			w.published[v] = good
		}
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.EqualValues(t, 7, state(t, r).Serving)
		require.Equal(t, rollout.Current, look(t, r))
	})
}

func TestWhatIsNoGoodIsRefusedOnceAndSaysWhy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		is     version
		spoil  func(w *world)
		reason string
	}{
		{"corrupt", version{corrupt: true}, nil, "version is corrupt: weights.bin"},
		{"another signature", version{bright: 1, width: 3}, nil, `model bright: version refused: its input "image" has the shape [-1 2 3 3], and the definition's is [-1 2 2 3]`},
		{"another answer", version{bright: 0.2, width: 2}, nil, "golden picture white.png: version refused: the answer is no (0.800), and yes is known"},
		{"a worse answer", version{bright: 0.8, width: 2}, nil, "the answer is yes with a probability of 0.800, and at least 0.900 is known"},
		{"no answer", version{bright: 7, width: 2}, nil, "which is no probability"},
		{"cannot be loaded", good, func(w *world) { w.unstaged = fmt.Errorf("%w: not an ONNX file", rollout.ErrRefused) }, "not an ONNX file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.published[2] = tc.is
				if tc.spoil != nil {
					tc.spoil(w)
				}
				r, p := w.process("a")
				require.Equal(t, rollout.NotTaken, look(t, r))
				s := state(t, r)
				require.Contains(t, s.Refused[0].Reason, tc.reason)
				require.Equal(t, rollout.ByCheck, s.Refused[0].By)
				require.Equal(t, map[int64]int{1: 100}, w.traffic)
				require.Equal(t, "refused 2", happened(s)[len(s.History)-1])

				before := p.calls
				require.Equal(t, rollout.Current, look(t, r))
				require.Less(t, p.calls-before, 15, "nothing is fetched again")
				require.Len(t, state(t, r).Refused, 1)

				w.published[2], w.unstaged = good, nil
				_, err := r.Allow(t.Context(), 2)
				require.NoError(t, err)
				require.Equal(t, rollout.RolledOut, look(t, r))
			})
		})
	}
}

func TestWhatMayPassIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		r, _ := w.process("a")
		w.away = errors.New("no route to host")
		outcome, err := r.Look(t.Context())
		require.Equal(t, rollout.Failed, outcome)
		require.ErrorIs(t, err, w.away)
		require.Equal(t, "no route to host", state(t, r).LastFailure.Reason)

		w.away, w.unstaged = nil, errors.New("no room on any node")
		outcome, err = r.Look(t.Context())
		require.Equal(t, rollout.Failed, outcome)
		require.ErrorIs(t, err, w.unstaged)
		s := state(t, r)
		require.Equal(t, rollout.PhaseStage, s.LastFailure.Phase)
		require.EqualValues(t, 2, s.LastFailure.Version)

		w.unstaged = nil
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.Nil(t, state(t, r).LastFailure)
	})
}

func TestACandidateWithoutTrafficGivesWayToANewerOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		w.unstaged = errors.New("no room on any node")
		r, _ := w.process("a")
		_, err := r.Look(t.Context())
		require.Error(t, err)
		w.unstaged, w.published[3] = nil, good
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.EqualValues(t, 3, state(t, r).Serving)
		require.Equal(t, []int64{3}, w.mostly)
	})
}

func TestACandidateThatDoesWorseIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		counts func(w *world)
		reason string
	}{
		{"fails", func(w *world) {
			if w.traffic[2] > 0 {
				w.count(1, 90, 10*time.Millisecond, 5)
			}
		}, "with 10 % of the traffic 100.0 % of its calls failed beyond what failed before"},
		{"fails with all of the traffic", func(w *world) {
			if w.traffic[2] == 100 {
				w.count(2, 90, 10*time.Millisecond, 10)
			}
		}, "with 100 % of the traffic 10.0 % of its calls failed"},
		{"slow", func(w *world) {
			w.count(1, 30, 10*time.Millisecond, 0)
			if w.traffic[2] > 0 {
				w.count(2, 30, 16*time.Millisecond, 0)
			}
		}, "it computes for 16.0 ms a call, and its predecessor for 10.0 ms: 1.5 times as long may be"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.published[2] = good
				w.count(1, 1000, 10*time.Millisecond, 0)
				w.perTick = func() { tc.counts(w) }
				r, _ := w.process("a")
				require.Equal(t, rollout.NotTaken, look(t, r))
				s := state(t, r)
				require.Contains(t, s.Refused[0].Reason, tc.reason)
				require.Equal(t, rollout.ByWatch, s.Refused[0].By)
				require.Equal(t, map[int64]int{1: 100}, w.traffic)
				require.EqualValues(t, 1, s.Serving)
				events := happened(s)
				require.Equal(t, []string{"refused 2", "returned 1"}, events[len(events)-2:])
			})
		})
	}
}

func TestWhatFailedBeforeIsNotTheCandidatesFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		w.count(1, 900, 10*time.Millisecond, 100)
		w.perTick = func() { w.count(1, 45, 10*time.Millisecond, 5); w.count(2, 45, 14*time.Millisecond, 5) } // slower, but within the limit
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
	})
}

func TestAProcessThatBeganAgainIsCountedFromItsBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		w.count(1, 1000, 10*time.Millisecond, 500)
		w.perTick = func() {
			if w.traffic[2] > 0 {
				w.tallies = map[string]rollout.Tally{}
				w.count(2, 100, time.Millisecond, 0)
			}
		}
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
	})
}

func TestALookThatHasNoTimeLeftIsGoneOnWith(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		r, _ := w.process("a")
		began := time.Now()
		looks := 0
		for outcome := rollout.UnderWay; outcome == rollout.UnderWay; looks++ {
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			var err error
			outcome, err = r.Look(ctx)
			cancel()
			require.NoError(t, err)
			time.Sleep(20 * time.Second)
		}
		require.EqualValues(t, 2, state(t, r).Serving)
		require.Equal(t, allSteps, happened(state(t, r)))
		require.InDelta(t, 3*time.Minute, time.Since(began), float64(time.Minute), "steps go on while nobody looks")
		require.Greater(t, looks, 2)
	})
}

// The heart of it: wherever a process dies, and whether what it did last had an effect or not, the next one brings the
// network to the same end.
func TestWhereverAProcessDiesTheNextOneEndsWhatItBegan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		is     version
		counts func(w *world) // while time passes
		want   func(t *testing.T, w *world, s rollout.State)
	}{
		{"a good version", good, nil, func(t *testing.T, w *world, s rollout.State) {
			t.Helper()
			require.EqualValues(t, 2, s.Serving)
			require.EqualValues(t, 1, s.Previous)
			require.Empty(t, s.Refused)
			require.Equal(t, map[int64]int{2: 100}, w.traffic)
		}},
		{"a worse version", version{bright: 0.1, width: 2}, nil, requireRefused},
		{"a version that fails with traffic", good, func(w *world) {
			w.count(1, 90, 10*time.Millisecond, 0)
			if w.traffic[2] > 0 {
				w.count(2, 5, 10*time.Millisecond, 5)
			}
		}, requireRefused},
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after=%v", tc.name, after), func(t *testing.T) {
				t.Parallel()
				for fuse := 1; ; fuse++ {
					died := false
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, 1)
						w.published[2] = tc.is
						if tc.counts != nil {
							w.perTick = func() { tc.counts(w) }
						}
						ctx, die := context.WithCancel(t.Context())
						defer die()
						first, p := w.mortal("first", fuse, after, die)
						_, _ = first.Look(ctx)
						died = p.dead
						second, _ := w.process("second")
						for range 10 {
							if s := state(t, second); s.Holder == nil && s.Candidate == nil && (s.Serving == 2 || len(s.Refused) > 0) {
								break
							}
							time.Sleep(time.Minute) // until the next look; a lease has run out
							_, err := second.Look(t.Context())
							require.NoError(t, err, "fuse %d", fuse)
						}
						s := state(t, second)
						tc.want(t, w, s)
						require.Nil(t, s.Candidate)
						require.Nil(t, s.Holder)
						requireOnce(t, s, fuse)
					})
					if !died {
						require.Greater(t, fuse, 15, "it was killed at many places")
						return
					}
				}
			})
		}
	}
}

// requireRefused wants version 2 refused, never to have had all of the traffic, and version 1 to have it.
func requireRefused(t *testing.T, w *world, s rollout.State) {
	t.Helper()
	require.EqualValues(t, 1, s.Serving)
	require.Len(t, s.Refused, 1)
	require.Equal(t, map[int64]int{1: 100}, w.traffic)
	require.Empty(t, w.mostly)
}

func TestWhereverAProcessDiesThatTakesAVersionBackTheNextOneEndsIt(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			t.Parallel()
			for fuse := 1; ; fuse++ {
				died := false
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 1)
					w.published[2] = good
					r, _ := w.process("before")
					require.Equal(t, rollout.RolledOut, look(t, r))
					ctx, die := context.WithCancel(t.Context())
					defer die()
					operator, p := w.mortal("operator", fuse, after, die)
					_, _ = operator.Rollback(ctx, 0)
					died = p.dead
					time.Sleep(time.Minute) // a lease has run out
					ordered := state(t, r).Order != nil || len(state(t, r).Refused) > 0 || w.traffic[1] == 100
					_, err := r.Look(t.Context())
					require.NoError(t, err)
					if !ordered {
						return // it died before anybody could know what was wanted
					}
					s := state(t, r)
					require.EqualValues(t, 1, s.Serving, "fuse %d", fuse)
					require.Nil(t, s.Order)
					require.Equal(t, map[int64]int{1: 100}, w.traffic)
					require.Equal(t, rollout.Current, look(t, r), "it stays so")
				})
				if !died {
					require.Greater(t, fuse, 8, "it was killed at many places")
					return
				}
			}
		})
	}
}

// requireOnce wants no version to have come to serve twice.
func requireOnce(t *testing.T, s rollout.State, fuse int) {
	t.Helper()
	text := strings.Join(happened(s), ", ")
	require.LessOrEqual(t, strings.Count(text, "serving 2"), 1, "fuse %d: %s", fuse, text)
	require.LessOrEqual(t, strings.Count(text, "refused 2"), 1, "fuse %d: %s", fuse, text)
}

func TestOfManyReplicasOneRollsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		outcomes := make([]rollout.Outcome, 8)
		var all sync.WaitGroup
		for i := range outcomes {
			r, _ := w.process(fmt.Sprint("replica-", i))
			all.Go(func() { outcomes[i] = look(t, r) })
		}
		all.Wait()
		count := map[rollout.Outcome]int{}
		for _, o := range outcomes {
			count[o]++
		}
		require.Equal(t, map[rollout.Outcome]int{rollout.RolledOut: 1, rollout.Busy: 7}, count)
		require.Equal(t, []int64{2}, w.mostly)
		r, _ := w.process("later")
		require.Equal(t, allSteps, happened(state(t, r)))
	})
}

func TestALeaseThatRanOutIsNobodysAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		first, p := w.process("first")
		ended := make(chan rollout.Outcome, 1)
		go func() {
			o, _ := first.Look(t.Context())
			ended <- o
		}()
		time.Sleep(30 * time.Second)
		second, _ := w.process("second")
		require.Equal(t, rollout.Busy, look(t, second), "it was renewed")
		p.mu.Lock()
		p.dead = true // it reaches nobody any more, but does not know that it is dead
		p.mu.Unlock()
		time.Sleep(21 * time.Second)
		require.Equal(t, rollout.RolledOut, look(t, second))
		require.NotEqual(t, rollout.RolledOut, <-ended)
		require.Equal(t, []int64{2}, w.mostly)
	})
}

func TestAVersionIsTakenBackAndStaysSoUntilItIsAllowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
		w.published[3] = good
		require.Equal(t, rollout.RolledOut, look(t, r))

		s, err := r.Rollback(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, s.Serving)
		require.Equal(t, map[int64]int{1: 100}, w.traffic)
		require.Nil(t, s.Order)
		require.Equal(t, rollout.ByOperator, s.Refused[0].By)
		require.Equal(t, rollout.Current, look(t, r), "neither 3 nor 2 comes back by itself")

		s, err = r.Allow(t.Context(), 2)
		require.NoError(t, err)
		require.Equal(t, "allowed 2", happened(s)[len(s.History)-1])
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.EqualValues(t, 2, state(t, r).Serving, "3 stays refused")
		require.Equal(t, rollout.Current, look(t, r))

		w.published[4] = good
		require.Equal(t, rollout.RolledOut, look(t, r), "a newer one is another matter")
		require.EqualValues(t, 4, state(t, r).Serving)
	})
}

func TestWithoutANameTheVersionBeforeIsMeant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
		s, err := r.Rollback(t.Context(), 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, s.Serving)
		_, err = r.Rollback(t.Context(), 0)
		require.ErrorIs(t, err, rollout.ErrNothing)
		_, err = r.Rollback(t.Context(), 7)
		require.ErrorIs(t, err, rollout.ErrGone)
		_, err = r.Allow(t.Context(), 7)
		require.ErrorIs(t, err, rollout.ErrNotRefused)
	})
}

func TestARolloutUnderWayIsTakenBackByWhoeverWorksOnIt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		after time.Duration
	}{{"with some of the traffic", 90 * time.Second}, {"with all of it", 150 * time.Second}} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, same process=%v", tc.name, same), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 1)
					w.published[2] = good
					worker, _ := w.process("worker")
					operator := worker
					if !same {
						operator, _ = w.process("operator")
					}
					outcome := make(chan rollout.Outcome, 1)
					go func() {
						o, _ := worker.Look(t.Context())
						outcome <- o
					}()
					time.Sleep(tc.after)
					began := time.Now()
					s, err := operator.Rollback(t.Context(), 0)
					require.NoError(t, err)
					require.LessOrEqual(t, time.Since(began), 10*time.Second)
					require.EqualValues(t, 1, s.Serving)
					require.Equal(t, map[int64]int{1: 100}, w.traffic)
					require.Equal(t, rollout.TakenBack, <-outcome)
					require.Equal(t, rollout.Current, look(t, worker))
				})
			})
		}
	}
}

func TestWhatIsDoneByHandIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.published[2] = good
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))

		w.traffic, w.served = map[int64]int{1: 100}, 1 // with kn
		require.Equal(t, rollout.Current, look(t, r))
		s := state(t, r)
		require.EqualValues(t, 1, s.Serving)
		require.Equal(t, "version 1 was made to serve again by hand", s.Refused[0].Reason)
		require.Equal(t, rollout.Current, look(t, r))

		w.traffic, w.served = map[int64]int{9: 100}, 9
		w.keep(9)
		require.Equal(t, rollout.Current, look(t, r))
		require.EqualValues(t, 9, state(t, r).Serving)
	})
}

func TestOldVersionsAreRemovedButNeverTheOneServingNorItsPredecessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r, _ := w.process("a")
		for v := int64(2); v <= 6; v++ {
			w.published[v] = good
			require.Equal(t, rollout.RolledOut, look(t, r))
		}
		require.Equal(t, []int64{4, 5, 6}, w.kept)
		require.Equal(t, []int64{1, 2, 3}, w.pruned)
		_, err := r.Rollback(t.Context(), 4)
		require.NoError(t, err)
		w.published[7] = good
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.Equal(t, []int64{4, 6, 7}, w.kept, "7 serves, 4 served before it")
	})
}

func TestAnotherServerBringsTheSameVersionAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r, _ := w.process("a")
		require.Equal(t, rollout.Current, look(t, r))
		w.renew = true
		go func() {
			time.Sleep(time.Second)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.renew = false // as soon as it is staged
		}()
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.Equal(t, []int64{1}, w.mostly)
		require.Equal(t, rollout.Current, look(t, r))
	})
}

func TestTheFirstVersionNeedsNoSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.published[1] = good
		r, _ := w.process("a")
		require.Equal(t, rollout.RolledOut, look(t, r))
		require.Equal(t, []string{"found 1", "staged 1", "shifted 1 100%", "serving 1"}, happened(state(t, r)))
	})
}

func TestTheStateStaysSmall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r, _ := w.process("a")
		w.unstaged = fmt.Errorf("%w: %s", rollout.ErrRefused, strings.Repeat("x", 10_000))
		for v := int64(2); v < 120; v++ {
			w.published[v] = good
			require.Equal(t, rollout.NotTaken, look(t, r))
		}
		require.Less(t, len(w.document), 200<<10, "a ConfigMap has room for it")
	})
}
