// Package folder is the source of versions that lie in a folder of this machine, which may be a mounted one: file:///models/resnet.
//
// A version should be published by renaming it (see package source). One that is copied in place is taken when it looks the
// same twice, some time apart, and again after it has been read; that is a guess, as package store makes it.
//
// Symbolic links are followed within the folder, as Kubernetes makes them in volumes, and never out of it.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

// Scheme is the URL's.
const Scheme = "file"

// DefaultSettle is longer than the ticks of file systems' clocks.
const DefaultSettle = 2 * time.Second

// Options say how a folder is read.
type Options struct {
	Settle time.Duration // between the two looks at a version before it is read; default DefaultSettle
}

// Opener opens folders.
func Opener(o Options) source.Opener {
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		if at.Host != "" && at.Host != "localhost" {
			return nil, fmt.Errorf("%w: a folder is of this machine; write file:///path, with three slashes", source.ErrURL)
		}
		if at.RawQuery != "" || at.ForceQuery {
			return nil, fmt.Errorf("%w: a folder has no ?query", source.ErrURL)
		}
		dir := filepath.FromSlash(at.Path)
		if !filepath.IsAbs(dir) || strings.ContainsRune(dir, 0) {
			return nil, fmt.Errorf("%w: a folder's path is absolute; write file:///path", source.ErrURL)
		}
		return &folder{dir: filepath.Clean(dir), limits: limits.WithDefaults(), settle: o.Settle}, nil
	}
}

type folder struct {
	dir    string
	limits source.Limits
	settle time.Duration
}

// Close does nothing: the folder is opened anew each time, since it may be mounted anew.
func (f *folder) Close() error { return nil }

// Versions lists the folders whose names are numbers.
func (f *folder) Versions(ctx context.Context) ([]int64, error) {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it is only read
	found := source.NewListing(f.limits)
	err = list(ctx, root, ".", func(name string) error {
		// Of a link that leads nowhere or out of the folder nothing can be read: it is no version.
		if info, err := root.Stat(name); err != nil || !info.IsDir() {
			return nil //nolint:nilerr // as above
		}
		return found.Add(name)
	})
	if err != nil {
		return nil, err
	}
	return found.Versions(), nil
}

// Fetch copies a version when it has stopped changing.
func (f *folder) Fetch(ctx context.Context, version int64, dir string) (source.Fetched, error) {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return source.Fetched{}, err
	}
	defer func() { _ = root.Close() }() // it is only read
	name := strconv.FormatInt(version, 10)
	if info, err := root.Stat(name); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return source.Fetched{}, source.ErrGone
	}
	before, err := f.look(ctx, root, name)
	if err != nil {
		return source.Fetched{}, err
	}
	wait := time.NewTimer(f.settle)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return source.Fetched{}, ctx.Err()
	}
	if err := f.same(ctx, root, name, before); err != nil {
		return source.Fetched{}, err
	}
	got, err := f.copy(ctx, root, name, before, dir)
	if err != nil {
		return source.Fetched{}, err
	}
	return got, f.same(ctx, root, name, before)
}

func (f *folder) copy(ctx context.Context, root *os.Root, version string, files []file, dir string) (source.Fetched, error) {
	to, err := source.NewDir(dir, f.limits)
	if err != nil {
		return source.Fetched{}, err
	}
	defer func() { _ = to.Close() }() // what was written is checked by Finish
	for _, one := range files {
		err := to.Bring(ctx, source.File{Name: one.name, Size: one.size}, func(context.Context) (io.ReadCloser, error) {
			return open(root, path.Join(version, one.name))
		})
		if err != nil {
			return source.Fetched{}, err
		}
	}
	return to.Finish()
}

// open opens a file, and nothing else that may be there since it was looked at: a pipe would not even let us wait for it.
func open(root *os.Root, name string) (io.ReadCloser, error) {
	from, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := from.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = from.Close()
		return nil, errors.Join(err, fmt.Errorf("%w: it is not a file any more", source.ErrIncomplete))
	}
	return from, nil
}

// file is what a file looked like.
type file struct {
	name     string
	size     int64
	modified int64
}

// same says whether a version looks as it did.
func (f *folder) same(ctx context.Context, root *os.Root, version string, before []file) error {
	now, err := f.look(ctx, root, version)
	if err != nil {
		return err
	}
	if !slices.Equal(before, now) {
		return fmt.Errorf("%w: its files are just being changed", source.ErrIncomplete)
	}
	return nil
}

// look lists the files of a version, SHA256SUMS first.
func (f *folder) look(ctx context.Context, root *os.Root, version string) ([]file, error) {
	var found []file
	folders := 0
	var walk func(within string) error
	walk = func(within string) error {
		if folders++; folders > f.limits.Files || strings.Count(within, "/") > maxDepth {
			return fmt.Errorf("%w: the version has more than %d folders, or one more than %d deep", source.ErrLimit, f.limits.Files, maxDepth)
		}
		return list(ctx, root, path.Join(version, within), func(name string) error {
			name = path.Join(within, name)
			info, err := root.Stat(path.Join(version, name))
			switch {
			case err != nil:
				return fmt.Errorf("%q: %w", name, reason(err))
			case info.IsDir():
				return walk(name)
			case !info.Mode().IsRegular():
				return fmt.Errorf("%w: %q is neither a file nor a folder", source.ErrCorrupt, name)
			case len(found) > f.limits.Files: // SHA256SUMS does not count
				return fmt.Errorf("%w: the version has more than %d files", source.ErrLimit, f.limits.Files)
			}
			found = append(found, file{name, info.Size(), info.ModTime().UnixNano()})
			return nil
		})
	}
	if err := walk("."); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b file) int { return source.SumsFirst(a.name, b.name) })
	return found, nil
}

// maxDepth bounds what links within the folder can be made to look like.
const maxDepth = 16

// reason tells links that lead out of the folder, or nowhere, from what may pass.
func reason(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", source.ErrIncomplete, err)
	}
	if errno := syscall.Errno(0); !errors.As(err, &errno) || errno == syscall.ELOOP {
		// What is not the system's error is os.Root's own.
		return fmt.Errorf("%w: a link that leads out of the folder of versions, or in a circle", source.ErrCorrupt)
	}
	return err
}

// list calls each with the names in a folder.
func list(ctx context.Context, root *os.Root, name string, each func(name string) error) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // it is only read
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if err := each(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
