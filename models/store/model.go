package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

var (
	errPending = errors.New("still being loaded")
	errEmpty   = errors.New("there is no version to serve in its folder")
	errChanged = errors.New("its files changed while it was being loaded")
)

// maxBackoff bounds the time between two attempts at a version, in multiples of Config.Retry.
const maxBackoff = 20

// model is the versions of one model.
type model[S Servable] struct {
	name   string
	store  *Store[S]
	ctx    context.Context //nolint:containedctx // the model's life; remove ends it
	cancel context.CancelFunc

	// busy is held by the one goroutine that reconciles; it guards the fields up to mu.
	busy   sync.Mutex
	round  int                // counts the looks
	seen   map[string]seen    // by folder: the candidates, as they were seen
	failed map[string]failure // by folder: the candidates that failed

	mu       sync.Mutex
	cfg      Model
	asked    int         // counts the configurations
	done     int         // the configuration that the last finished look saw
	looks    int         // the finished looks
	settling bool        // a wanted version's files are still changing
	stamp    fs.FileInfo // of the folder, before the last look; nil when that left something to do
	listing  error
	versions map[int64]*version[S]
}

// version is one version that the store has, tries or had. Its fields are guarded by its model's mu.
type version[S Servable] struct {
	number   int64
	dir      string
	state    State
	err      error
	servable S
	uses     int           // handles out
	idle     chan struct{} // closed when it is unloading and nobody uses it
}

type seen struct {
	sum   uint64
	round int // when it first looked like this
}

type failure struct {
	sum      uint64
	attempts int
	next     time.Time
}

func newModel[S Servable](s *Store[S], cfg Model) *model[S] {
	m := &model[S]{
		name:     cfg.Name,
		store:    s,
		seen:     map[string]seen{},
		failed:   map[string]failure{},
		cfg:      cfg,
		asked:    1,
		versions: map[int64]*version[S]{},
	}
	m.ctx, m.cancel = context.WithCancel(s.ctx) //nolint:gosec // remove calls it
	return m
}

// configure changes what the model's next look goes by.
func (m *model[S]) configure(cfg Model) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg = cfg
	m.asked++
}

// plan is what a look at the folder says should be done.
type plan struct {
	load     *folder // the version to load next, if any
	sum      uint64  // what its files looked like
	keep     map[string]bool
	settling map[int64]bool // the wanted versions whose files are still changing
	blocked  bool           // a wanted version cannot be loaded, or not yet
}

// reconcile loads what is missing, one version after the other, and then drops what is not wanted any more.
func (m *model[S]) reconcile() {
	m.round++
	for m.ctx.Err() == nil {
		m.mu.Lock()
		cfg, asked := m.cfg, m.asked
		m.mu.Unlock()
		stamp, err := os.Stat(cfg.Path)
		var found []folder
		if err == nil {
			found, err = list(cfg.Path)
		}
		if err != nil {
			// What is loaded stays: the file system may be away for a moment.
			m.finish(asked, nil, plan{}, fmt.Errorf("look for versions: %w", err))
			return
		}
		m.forget(found)
		p := m.plan(cfg.Policy, found)
		if p.load != nil {
			m.load(*p.load, p.sum)
			continue
		}
		m.drop(p, found)
		if p.blocked {
			stamp = nil
		}
		m.finish(asked, stamp, p, nil)
		return
	}
}

// quiet says that there is nothing to do: the last look left nothing open, and the folder has not changed since. It is
// what keeps an idle store idle.
func (m *model[S]) quiet() bool {
	m.mu.Lock()
	path, before, current := m.cfg.Path, m.stamp, m.done == m.asked
	m.mu.Unlock()
	if before == nil || !current {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && unchanged(before, now)
}

func (m *model[S]) finish(asked int, stamp fs.FileInfo, p plan, listing error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.stamp, m.settling, m.listing = asked, stamp, len(p.settling) > 0, listing
	m.looks++
	// A version that waited for its files may not be wanted any more, because a newer one is loaded.
	maps.DeleteFunc(m.versions, func(number int64, v *version[S]) bool { return v.state == Start && !p.settling[number] })
}

func (m *model[S]) plan(policy Policy, found []folder) plan {
	p := plan{keep: map[string]bool{}, settling: map[int64]bool{}}
	for _, f := range found {
		if !policy.wants(f.version, len(p.keep)) {
			continue
		}
		if m.loaded(f) {
			p.keep[f.dir] = true
			continue
		}
		now, err := inspect(f.dir)
		if err != nil {
			m.set(f, End, err, 0)
			p.blocked = true
			continue
		}
		if !m.settled(f, now) {
			m.note(f)
			p.settling[f.version], p.blocked = true, true
			continue
		}
		if last, ok := m.failed[f.dir]; ok && last.sum == now.sum && time.Now().Before(last.next) {
			p.blocked = true
			continue
		}
		p.load, p.sum = &f, now.sum
		return p
	}
	return p
}

// loaded says whether a folder's version is in use.
func (m *model[S]) loaded(f folder) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.versions[f.version]
	return v != nil && v.state == Available && v.dir == f.dir
}

