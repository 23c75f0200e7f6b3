package page_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/models"
)

const example = "https://tensorflow.org/images/blogs/serving/cat.jpg"

// asker answers by a function and remembers what it was asked.
type asker struct {
	models []*models.Model
	answer func(context.Context, ask.Question) (*ask.Response, error)
	later  *later // nil: nothing can be asked asynchronously

	mu    sync.Mutex
	asked []ask.Question
}

func (a *asker) Models() []*models.Model { return a.models }

func (a *asker) Ask(ctx context.Context, q ask.Question) (*ask.Response, error) {
	a.mu.Lock()
	a.asked = append(a.asked, q)
	a.mu.Unlock()
	return a.answer(ctx, q)
}

func (a *asker) questions() []ask.Question {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]ask.Question(nil), a.asked...)
}

func (a *asker) Later() bool { return a.later != nil }

func (a *asker) AskLater(_ context.Context, q ask.Question) (*ask.Progress, error) {
	a.mu.Lock()
	a.asked = append(a.asked, q)
	n := len(a.asked)
	a.mu.Unlock()
	return a.later.open(fmt.Sprintf("0198c0de-0000-7000-8000-%012d", n), q.Models)
}

func (a *asker) Collect(ctx context.Context, id string) (*ask.Progress, error) {
	return a.later.collect(ctx, id)
}

func (a *asker) Drop(_ context.Context, id string) error { return a.later.drop(id) }

// later keeps what was asked asynchronously. Each model answers when the test says so.
type later struct {
	mu      sync.Mutex
	asked   map[string]ask.Progress
	results map[string]ask.Result // by model
	dropped []string
	looks   int           // how often somebody looked
	look    chan struct{} // somebody looks; who does not wait for it misses it
	failure error         // of all looks, unless nil
	keeping chan struct{} // nothing is forgotten until it is closed; nil: at once
}

func newLater(answered ...string) *later {
	l := &later{asked: map[string]ask.Progress{}, results: map[string]ask.Result{}, look: make(chan struct{})}
	l.answer(answered...)
	return l
}

// answer lets models answer.
func (l *later) answer(named ...string) {
	r, err := answerAll(context.Background(), ask.Question{Models: named})
	if err != nil {
		panic(err)
	}
	l.put(r.Results...)
}

func (l *later) put(results ...ask.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, result := range results {
		l.results[result.Model] = result
	}
}

// fail lets all looks fail, or succeed again.
func (l *later) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
}

func (l *later) looked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

func (l *later) forgotten() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.dropped...)
}

func (l *later) open(id string, named []string) (*ask.Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := ask.Progress{
		ID: id, Status: ask.StatusWaiting, Models: named, Waiting: named, Time: time.Now(), Expires: time.Now().Add(time.Hour),
	}
	l.asked[id] = p
	return &p, nil
}

func (l *later) collect(ctx context.Context, id string) (*ask.Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	select {
	case l.look <- struct{}{}:
	default:
	}
	p, ok := l.asked[id]
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case l.failure != nil:
		return nil, l.failure
	case !ok:
		return nil, problem.New(ask.CodeUnknownRequest, 404, "Unknown request", "For programs.")
	}
	p.Status, p.Waiting = ask.StatusDone, nil
	for _, name := range p.Models {
		if result, ok := l.results[name]; ok {
			p.Results = append(p.Results, result)
		} else {
			p.Status, p.Waiting = ask.StatusWaiting, append(p.Waiting, name)
		}
	}
	return &p, nil
}

