// Package folder rolls versions out where a model server takes them from a folder, <base>/<network>/<version>/, in the way of
// package models/store: the newest serves.
//
// A candidate lies beside, in <base>/.candidates, and is asked at a server of its own, for the checks alone. To serve it is
// renamed into the network's folder, where the model server loads and warms it before it drops the one before. To go back, newer
// versions are set aside. A version that somebody puts into the folder by hand serves as ever.
//
// The folder is one process's to roll out in. The package knows nothing of sources and decisions.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// Names in the base folder and in a network's. They begin with a dot, so that no model server takes them for its own.
const (
	candidates = ".candidates"
	aside      = ".aside" // versions that were taken back
	leaving    = ".leaving-"
	records    = ".rollouts"
	scratch    = "fetch"
)

const (
	loadTimeout = 2 * time.Minute // for a model server to load a version
	pollEvery   = 20 * time.Millisecond
	stopTimeout = 10 * time.Second // of a candidate's server
)

// Server says which versions of a network a model server has; *tfserving.Client is one.
type Server interface {
	Status(ctx context.Context, spec tfserving.Spec) ([]tfserving.VersionStatus, error)
}

// Config says what a Target works with. All but Logger is required.
type Config struct {
	Base    string // of the model server
	Network string
	Server  Server
	Loader  store.Loader[server.Network] // for candidates
	Logger  *slog.Logger                 // default slog.Default()
}

// Target is a network in a model server's folder. Close ends it.
type Target struct {
	Config
	home string // of the network's versions

	mu      sync.Mutex
	checked *checkServer // nil: there is none
}

var _ rollout.Target = (*Target)(nil)

