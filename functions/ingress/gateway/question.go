package gateway

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// mostWait is the longest wait that a client can name, in seconds. The Service has a bound of its own, far below it.
const mostWait = 3600

// preferences are what a request's client prefers (RFC 7240), with the values; parameters are left out.
func preferences(r *http.Request) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, line := range r.Header.Values("Prefer") {
			for preference := range strings.SplitSeq(line, ",") {
				preference, _, _ = strings.Cut(preference, ";")
				name, value, _ := strings.Cut(preference, "=")
				if !yield(strings.ToLower(strings.TrimSpace(name)), strings.Trim(strings.TrimSpace(value), `"`)) {
					return
				}
			}
		}
	}
}

// patience is how long a request's client waits, if it says so: "Prefer: wait=10", in seconds. What cannot be
// understood is passed over, as RFC 7240 says.
func patience(w http.ResponseWriter, r *http.Request) time.Duration {
	for name, value := range preferences(r) {
		seconds, err := strconv.Atoi(value)
		if name != "wait" || err != nil || seconds < 1 || seconds > mostWait {
			continue
		}
		w.Header().Set(headerPreferenceApplied, "wait="+strconv.Itoa(seconds))
		return time.Duration(seconds) * time.Second
	}
	return mostWait * time.Second
}

// failed is one picture of several that has no answer, and therefore none of them has.
type failed struct {
	index   int
	problem *problem.Details
}

// askEach asks one model about several pictures, some at a time, and returns the answers in the pictures' order. When
// one fails, the others are given up: these protocols have one answer for all.
func (g *gateway) askEach(ctx context.Context, id, model string, pictures [][]byte) ([]ask.Result, *failed) {
	results := make([]ask.Result, len(pictures))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(g.Concurrency)
	first := make(chan *failed, 1)
	for i, picture := range pictures {
		group.Go(func() error {
			response, err := g.Service.Ask(ctx, ask.Question{ID: id, Picture: picture, Models: []string{model}})
			if err == nil {
				results[i] = response.Results[0]
				if results[i].Error == nil {
					return nil
				}
				err = results[i].Error
			}
			select {
			case first <- &failed{index: i, problem: problem.From(err)}:
			default: // another one failed before, and that is why
			}
			return err
		})
	}
	if group.Wait() == nil {
		return results, nil
	}
	return nil, <-first
}

// about says which picture a problem is about, when there were several.
func (f *failed) about(pictures int) *problem.Details {
	if pictures == 1 {
		return f.problem
	}
	p := *f.problem
	p.Detail = fmt.Sprintf("Picture %d of %d: %s", f.index+1, pictures, p.Detail)
	return &p
}
