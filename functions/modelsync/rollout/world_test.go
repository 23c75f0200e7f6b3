package rollout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const definition = `
name: bright
question: Is it bright?
subject: bright
serving:
  address: "net.example:80"
  model: net
  source: {url: "file:///published/net", keep: 3}
  rollout: {golden: [{picture: white.png, answer: yes, probability: 0.9}], hold: 1m}
input: {tensor: image, dtype: uint8, width: 2, height: 2}
output: {tensor: probabilities, labels: labels.txt, yes: [1]}
`

func network(tb testing.TB) *models.Network {
	tb.Helper()
	white := image.NewGray(image.Rect(0, 0, 2, 2))
	for i := range white.Pix {
		white.Pix[i] = 255
	}
	require.Equal(tb, color.Gray{Y: 255}, white.At(0, 0))
	var file bytes.Buffer
	require.NoError(tb, png.Encode(&file, white))
	m, err := models.Parse(fstest.MapFS{
		"model.yaml": {Data: []byte(definition)}, "labels.txt": {Data: []byte("dark\nbright\n")}, "white.png": {Data: file.Bytes()},
	}, "model.yaml")
	require.NoError(tb, err)
	networks, err := models.Networks([]*models.Model{m})
	require.NoError(tb, err)
	return networks[0]
}

// version is one that is published: what its network says of a white picture, and its input's width.
type version struct {
	bright  float32
	width   int64
	corrupt bool
}

var good = version{bright: 1, width: 2}

// world is a network's place with its traffic, its source, and its records, which outlive those who work on them.
type world struct {
	tb testing.TB

	mu        sync.Mutex
	published map[int64]version
	away      error // of the source
	traffic   map[int64]int
	kept      []int64
	served    int64 // by the people, before the candidate
	staged    int64
	renew     bool
	mostly    []int64 // every version that ever got all of the traffic, one after the other
	pruned    []int64
	unstaged  error // from Stage
	gone      bool  // Return does not find what it is asked for
	document  []byte
	revision  int
	tallies   map[string]rollout.Tally
	perTick   func() // what is counted while time passes
	events    []rollout.Entry
}

func newWorld(tb testing.TB, serving ...int64) *world {
	tb.Helper()
	w := &world{tb: tb, published: map[int64]version{}, traffic: map[int64]int{}, tallies: map[string]rollout.Tally{}}
	for _, v := range serving {
		w.published[v] = good
		w.kept = append(w.kept, v)
		w.served = v
	}
	if w.served != 0 {
		w.traffic[w.served] = 100
	}
	return w
}

// errDead is what a process gets that has died.
var errDead = errors.New("this process is dead")

// process is one that works on the world. It dies at its fuse's end: before or after what it did last has an effect.
type process struct {
	*world
	name  string
	fuse  int // calls until it dies; negative: never
	after bool
	die   context.CancelFunc
	dead  bool
	calls int
}

// call does something in the world, unless the process dies.
func (p *process) call(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	p.calls++
	dies := p.calls == p.fuse
	if dies && !p.after {
		p.dead = true
		p.die()
		return errDead
	}
	err := do()
	if dies {
		p.dead = true
		p.die()
		return errDead
	}
	return err
}

func (w *world) process(name string) (*rollout.Rollout, *process) {
	return w.mortal(name, -1, false, func() {})
}