// New makes a Target. Nothing is read or written before it is asked to.
func New(c Config) (*Target, error) {
	switch {
	case c.Base == "", c.Server == nil, c.Loader == nil:
		return nil, errors.New("folder: a base folder, a model server and a loader are needed")
	case c.Network == "" || strings.HasPrefix(c.Network, ".") || strings.ContainsAny(c.Network, `/\`):
		return nil, fmt.Errorf("folder: %q cannot be the name of a network's folder", c.Network)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Target{Config: c, home: filepath.Join(c.Base, c.Network)}, nil
}

// Scratch makes the folder for files on their way anew: what a process that died left in it is of no use to anybody. It is on
// the file system of the versions, so that they need not be copied.
func Scratch(base string) (string, error) {
	dir := filepath.Join(base, candidates, scratch)
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("old files on their way: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("folder for files on their way: %w", err)
	}
	return dir, nil
}

// Serving asks the model server.
func (t *Target) Serving(ctx context.Context) (rollout.Serving, error) {
	version, err := t.available(ctx)
	if err != nil {
		return rollout.Serving{}, err
	}
	kept, err := t.kept()
	if err != nil {
		return rollout.Serving{}, err
	}
	if version != 0 && !slices.Contains(kept, version) {
		kept = append(kept, version) // its folder has gone, and it serves until another one is loaded
		slices.Sort(kept)
	}
	return rollout.Serving{Version: version, Kept: kept}, nil
}

// available is the newest version that the model server answers with; 0: none.
func (t *Target) available(ctx context.Context) (int64, error) {
	versions, err := t.Server.Status(ctx, tfserving.Spec{Model: t.Network})
	if errors.Is(err, tfserving.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var newest int64
	for _, v := range versions {
		if v.Available() {
			newest = max(newest, v.Version)
		}
	}
	return newest, nil
}

// kept are the versions in the network's folder and those that were set aside, ascending.
func (t *Target) kept() ([]int64, error) {
	there, err := list(t.home)
	if err != nil {
		return nil, err
	}
	taken, err := list(filepath.Join(t.home, aside))
	if err != nil {
		return nil, err
	}
	all := slices.Concat(there, taken)
	slices.Sort(all)
	return slices.Compact(all), nil
}

// list are the versions in a folder, ascending; none when there is no folder.
func list(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var versions []int64
	for _, e := range entries {
		// A name with zeros before the number is a version to a model server, and somebody's own: it is served and left alone.
		if v, ok := source.ParseVersion(e.Name()); ok && e.Name() == strconv.FormatInt(v, 10) {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	return versions, nil
}

func (t *Target) place(version int64) string {
	return filepath.Join(t.home, strconv.FormatInt(version, 10))
}

func (t *Target) asidePlace(version int64) string {
	return filepath.Join(t.home, aside, strconv.FormatInt(version, 10))
}

func (t *Target) candidatePlace(version int64) string {
	return filepath.Join(t.Base, candidates, t.Network, strconv.FormatInt(version, 10))
}

// Stage puts the files beside the versions, in place of any other candidate's, and serves them to who checks them.
func (t *Target) Stage(ctx context.Context, c rollout.Candidate) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Dir == "" {
		if t.checked != nil && t.checked.version == c.Version {
			return t.checked.address, nil
		}
		if !exists(t.candidatePlace(c.Version)) {
			return "", fmt.Errorf("version %d of %s is not staged", c.Version, t.Network)
		}
	} else if err := t.receive(ctx, c); err != nil {
		return "", err
	}
	return t.serve(ctx, c.Version)
}

func (t *Target) receive(ctx context.Context, c rollout.Candidate) error {
	if err := t.unserve(ctx); err != nil {
		return err
	}
	place := t.candidatePlace(c.Version)
	if err := os.RemoveAll(filepath.Dir(place)); err != nil {
		return fmt.Errorf("an older candidate's files: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o750); err != nil {
		return fmt.Errorf("folder for candidates: %w", err)
	}
	if err := os.Rename(c.Dir, place); err != nil {
		return fmt.Errorf("stage version %d: %w", c.Version, err)
	}
	return nil
}

// Shift makes the candidate serve. A folder has no part of the traffic to give.
func (t *Target) Shift(ctx context.Context, c rollout.Candidate, percent int) error {
	if percent != 100 {
		return fmt.Errorf("a folder gives a version all of the traffic or none, not %d %%", percent)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if staged := t.candidatePlace(c.Version); exists(staged) {
		if err := t.enter(staged, c.Version); err != nil {
			return err
		}
	}
	if err := t.unserve(ctx); err != nil {
		return err
	}
	return t.await(ctx, c.Version)
}

// enter makes a folder that of a version which the model server takes.
func (t *Target) enter(from string, version int64) error {
	if err := os.MkdirAll(t.home, 0o750); err != nil {
		return fmt.Errorf("folder of network %s: %w", t.Network, err)
	}
	if err := os.Rename(from, t.place(version)); err != nil {
		return fmt.Errorf("version %d: %w", version, err)
	}
	return nil
}

// await waits until the model server's newest version is this one. ErrRefused says that it cannot load it.
func (t *Target) await(ctx context.Context, version int64) error {
	return until(ctx, func() (bool, error) {
		versions, err := t.Server.Status(ctx, tfserving.Spec{Model: t.Network})
		if err != nil {
			return false, err
		}
		newest := int64(0)
		for _, v := range versions {
			if v.Available() {
				newest = max(newest, v.Version)
			}
			if v.Version == version && v.Err != nil {
				return false, fmt.Errorf("%w: the model server cannot load it: %w", rollout.ErrRefused, v.Err)
			}
		}
		return newest == version, nil
	})
}

// until asks again and again, for as long as a model server may take.
func until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadTimeout, errors.New("the model server takes too long"))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if is, err := done(); is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Abandon takes the candidate away, wherever it has come to.
func (t *Target) Abandon(ctx context.Context, c rollout.Candidate) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.unserve(ctx); err != nil {
		return err
	}
	if err := t.remove(t.place(c.Version)); err != nil {
		return err
	}
	if err := os.RemoveAll(t.candidatePlace(c.Version)); err != nil {
		return fmt.Errorf("a candidate's files: %w", err)
	}
	return until(ctx, func() (bool, error) {
		newest, err := t.available(ctx)
		return newest != c.Version, err
	})
}

// Return sets newer versions aside, and has one back that was.
func (t *Target) Return(ctx context.Context, version int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch there, taken := exists(t.place(version)), exists(t.asidePlace(version)); {
	case !there && !taken:
		return fmt.Errorf("%w: %d of %s", rollout.ErrGone, version, t.Network)
	case !there:
		if err := t.enter(t.asidePlace(version), version); err != nil {
			return err
		}
	}
	there, err := list(t.home)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(t.home, aside), 0o750); err != nil {
		return fmt.Errorf("folder for versions that were taken back: %w", err)
	}
	for _, v := range there {
		if v <= version {
			continue
		}
		if err := t.remove(t.asidePlace(v)); err != nil { // an older one of the same number
			return err
		}
		if err := os.Rename(t.place(v), t.asidePlace(v)); err != nil {
			return fmt.Errorf("set version %d aside: %w", v, err)
		}
	}
	return t.await(ctx, version)
}

// Prune removes versions from the folder and from aside. What serves stays, whatever is asked.
func (t *Target) Prune(ctx context.Context, keep []int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	serving, err := t.available(ctx)
	if err != nil {
		return err
	}
	all, err := t.kept()
	if err != nil {
		return err
	}
	for _, v := range all {
		if v == serving || slices.Contains(keep, v) {
			continue
		}
		if err := errors.Join(t.remove(t.place(v)), t.remove(t.asidePlace(v))); err != nil {
			return err
		}
		t.Logger.InfoContext(ctx, "a version is removed", "network", t.Network, "version", v)
	}
	return nil
}

// remove removes a version's folder in one step for who looks at it: under another name first.
func (t *Target) remove(dir string) error {
	if !exists(dir) {
		return nil
	}
	gone := filepath.Join(t.home, leaving+filepath.Base(dir))
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("an old version's files: %w", err)
	}
	if err := os.Rename(dir, gone); err != nil {
		return fmt.Errorf("an old version: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("an old version's files: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Close ends the candidate's server, if there is one.
func (t *Target) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unserve(ctx)
}
