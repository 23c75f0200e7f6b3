package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
)

const (
	// maxUnderWay is how many letters are asked at once: enough for batches, and few enough not to be a burst of their own.
	maxUnderWay = 16
	// maxTaking is how long a run takes further letters. RabbitMQ takes back what somebody has in hand for half an hour, and
	// the last of them need time to be answered.
	maxTaking = 20 * time.Minute
)

var (
	errStay = errors.New("letters stay parked that were chosen; what is printed says why")
	errLate = fmt.Errorf("not all letters were reached in %v; run it again for the rest", maxTaking)
)

// questioner asks a letter's question again. Without an error the answer is where it belongs.
type questioner interface {
	ask(ctx context.Context, l *parking.Letter) (*events.Result, error)
}

// replay asks letters again and removes those that are answered.
func replay(ctx context.Context, hold parking.Hold, c choice, q questioner, out io.Writer, p *progress) error {
	r := &replayer{hold: hold, questioner: q, out: out, progress: p, jobs: map[parking.Key]*job{}}
	taking, cancel := context.WithTimeoutCause(ctx, maxTaking, errLate)
	defer cancel()
	slots := make(chan struct{}, maxUnderWay)
	var asking sync.WaitGroup
	err := c.walk(taking, hold, p, func(h *parking.Held) (bool, error) {
		j, first, err := r.enter(h)
		if !first || err != nil {
			return false, err
		}
		select {
		case slots <- struct{}{}:
		case <-taking.Done():
			return true, context.Cause(taking)
		}
		asking.Go(func() {
			defer func() { <-slots }()
			r.ask(ctx, j, h)
		})
		return false, nil
	})
	asking.Wait()
	if ended := context.Cause(taking); ended != nil && err != nil {
		err = ended
	}
	if p.kept.Load() > 0 {
		err = errors.Join(err, errStay)
	}
	return errors.Join(err, r.err)
}

// replayer is one run of replay.
type replayer struct {
	hold     parking.Hold
	progress *progress
	questioner

	mu   sync.Mutex
	out  io.Writer
	jobs map[parking.Key]*job
	err  error // of removing and of printing
}

// job is one event to ask again, whatever the number of its letters.
type job struct {
	letters  []*parking.Held
	answered bool
}

// enter notes a letter. It is the first of its event, and to be asked; or it shares the fate of that one.
func (r *replayer) enter(h *parking.Held) (_ *job, first bool, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.Letter == nil {
		r.progress.kept.Add(1)
		_, err := fmt.Fprintln(r.out, name(h), "stays parked:", plain(h.Err.Error()))
		return nil, false, err
	}
	if j := r.jobs[h.Letter.Key()]; j != nil {
		if j.answered {
			return j, false, r.remove(h)
		}
		j.letters = append(j.letters, &parking.Held{Ticket: h.Ticket}) // its data may go
		return j, false, nil
	}
	j := &job{letters: []*parking.Held{h}}
	r.jobs[h.Letter.Key()] = j
	return j, true, nil
}

func (r *replayer) remove(h *parking.Held) error {
	if err := r.hold.Remove(h); err != nil {
		return err
	}
	r.progress.removed.Add(1)
	return nil
}

// ask asks one event, says what came of it and removes its letters if it was answered.
func (r *replayer) ask(ctx context.Context, j *job, h *parking.Held) {
	r.progress.underWay.Add(1)
	result, err := r.questioner.ask(ctx, h.Letter)
	r.progress.underWay.Add(-1)

	r.mu.Lock()
	defer r.mu.Unlock()
	letters := j.letters
	j.letters = nil // with their data
	if err == nil {
		j.answered = true
		for _, h := range letters {
			r.err = errors.Join(r.err, r.remove(h))
		}
		_, err = fmt.Fprintln(r.out, name(h), "answered:", inWords(result.Answer))
	} else {
		r.progress.kept.Add(1)
		_, err = fmt.Fprintln(r.out, name(h), "stays parked:", err)
	}
	r.err = errors.Join(r.err, err)
}

// inWords is an answer in a line.
func inWords(a *events.Answer) string {
	words := "-"
	if len(a.Top) > 0 {
		words = fmt.Sprintf("%s (%.1f %%)", plain(a.Top[0].Label), 100*a.Top[0].Probability)
	}
	if a.Yes == nil || a.Probability == nil {
		return words
	}
	yes := "no"
	if *a.Yes {
		yes = "yes"
	}
	return fmt.Sprintf("%s (%.1f %%), %s", yes, 100**a.Probability, words)
}
