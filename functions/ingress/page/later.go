package page

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// requestsPath is where questions that are asked asynchronously have their addresses.
const requestsPath = Path + "/requests/"

// How long the form's own answer is waited for.
const (
	patience  = time.Second            // for all models
	grace     = 200 * time.Millisecond // for the others, when one has answered
	firstLook = 20 * time.Millisecond  // until the answers are looked for
)

// How long a page that waits rests between two looks.
const (
	shortestRest = 500 * time.Millisecond
	longestRest  = 10 * time.Second
)

const (
	coldAfter   = 2 * time.Second // until a slow answer is explained; the page's script has the same
	dropTimeout = 5 * time.Second // of what nobody waits for
)

// askLater asks, and waits a moment: warm models have answered by then, so that nobody is sent to another page for them.
func (h *handler) askLater(ctx context.Context, q ask.Question) (int, section, error) {
	p, err := h.Asker.AskLater(ctx, q)
	if err != nil {
		return 0, section{}, err //nolint:wrapcheck // explain says what it means
	}
	p = h.await(ctx, p)
	switch {
	case p.Status == ask.StatusDone:
		s := h.answered(p.Response())
		s.spent = p.ID
		return ask.Status(p.Response()), s, nil
	case ctx.Err() != nil:
		h.drop(ctx, p.ID) // whoever asked left before there was an address to come back to
		return 0, section{}, left()
	default:
		return http.StatusAccepted, h.waiting(p), nil
	}
}

// await looks for answers until all are there, or patience ends. It looks often at first, so that who is quick is hardly
// delayed, and then ever less.
func (h *handler) await(ctx context.Context, p *ask.Progress) *ask.Progress {
	began := time.Now()
	until := began.Add(patience)
	for p.Status != ask.StatusDone && time.Now().Before(until) {
		pause := min(max(time.Since(began)/4, firstLook), time.Until(until))
		select {
		case <-ctx.Done():
			return p
		case <-time.After(pause):
		}
		next, err := h.Asker.Collect(ctx, p.ID)
		if err != nil {
			return p // it is asked; whoever looks for it at its address is told
		}
		if soon := time.Now().Add(grace); len(p.Results) == 0 && len(next.Results) > 0 && soon.Before(until) {
			until = soon
		}
		p = next
	}
	return p
}

// drop forgets a request that nobody will come back for.
func (h *handler) drop(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	if err := h.Asker.Drop(ctx, id); err != nil {
		h.Logger.WarnContext(ctx, "an answer that nobody needs is kept until it expires", "request_id", id, "error", err)
	}
}

// collect answers GET at a request's address: how it goes.
func (h *handler) collect(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	p, err := h.Asker.Collect(r.Context(), id)
	switch {
	case err != nil:
		d, answers := h.uncollected(r.Context(), id, err)
		h.reply(w, r, submission{}, d.Status, answers)
	case p.Status == ask.StatusDone:
		h.reply(w, r, submission{models: p.Models}, ask.Status(p.Response()), h.collected(p))
	default:
		h.reply(w, r, submission{models: p.Models}, http.StatusAccepted, h.waiting(p))
	}
}

// forget answers POST at a request's address, which is what a form can do instead of DELETE.
func (h *handler) forget(w http.ResponseWriter, r *http.Request) {
	if h.origin.Check(r) != nil {
		d := foreign()
		h.reply(w, r, submission{}, d.Status, h.failed(d))
		return
	}
	id := r.PathValue("id")
	if err := h.Asker.Drop(r.Context(), id); err != nil {
		d, answers := h.uncollected(r.Context(), id, err)
		h.reply(w, r, submission{}, d.Status, answers)
		return
	}
	answers := h.empty()
	answers.Heading = "Forgotten"
	h.reply(w, r, submission{}, http.StatusOK, answers)
}

// uncollected is what a person is told who came to a request's address in vain.
func (h *handler) uncollected(ctx context.Context, id string, err error) (*problem.Details, section) {
	d := problem.From(err)
	switch code := d.Code(); {
	case code == ask.CodeRequestGone:
		d = goneAnswer()
	case code == ask.CodeUnknownRequest, code == ask.CodeRequestID:
		d = unknownAnswer()
	case d.RetryAfter > 0:
		s := h.failed(notNow())
		s.State, s.Heading, s.Retry, s.Address = stateUnknown, "No answer yet", false, requestsPath+url.PathEscape(id)
		s.Again = time.Duration(d.RetryAfter) * time.Second
		return d, s
	default:
		d = h.explain(ctx, "collecting", err)
	}
	return d, h.failed(d)
}

// collected are the answers that were waited for.
func (h *handler) collected(p *ask.Progress) section {
	s := h.answered(p.Response())
	h.locate(&s, p)
	s.Step = "Asked " + minutes(time.Since(p.Time)) + " ago."
	return s
}

// waiting is how a request goes that is not done: a card a model, in the order asked.
func (h *handler) waiting(p *ask.Progress) section {
	elapsed := max(time.Since(p.Time), 0)
	s := section{State: stateWaiting, Heading: headingWorking, Request: p.ID, Step: step(len(p.Results), len(p.Waiting))}
	h.locate(&s, p)
	s.Cold = elapsed >= coldAfter
	s.Again = min(max(elapsed/4, shortestRest), longestRest)
	results := make(map[string]*ask.Result, len(p.Results))
	for i := range p.Results {
		results[p.Results[i].Model] = &p.Results[i]
	}
	for _, name := range p.Models {
		model := h.model(name)
		if result := results[name]; result != nil {
			s.Cards = append(s.Cards, newCard(result, model))
			continue
		}
		asked := ""
		if model != nil {
			asked = model.Question
		}
		s.Cards = append(s.Cards, waitingCard(name, question(asked), elapsed))
	}
	return s
}

// locate says where, and for how long, a request's answers are to be found.
func (*handler) locate(s *section, p *ask.Progress) {
	s.Address = requestsPath + p.ID
	s.Kept = minutes(time.Until(p.Expires))
	s.Elapsed = int(max(time.Since(p.Time), 0) / time.Second)
}

// step says how many answers are waited for.
func step(answered, waiting int) string {
	switch {
	case answered == 0 && waiting == 1:
		return "Waiting for the answer …"
	case waiting == 1:
		return "Waiting for one more answer …"
	case answered == 0:
		return "Waiting for " + strconv.Itoa(waiting) + " answers …"
	default:
		return "Waiting for " + strconv.Itoa(waiting) + " more answers …"
	}
}