func (w *world) mortal(name string, fuse int, after bool, die context.CancelFunc) (*rollout.Rollout, *process) {
	w.tb.Helper()
	p := &process{world: w, name: name, fuse: fuse, after: after, die: die}
	r, err := rollout.New(rollout.Config{
		Network: network(w.tb), Target: p, Records: p, Watcher: p, Holder: name, Dir: w.tb.TempDir(),
		Open:  func(context.Context) (source.Source, error) { return p, nil },
		Dial:  func(address string) (rollout.Server, error) { return p.dial(address) },
		Fetch: func(context.Context, string) ([]byte, error) { return nil, errors.New("no picture is by URL") },
		Notify: func(_ context.Context, e rollout.Entry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w.tb, err)
	return r, p
}

// The source.

func (p *process) Versions(context.Context) (versions []int64, err error) {
	err = p.call(func() error {
		versions = slices.Sorted(maps.Keys(p.published))
		return p.away
	})
	return versions, err
}

func (p *process) Fetch(_ context.Context, v int64, dir string) (f source.Fetched, err error) {
	err = p.call(func() error {
		is, ok := p.published[v]
		switch {
		case !ok:
			return source.ErrGone
		case is.corrupt:
			return fmt.Errorf("%w: weights.bin", source.ErrCorrupt)
		}
		f.Digest = fmt.Sprintf("sha256:%d", v)
		return os.WriteFile(filepath.Join(dir, "weights.bin"), []byte("x"), 0o600)
	})
	return f, err
}

func (p *process) Close() error { return nil }

// The target.

func (p *process) Serving(context.Context) (s rollout.Serving, err error) {
	err = p.call(func() error {
		s.Kept, s.Renew = slices.Clone(p.kept), p.renew
		for v, percent := range p.traffic {
			if percent > p.traffic[s.Version] {
				s.Version = v
			}
		}
		return nil
	})
	return s, err
}

func (p *process) Stage(_ context.Context, c rollout.Candidate) (address string, err error) {
	err = p.call(func() error {
		if p.unstaged != nil {
			return p.unstaged
		}
		if c.Dir != "" {
			if _, err := os.Stat(filepath.Join(c.Dir, "weights.bin")); err != nil {
				return err
			}
			p.staged = c.Version
		}
		if p.staged != c.Version {
			return fmt.Errorf("version %d is not staged", c.Version)
		}
		return nil
	})
	return strconv.FormatInt(c.Version, 10), err
}

func (p *process) Shift(_ context.Context, c rollout.Candidate, percent int) error {
	return p.call(func() error {
		if p.staged != c.Version {
			return fmt.Errorf("version %d is not staged", c.Version)
		}
		p.traffic = map[int64]int{p.served: 100 - percent, c.Version: percent}
		if percent == 100 {
			p.traffic = map[int64]int{c.Version: 100}
			p.keep(c.Version)
			p.mostly = append(p.mostly, c.Version)
		}
		return nil
	})
}

func (w *world) keep(v int64) {
	if !slices.Contains(w.kept, v) {
		w.kept = append(w.kept, v)
		slices.Sort(w.kept)
	}
}

func (p *process) Abandon(_ context.Context, c rollout.Candidate) error {
	return p.call(func() error {
		if c.Version != p.served && c.Percent == 0 && p.traffic[c.Version] > 0 {
			return fmt.Errorf("version %d has traffic, and none is said to have been given", c.Version)
		}
		p.traffic = map[int64]int{p.served: 100}
		p.staged = 0
		p.kept = slices.DeleteFunc(p.kept, func(v int64) bool { return v == c.Version })
		return nil
	})
}

func (p *process) Return(_ context.Context, v int64) error {
	return p.call(func() error {
		if p.gone || !slices.Contains(p.kept, v) {
			return rollout.ErrGone
		}
		p.traffic, p.served = map[int64]int{v: 100}, v
		return nil
	})
}

func (p *process) Prune(_ context.Context, keep []int64) error {
	return p.call(func() error {
		for _, v := range p.kept {
			if !slices.Contains(keep, v) {
				p.pruned = append(p.pruned, v)
			}
		}
		p.kept = slices.Clone(keep)
		return nil
	})
}

// The records.

func (p *process) Load(context.Context) (s rollout.State, revision string, err error) {
	err = p.call(func() error {
		if p.document == nil {
			return nil
		}
		revision = strconv.Itoa(p.revision)
		return json.Unmarshal(p.document, &s)
	})
	return s, revision, err
}

func (p *process) Save(_ context.Context, s rollout.State, revision string) (saved string, err error) {
	err = p.call(func() error {
		if p.document != nil && revision != strconv.Itoa(p.revision) || p.document == nil && revision != "" {
			return rollout.ErrConflict
		}
		p.revision++
		saved = strconv.Itoa(p.revision)
		if s.Candidate == nil {
			p.served = s.Serving // who serves is settled
		}
		var err error
		p.document, err = json.Marshal(s)
		return err
	})
	return saved, err
}

// The watcher.

func (p *process) Tallies(context.Context) (t map[string]rollout.Tally, err error) {
	err = p.call(func() error {
		if p.perTick != nil {
			p.perTick()
		}
		t = maps.Clone(p.tallies)
		return nil
	})
	return t, err
}

// count adds calls of a version to what is counted.
func (w *world) count(v int64, calls uint64, each time.Duration, failed uint64) {
	t := w.tallies["dispatch-1"]
	t.Answered = maps.Clone(t.Answered)
	if t.Answered == nil {
		t.Answered = map[int64]rollout.Count{}
	}
	c := t.Answered[v]
	c.Calls += calls
	c.Seconds += float64(calls) * each.Seconds()
	t.Answered[v] = c
	t.Failed += failed
	w.tallies["dispatch-1"] = t
}

// server is the candidate, at the address that Stage gave.
type server struct {
	p  *process
	is version
	v  int64
}

func (p *process) dial(address string) (rollout.Server, error) {
	v, err := strconv.ParseInt(address, 10, 64)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &server{p, p.published[v], v}, nil
}

func (s *server) Metadata(context.Context, tfserving.Spec) (map[string]tfserving.Signature, error) {
	return map[string]tfserving.Signature{"serving_default": {
		Inputs:  map[string]tfserving.TensorInfo{"image": {DType: tfserving.Uint8, Shape: []int64{-1, 2, s.is.width, 3}}},
		Outputs: map[string]tfserving.TensorInfo{"probabilities": {DType: tfserving.Float32, Shape: []int64{-1, 2}}},
	}}, s.p.call(func() error { return nil })
}

func (s *server) Predict(_ context.Context, _ tfserving.Spec, in map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	if in["image"].Data[0] != 255 {
		return nil, 0, errors.New("only a white picture is asked for here")
	}
	out := tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{1, 2}}
	for _, v := range []float32{1 - s.is.bright, s.is.bright} {
		bits := math.Float32bits(v)
		out.Data = append(out.Data, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
	}
	return map[string]tfserving.Tensor{outputs[0]: out}, s.v, s.p.call(func() error { return nil })
}

func (s *server) Close() error { return nil }

// happened are the events that were recorded, as "found 2".
func happened(s rollout.State) []string {
	var all []string
	for _, e := range s.History {
		text := fmt.Sprintf("%s %d", e.Event, e.Version)
		if e.Percent > 0 {
			text += fmt.Sprintf(" %d%%", e.Percent)
		}
		all = append(all, text)
	}
	return all
}

func state(tb testing.TB, r *rollout.Rollout) rollout.State {
	tb.Helper()
	s, err := r.State(tb.Context())
	require.NoError(tb, err)
	return s
}

func look(tb testing.TB, r *rollout.Rollout) rollout.Outcome {
	tb.Helper()
	outcome, err := r.Look(tb.Context())
	require.NoError(tb, err)
	return outcome
}