func (l *later) drop(id string) error {
	if l.keeping != nil {
		<-l.keeping
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.asked[id]; !ok {
		return problem.New(ask.CodeUnknownRequest, 404, "Unknown request", "For programs.")
	}
	delete(l.asked, id)
	l.dropped = append(l.dropped, id)
	return nil
}

type fetcher func(context.Context, string) ([]byte, error)

func (f fetcher) Fetch(ctx context.Context, url string) ([]byte, error) { return f(ctx, url) }

var catalogue = []*models.Model{
	{
		Definition: models.Definition{
			Name: "cat", Question: "Is it a cat?", Subject: "a cat",
			Output: models.Output{Yes: []models.Range{{From: 1, To: 2}}},
		},
		Labels: []string{"lynx", "tabby", "Egyptian cat", "espresso", "beagle"},
	},
	{
		Definition: models.Definition{
			Name: "dog", Question: "Is it a dog?", Subject: "a dog",
			Output: models.Output{Yes: []models.Range{{From: 4, To: 4}}},
		},
		Labels: []string{"lynx", "tabby", "Egyptian cat", "espresso", "beagle"},
	},
	{Definition: models.Definition{Name: "imagenet"}},
}

func ptr[T any](v T) *T { return &v }

var tops = []events.Class{
	{Label: "tabby", Probability: 0.61},
	{Label: "tiger cat", Probability: 0.24},
	{Label: "Egyptian cat", Probability: 0.12},
	{Label: "lynx", Probability: 0.006},
	{Label: "quilt", Probability: 0.0007},
}

// known are the answers about any picture.
var known = map[string]ask.Result{
	"cat":      {Model: "cat", Question: "Is it a cat?", Answer: ptr(true), Probability: ptr(0.97)},
	"dog":      {Model: "dog", Question: "Is it a dog?", Answer: ptr(false), Probability: ptr(0.01)},
	"imagenet": {Model: "imagenet"},
}

func answerAll(_ context.Context, q ask.Question) (*ask.Response, error) {
	r := &ask.Response{ID: "0198c0de-0000-7000-8000-000000000001"}
	for _, name := range q.Models {
		result, ok := known[name]
		if !ok {
			return nil, problem.New("unknown-model", 404, "Unknown model", "There is no such model.")
		}
		result.Top = tops
		result.ServedBy = &events.ServedBy{Model: "inception_v3", Version: 1}
		result.Timing = &ask.Timing{Total: 48.1, Timing: events.Timing{Queue: 3, Decode: 6.25, Batch: 0.2, Compute: 31.9}}
		result.BatchSize = 4
		r.Results = append(r.Results, result)
	}
	return r, nil
}

// site is a page with its fakes, served on loopback.
type site struct {
	*asker
	url  string
	stop func()
}

func serve(t *testing.T, change func(*page.Config, *asker)) site {
	t.Helper()
	a := &asker{models: catalogue, answer: answerAll}
	c := page.Config{
		Asker: a,
		Fetcher: fetcher(func(context.Context, string) ([]byte, error) {
			return picture(t), nil
		}),
		MaxBytes:     1 << 20,
		SuggestedURL: example,
		Logger:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c, a)
	}
	return host(t, a, page.New(c))
}

// serveLater serves a page that asks asynchronously.
func serveLater(t *testing.T, l *later) site {
	t.Helper()
	return serve(t, func(_ *page.Config, a *asker) { a.later = l })
}

func host(t *testing.T, a *asker, h http.Handler) site {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return site{asker: a, url: server.URL + page.Path, stop: server.Close}
}

// picture is a PNG of a moon over the sea.
var picture = func() func(*testing.T) []byte {
	draw := sync.OnceValues(func() ([]byte, error) {
		img := image.NewRGBA(image.Rect(0, 0, 480, 320))
		for y := range 320 {
			shore := func(x int, level, wide float64) bool {
				return float64(y) > level+8*math.Sin(float64(x)/wide)
			}
			for x := range 480 {
				c := color.RGBA{13, 59, 74, 255}
				switch {
				case shore(x, 270, 31):
					c = color.RGBA{168, 227, 214, 255}
				case shore(x, 215, 43):
					c = color.RGBA{63, 173, 166, 255}
				case shore(x, 160, 57):
					c = color.RGBA{23, 116, 124, 255}
				case math.Hypot(float64(x-340), float64(y-80)) < 36:
					c = color.RGBA{244, 200, 105, 255}
				}
				img.SetRGBA(x, y, c)
			}
		}
		var b bytes.Buffer
		err := png.Encode(&b, img)
		return b.Bytes(), err
	})
	return func(t *testing.T) []byte {
		t.Helper()
		data, err := draw()
		require.NoError(t, err)
		return data
	}
}()

// noise is a PNG that no format makes small.
func noise(t *testing.T) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2)) // the same noise each time
	img := image.NewGray(image.Rect(0, 0, 480, 320))
	for i := range img.Pix {
		img.Pix[i] = uint8(random.Uint32())
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

// file puts data into a file of the test.
func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}
