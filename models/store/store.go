// Package store keeps the versions of models that lie in folders, <base>/<name>/<version>/, loaded and exchangeable
// while they are in use.
//
// It looks at the folders at an interval. A new version is loaded and warmed before the one it replaces is dropped; the
// old one is closed when the last call that uses it has ended. A version that cannot be loaded leaves the old one in
// place, and its status says why. Versions are immutable: what is loaded is never read again, so a change is published
// as a new version. The right way to publish is to copy to a name that is not a number, on the same file system, and to
// rename it:
//
//	cp -r resnet50 /models/resnet50/.2 && mv /models/resnet50/.2 /models/resnet50/2
//
// A version that is copied in place is taken when its files have stopped changing (see Config.Interval), which is a
// guess; a rename is not.
//
// The package knows nothing of networks, tensors or protocols: what a version is, its Loader says.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Servable is one loaded version.
type Servable interface {
	// Warm makes the first call as quick as the others. It is called once, before any call; when it fails, the version is
	// not used.
	Warm(ctx context.Context) error
	// Close frees the version. It is called once, when no call uses it any more.
	Close() error
}

// Loader reads versions.
type Loader[S Servable] interface {
	// Load reads the version in a folder. It fails when files are missing or incomplete.
	Load(ctx context.Context, dir string) (S, error)
}

// LoaderFunc is a function that is a Loader.
type LoaderFunc[S Servable] func(ctx context.Context, dir string) (S, error)

// Load calls the function.
func (f LoaderFunc[S]) Load(ctx context.Context, dir string) (S, error) { return f(ctx, dir) }

// Errors of Acquire, Status and Reload.
var (
	// ErrModel says that there is no such model.
	ErrModel = errors.New("unknown model")
	// ErrVersion says that the model has no such version, or has it no more.
	ErrVersion = errors.New("unknown version")
	// ErrLabel says that no version of the model has the label.
	ErrLabel = errors.New("unknown version label")
	// ErrNotLoaded says that the version is there but cannot be used, or not yet.
	ErrNotLoaded = errors.New("not loaded")
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("model store is closed")
	// ErrConfig says that a configuration is not valid; nothing of it was applied.
	ErrConfig = errors.New("invalid model configuration")
)

// Defaults of Config.
const (
	DefaultInterval = time.Second
	DefaultRetry    = 30 * time.Second
	DefaultLoads    = 2
)

// Config says what a Store serves.
type Config[S Servable] struct {
	Base   string    // the folder with a folder for each model
	Loader Loader[S] // how a version is read

	// Models are the models to serve. When nil, every folder in Base is a model, with the zero Policy; folders may come
	// and go.
	Models []Model

	// Interval is the time between two looks at the folders. A version is taken when it looks the same twice, or when
	// nothing in it was modified for that long. Default DefaultInterval.
	Interval time.Duration

	// Retry is when a failed load is tried again although no file has changed; the time doubles with each failure, up to
	// twenty times as long. A change of the files is tried at once. Default DefaultRetry.
	Retry time.Duration

	// Loads is how many models are loaded at the same time. Default DefaultLoads.
	Loads int

	Logger  *slog.Logger // default slog.Default()
	Observe func(Event)  // optional; called on each change of a version's state, from the goroutine that changed it
}

// Event is a change of a version's state.
type Event struct {
	Model   string
	Version int64
	State   State
	Err     error         // why the version ended, when it failed
	Took    time.Duration // of the load, when it ended: with Available, and with End and an error
}