// settled says whether a version's files have stopped changing: they were the same at the last look, or are older than
// the time between two looks. The latter takes a version that was renamed into place at once.
func (m *model[S]) settled(f folder, now view) bool {
	before, ok := m.seen[f.dir]
	if !ok || before.sum != now.sum {
		before = seen{now.sum, m.round}
		m.seen[f.dir] = before
	}
	return before.round < m.round || time.Since(now.newest) >= m.store.cfg.Interval
}

// note records that a version was found, unless more is known about it.
func (m *model[S]) note(f folder) {
	m.mu.Lock()
	known := m.versions[f.version] != nil
	m.mu.Unlock()
	if !known {
		m.set(f, Start, nil, 0)
	}
}

// forget drops the records of versions that are not on disk any more, but for those that are in use.
func (m *model[S]) forget(found []folder) {
	there := make(map[string]bool, len(found))
	numbers := make(map[int64]bool, len(found))
	for _, f := range found {
		there[f.dir], numbers[f.version] = true, true
	}
	maps.DeleteFunc(m.seen, func(dir string, _ seen) bool { return !there[dir] })
	maps.DeleteFunc(m.failed, func(dir string, _ failure) bool { return !there[dir] })
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.versions, func(number int64, v *version[S]) bool {
		return !numbers[number] && v.state != Available && v.state != Unloading
	})
}

// load tries one version.
func (m *model[S]) load(f folder, sum uint64) {
	select {
	case m.store.loads <- struct{}{}:
	case <-m.ctx.Done():
		return
	}
	defer func() { <-m.store.loads }()
	m.set(f, Loading, nil, 0)
	begin := time.Now()
	servable, err := m.read(f, sum)
	took := time.Since(begin)
	if err == nil {
		delete(m.failed, f.dir)
		m.use(f, servable, took)
		return
	}
	if m.ctx.Err() == nil {
		last := m.failed[f.dir]
		if last.sum != sum {
			last = failure{sum: sum}
		}
		wait := m.store.cfg.Retry * time.Duration(min(1<<min(last.attempts, 10), maxBackoff))
		m.failed[f.dir] = failure{sum, last.attempts + 1, time.Now().Add(wait)}
		m.store.cfg.Logger.Warn("a model version cannot be loaded",
			"model", m.name, "version", f.version, "folder", f.dir, "attempt", last.attempts+1, "retry_in", wait, "error", err)
	}
	m.set(f, End, err, took)
}

// read loads and warms a version whose files looked like sum.
func (m *model[S]) read(f folder, sum uint64) (servable S, err error) {
	servable, err = m.store.cfg.Loader.Load(m.ctx, f.dir)
	if err != nil {
		return servable, fmt.Errorf("load: %w", err)
	}
	if err = servable.Warm(m.ctx); err != nil {
		return servable, errors.Join(fmt.Errorf("warm: %w", err), servable.Close())
	}
	now, err := inspect(f.dir)
	if err == nil && now.sum != sum {
		err = errChanged
	}
	if err != nil {
		return servable, errors.Join(err, servable.Close())
	}
	return servable, nil
}

// use makes a loaded version available, in place of one with the same number from another folder, if there is one.
func (m *model[S]) use(f folder, servable S, took time.Duration) {
	m.mu.Lock()
	old := m.versions[f.version]
	m.versions[f.version] = &version[S]{number: f.version, dir: f.dir, state: Available, servable: servable, idle: make(chan struct{})}
	m.mu.Unlock()
	m.store.cfg.Logger.Info("a model version is loaded", "model", m.name, "version", f.version, "folder", f.dir, "took", took)
	m.report(f.version, Available, nil, took)
	if old != nil && old.state == Available {
		m.retire(old)
	}
}

