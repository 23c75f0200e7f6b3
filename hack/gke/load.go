package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/load"
	"github.com/ebb-inference/ebb/models"
)

// What load may be asked for: enough to see it scale, and not to run up a bill by a slip of the finger.
const (
	mostRequests = 20_000
	mostRate     = 200
	mostPicture  = 10 << 20
)

type loadOptions struct {
	requests     int
	rate         float64
	url, picture string
}

func (o loadOptions) check() error {
	u, err := url.Parse(o.url)
	switch {
	case o.requests < 1 || o.requests > mostRequests:
		return fmt.Errorf("-requests is %d: 1 to %d", o.requests, mostRequests)
	case !(o.rate > 0 && o.rate <= mostRate): // NaN is neither
		return fmt.Errorf("-rate is %g: more than 0, and at most %d", o.rate, mostRate)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
		return fmt.Errorf("-url is %q: it is as https://ebb.example.com", o.url)
	}
	return nil
}

// load asks the models in turn about a picture and says what came of it.
func (c cloud) load(ctx context.Context, f files, o loadOptions) error {
	watch := "KUBECONFIG=" + f.kubeconfig()
	if c.runner.DryRun {
		c.runner.Say("%d requests to %s, %g a second; no command", o.requests, o.url, o.rate)
		return nil
	}
	all, err := models.ReadFolders(filepath.Join(f.root, "config", "compose", "models"))
	if err != nil {
		return err
	}
	picture, err := os.ReadFile(o.picture)
	switch {
	case err != nil:
		return fmt.Errorf("%w; `make pictures` gets one", err)
	case len(picture) > mostPicture:
		return fmt.Errorf("%s is larger than what ingress takes, 10 MiB", o.picture)
	}
	c.runner.Say("%d requests to %s, %g a second. It scales out meanwhile:\n    %s kubectl --namespace=ebb get pods --watch\n    %s kn revision list --namespace=ebb",
		o.requests, o.url, o.rate, watch, watch)
	var sent time.Time
	l := load.New(load.Plan{
		URL: o.url, Requests: o.requests, Rate: o.rate, First: int(time.Now().Unix()) * mostRequests, // no key is used twice
		Question: func(n int) (load.Question, error) {
			return load.Question{
				Model: all[n%len(all)].Name, Picture: picture,
				Check: func(r ask.Result) error {
					if len(r.Top) == 0 {
						return errors.New("an answer without classes")
					}
					return nil
				},
			}, nil
		},
		Before: func(n int) {
			if time.Since(sent) > 5*time.Second {
				sent = time.Now()
				c.runner.Say("    %d of %d sent", n, o.requests)
			}
		},
	})
	l.Send(ctx)
	account := l.Collect(ctx)
	c.runner.Say("%s", account.String())
	if n := len(account.Took); n > 0 {
		slices.Sort(account.Took)
		at := func(share float64) time.Duration {
			return account.Took[min(n-1, int(share*float64(n)))].Round(time.Millisecond)
		}
		c.runner.Say("answers took %s (median), %s (of a hundred, 95 at most), %s (the longest)", at(0.5), at(0.95), at(1))
	}
	if account.Answered < o.requests {
		examples := account.Wrong[:min(3, len(account.Wrong))]
		return errors.Join(fmt.Errorf("%d of %d were not answered: %q", o.requests-account.Answered, o.requests, examples), context.Cause(ctx))
	}
	return nil
}