// Store holds the loaded versions. Its methods may be called from many goroutines.
type Store[S Servable] struct {
	cfg    Config[S]
	base   string          // cfg.Base, absolute
	ctx    context.Context //nolint:containedctx // the store's life; Close ends it
	cancel context.CancelFunc
	kick   chan struct{} // asks for a look now
	done   chan struct{} // closed when the watcher has ended
	loads  chan struct{} // one token for each load under way
	wg     sync.WaitGroup

	// Of the watcher alone.
	looks    int         // how often it has looked
	stamp    fs.FileInfo // of the base folder, before it was listed last
	complain string      // the last listing error that was logged

	// mu is never held while the file system is asked: it may take its time, and calls must not.
	mu      sync.RWMutex
	models  map[string]*model[S]
	fixed   bool  // the models are configured, not found
	looked  bool  // the base folder has been looked at
	listing error // why the base folder could not be read
	started bool  // Ready has been true once
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

// Open starts to watch the folder. It returns at once: models are loaded in the background, see Ready.
func Open[S Servable](cfg Config[S]) (*Store[S], error) {
	if cfg.Base == "" {
		return nil, fmt.Errorf("%w: no base folder", ErrConfig)
	}
	if cfg.Loader == nil {
		return nil, fmt.Errorf("%w: no loader", ErrConfig)
	}
	base, err := filepath.Abs(cfg.Base)
	if err != nil {
		return nil, fmt.Errorf("%w: base folder %q: %w", ErrConfig, cfg.Base, err)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Retry <= 0 {
		cfg.Retry = DefaultRetry
	}
	if cfg.Loads <= 0 {
		cfg.Loads = DefaultLoads
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	s := &Store[S]{
		cfg:     cfg,
		base:    base,
		kick:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		loads:   make(chan struct{}, cfg.Loads),
		models:  map[string]*model[S]{},
		changed: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.Models != nil {
		models, err := s.check(cfg.Models)
		if err != nil {
			s.cancel()
			return nil, err
		}
		s.apply(models)
	}
	go s.watch()
	return s, nil
}

func (s *Store[S]) watch() {
	defer close(s.done)
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	for {
		s.look()
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
	}
}

// thorough is how many looks there are to one that lists every folder, whatever the folders' times say.
const thorough = 10

// look brings every model in line with its folder. It does not wait for loads: a model that is being loaded is left
// alone until the load has ended.
func (s *Store[S]) look() {
	all := s.looks%thorough == 0
	s.looks++
	s.discover(all)
	s.mu.RLock()
	models := slices.Collect(maps.Values(s.models))
	s.mu.RUnlock()
	for _, m := range models {
		if !all && m.quiet() {
			continue
		}
		if m.busy.TryLock() {
			s.wg.Go(func() {
				defer m.busy.Unlock()
				m.reconcile()
				s.broadcast()
			})
		}
	}
}

// discover makes every folder in the base folder a model, unless the models are configured.
func (s *Store[S]) discover(all bool) {
	s.mu.RLock()
	fixed := s.fixed
	s.mu.RUnlock()
	if fixed {
		return
	}
	stamp, err := os.Stat(s.base)
	if err == nil && !all && unchanged(s.stamp, stamp) {
		return
	}
	s.stamp = stamp
	found, err := s.folders(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed || s.closed {
		return
	}
	s.looked, s.listing = true, err
	if err == nil {
		s.set(found)
	}
}

// folders lists the base folder, unless it is known already why it cannot be.
func (s *Store[S]) folders(err error) (map[string]Model, error) {
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(s.base)
	}
	if err != nil {
		// A file system that is away for a moment is no reason to stop serving.
		if s.complain != err.Error() {
			s.complain = err.Error()
			s.cfg.Logger.Error("the folder of models cannot be read", "error", err)
		}
		return nil, fmt.Errorf("read the folder of models: %w", err)
	}
	s.complain = ""
	found := make(map[string]Model, len(entries))
	for _, e := range entries {
		if checkName(e.Name()) == nil && isDir(s.base, e) {
			found[e.Name()] = Model{Name: e.Name(), Path: filepath.Join(s.base, e.Name())}
		}
	}
	return found, nil
}

// apply makes the configured models the ones to serve. It is called with the lock held, or before the store is shared.
func (s *Store[S]) apply(models map[string]Model) {
	s.fixed, s.listing = true, nil
	s.set(models)
}

// set makes the store's models those that are given, by name, with absolute paths. It is called like apply.
func (s *Store[S]) set(want map[string]Model) {
	for name, m := range s.models {
		if _, ok := want[name]; !ok {
			delete(s.models, name)
			s.wg.Go(m.remove)
		}
	}
	for name, w := range want {
		if m, ok := s.models[name]; ok {
			m.configure(w)
		} else {
			s.models[name] = newModel(s, w)
		}
	}
}

// Reload makes the given models the ones to serve, whatever was served before, and waits until their versions are loaded
// or have failed. Models that stay keep serving. It returns ErrConfig when nothing was changed, ErrNotLoaded when the
// configuration is in force but a model has no version, or not all that its policy names.
func (s *Store[S]) Reload(ctx context.Context, models []Model) error {
	want, err := s.check(models)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.apply(want)
	watched := slices.Collect(maps.Values(s.models))
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default: // a look is due already
	}
	for {
		s.mu.RLock()
		changed, closed := s.changed, s.closed
		s.mu.RUnlock()
		if closed {
			return ErrClosed
		}
		pending := false
		var errs []error
		for _, m := range watched {
			done, err := m.outcome()
			pending = pending || !done
			errs = append(errs, err)
		}
		if !pending {
			return errors.Join(errs...)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the models to be loaded: %w", ctx.Err())
		}
	}
}

// Changed returns a channel that is closed at the next change of any model or version, and at each look at a folder.
func (s *Store[S]) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Available says whether a model has a version that can be used.
func (s *Store[S]) Available(name string) bool {
	m, err := s.model(name)
	return err == nil && m.available()
}

// broadcast wakes those who wait for a reconciliation.
func (s *Store[S]) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Ready says whether requests can be answered: nil when at least one model has a version and, the first time, when no
// model is still being loaded. A model that failed does not make the others unready.
func (s *Store[S]) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	available := false
	var why error
	for _, name := range slices.Sorted(maps.Keys(s.models)) {
		m := s.models[name]
		done, err := m.outcome()
		if !done && !s.started {
			return fmt.Errorf("model %q is %w", name, errPending)
		}
		if m.available() {
			available = true
		} else if why == nil {
			why = err
		}
	}
	switch {
	case available:
		s.started = true
		return nil
	case why != nil:
		return why
	case s.listing != nil:
		return s.listing
	default:
		return fmt.Errorf("%w: there is no model in the base folder", ErrNotLoaded)
	}
}

// Models returns the names of the models, sorted.
func (s *Store[S]) Models() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.models))
}