// set records the state of a version that is not in use.
func (m *model[S]) set(f folder, state State, err error, took time.Duration) {
	m.mu.Lock()
	if old := m.versions[f.version]; old != nil {
		// The same number from another folder is in use, or this one still is: its record stays until it is replaced.
		used := old.state == Available || old.state == Unloading
		same := old.state == state && old.dir == f.dir && fmt.Sprint(old.err) == fmt.Sprint(err)
		if used || same {
			m.mu.Unlock()
			return
		}
	}
	m.versions[f.version] = &version[S]{number: f.version, dir: f.dir, state: state, err: err}
	m.mu.Unlock()
	m.report(f.version, state, err, took)
}

// drop retires what is not wanted. When nothing that is wanted could be loaded, what is there stays.
func (m *model[S]) drop(p plan, found []folder) {
	if len(p.keep) == 0 && p.blocked {
		return
	}
	if len(found) == 0 && m.available() {
		m.store.cfg.Logger.Warn("a model has no versions any more", "model", m.name)
	}
	m.retireAll(p.keep)
}

func (m *model[S]) retireAll(but map[string]bool) {
	m.mu.Lock()
	var old []*version[S]
	for _, v := range m.versions {
		if v.state == Available && !but[v.dir] {
			old = append(old, v)
		}
	}
	m.mu.Unlock()
	for _, v := range old {
		m.retire(v)
	}
}

// retire gives a version no more calls, and closes it when those under way have ended.
func (m *model[S]) retire(v *version[S]) {
	m.mu.Lock()
	v.state = Unloading
	if v.uses == 0 {
		close(v.idle)
	}
	m.mu.Unlock()
	m.report(v.number, Unloading, nil, 0)
	m.store.wg.Go(func() {
		<-v.idle
		if err := v.servable.Close(); err != nil {
			m.store.cfg.Logger.Error("a model version was not closed properly", "model", m.name, "version", v.number, "error", err)
		}
		m.mu.Lock()
		v.state = End
		var zero S
		v.servable = zero
		m.mu.Unlock()
		m.report(v.number, End, nil, 0)
	})
}

// remove stops serving the model.
func (m *model[S]) remove() {
	m.cancel()
	m.busy.Lock() // a load under way ends first
	defer m.busy.Unlock()
	m.retireAll(nil)
}

// outcome says whether the model's configuration is in force, as far as it can be, and what is not.
func (m *model[S]) outcome() (done bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done != m.asked || m.settling {
		return false, nil
	}
	if m.latest() == nil {
		return true, m.missing(0, nil)
	}
	for _, number := range m.cfg.Policy.Specific {
		if v := m.versions[number]; v == nil || v.state != Available {
			return true, m.missing(number, v)
		}
	}
	for _, label := range slices.Sorted(maps.Keys(m.cfg.Labels)) {
		number := m.cfg.Labels[label]
		if v := m.versions[number]; v == nil || v.state != Available {
			return true, fmt.Errorf("label %q: %w", label, m.missing(number, v))
		}
	}
	return true, nil
}

// why says why the model has no version in use. It is called with the lock held.
func (m *model[S]) why() error {
	if m.listing != nil {
		return m.listing
	}
	var newest *version[S]
	waiting := false
	for _, v := range m.versions {
		waiting = waiting || v.state == Start || v.state == Loading
		if v.err != nil && (newest == nil || v.number > newest.number) {
			newest = v
		}
	}
	switch {
	case newest != nil:
		return fmt.Errorf("version %d: %w", newest.number, newest.err)
	case m.looks > 0 && !waiting:
		return errEmpty
	default:
		return nil
	}
}

func (m *model[S]) available() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest() != nil
}

func (m *model[S]) status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, 0, len(m.versions))
	for _, v := range m.versions {
		all = append(all, Status{v.number, v.state, v.err})
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(b.Version, a.Version) })
	return all
}

func (m *model[S]) report(number int64, state State, err error, took time.Duration) {
	m.store.cfg.Observe(Event{Model: m.name, Version: number, State: state, Err: err, Took: took})
	m.store.broadcast()
}