// Status returns the versions of a model that the store has, has tried or has had, the newest first. The error is
// ErrModel, or ErrNotLoaded when the folders could not be read so far.
func (s *Store[S]) Status(name string) ([]Status, error) {
	m, err := s.model(name)
	if err != nil {
		return nil, err
	}
	return m.status(), nil
}

// Resolve returns the version that a label of a model names, loaded or not. The error is ErrModel or ErrLabel.
func (s *Store[S]) Resolve(name, label string) (int64, error) {
	m, err := s.model(name)
	if err != nil {
		return 0, err
	}
	return m.resolve(label)
}

func (s *Store[S]) model(name string) (*model[S], error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch m, ok := s.models[name]; {
	case s.closed:
		return nil, ErrClosed
	case ok:
		return m, nil
	case s.listing != nil:
		return nil, fmt.Errorf("model %q is %w: %w", name, ErrNotLoaded, s.listing)
	case !s.fixed && !s.looked:
		return nil, fmt.Errorf("model %q is %w: the folder of models has not been read yet", name, ErrNotLoaded)
	default:
		return nil, fmt.Errorf("%w %q", ErrModel, name)
	}
}

// Close takes no more calls, waits until those under way have released their versions, and frees everything. When ctx
// ends first it returns its error; versions that are still in use are then freed when they are released.
func (s *Store[S]) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.cancel()
		for _, m := range s.models {
			s.wg.Go(m.remove)
		}
	}
	s.mu.Unlock()
	freed := make(chan struct{})
	go func() {
		<-s.done
		s.wg.Wait()
		close(freed)
	}()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the model store: versions are still in use: %w", ctx.Err())
	}
}
