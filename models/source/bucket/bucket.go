// Package bucket is what the sources of versions in object stores have in common: objects <prefix>/<version>/<file>.
//
// Objects appear whole, but the objects of one version do not appear at once, and cannot be renamed. So a publisher puts
// SHA256SUMS first (see package source); without it, a version is taken when none of its objects has changed for a while.
//
// Who may read the bucket, the store's own library finds out from where the program runs: URLs have no credentials. The
// package knows nothing of the stores' protocols.
package bucket

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

// DefaultSettle is the time after which an upload of several objects has probably ended.
const DefaultSettle = time.Minute

// listTimeout bounds a list of objects, and the question for one: the stores' libraries wait for as long as they are let.
const listTimeout = 2 * time.Minute

// Options say how buckets are read.
type Options struct {
	// Settle is how long a version without SHA256SUMS must not have changed; default DefaultSettle.
	Settle   time.Duration
	Patience source.Patience
}

// Object is one object of a bucket.
type Object struct {
	Key      string // ends with a slash when it stands for all objects below it
	Size     int64
	State    string // of the content: another one, when it is overwritten
	Modified time.Time
	Sum      source.Sum
}

// Store reads the objects of one bucket.
type Store interface {
	// List calls each with the objects whose keys have the prefix: all of them, or those one step down, and one for all that
	// are below the same folder. Each may end it with an error.
	List(ctx context.Context, prefix string, deep bool, each func(Object) error) error
	// Describe fills in what List does not say of an object. ErrIncomplete when it is not there any more.
	Describe(ctx context.Context, o Object) (Object, error)
	// Read reads an object from an offset on. ErrIncomplete when it has been overwritten or deleted since.
	Read(ctx context.Context, o Object, from int64) (io.ReadCloser, error)
	// Close frees what the store holds.
	Close() error
}

// New returns the source below a prefix of a store.
func New(store Store, prefix string, limits source.Limits, o Options) source.Source {
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return &bucket{store, prefix, limits.WithDefaults(), o}
}

// Parse reads the URL of a bucket, which may have the queries that are allowed.
func Parse(at *url.URL, allowed ...string) (name, prefix string, query map[string]string, err error) {
	if at.Host == "" || at.Port() != "" {
		return "", "", nil, fmt.Errorf("%w: write %s://bucket/prefix", source.ErrURL, at.Scheme)
	}
	values, err := url.ParseQuery(at.RawQuery)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: its ?query cannot be read", source.ErrURL)
	}
	query = make(map[string]string)
	for key, v := range values {
		if !slices.Contains(allowed, key) || len(v) != 1 {
			return "", "", nil, fmt.Errorf("%w: %q in its ?query; each of these may be there once: %s", source.ErrURL, key, strings.Join(allowed, ", "))
		}
		query[key] = v[0]
	}
	return at.Host, at.Path, query, nil
}

type bucket struct {
	store  Store
	prefix string // empty, or ends with a slash
	limits source.Limits
	Options
}

// Close closes the store.
func (b *bucket) Close() error { return b.store.Close() }

// Versions lists the folders whose names are numbers.
func (b *bucket) Versions(ctx context.Context) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	found := source.NewListing(b.limits)
	err := b.store.List(ctx, b.prefix, false, func(o Object) error {
		name, folder := strings.CutSuffix(strings.TrimPrefix(o.Key, b.prefix), "/")
		if !folder {
			name = "" // is no version, but counts
		}
		return found.Add(name)
	})
	if err != nil {
		return nil, err
	}
	return found.Versions(), nil
}

// Fetch downloads a version.
func (b *bucket) Fetch(ctx context.Context, version int64, dir string) (source.Fetched, error) {
	below := b.prefix + strconv.FormatInt(version, 10) + "/"
	objects, err := b.objects(ctx, below)
	if err != nil {
		return source.Fetched{}, err
	}
	to, err := source.NewDir(dir, b.limits)
	if err != nil {
		return source.Fetched{}, err
	}
	defer func() { _ = to.Close() }() // what was written is checked by Finish
	for _, o := range objects {
		name := strings.TrimPrefix(o.Key, below)
		if err := source.CheckName(name); err != nil { // before the store is asked for it, which may do anything then
			return source.Fetched{}, err
		}
		if o, err = b.describe(ctx, o); err != nil {
			return source.Fetched{}, fmt.Errorf("file %q: %w", name, err)
		}
		f := source.File{Name: name, Size: o.Size, Sum: o.Sum}
		err := to.Bring(ctx, f, func(ctx context.Context) (io.ReadCloser, error) {
			return source.Download(ctx, b.Patience, func(ctx context.Context, from int64) (io.ReadCloser, error) {
				return b.store.Read(ctx, o, from)
			})
		})
		if err != nil {
			return source.Fetched{}, err
		}
	}
	return to.Finish()
}

func (b *bucket) describe(ctx context.Context, o Object) (Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return b.store.Describe(ctx, o)
}

// objects lists a version's files, SHA256SUMS first.
func (b *bucket) objects(ctx context.Context, below string) ([]Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var found []Object
	var newest time.Time
	all := 0
	err := b.store.List(ctx, below, true, func(o Object) error {
		if all++; all > 2*b.limits.Files+1 {
			return fmt.Errorf("%w: the version has more than %d files", source.ErrLimit, b.limits.Files)
		}
		if strings.HasSuffix(o.Key, "/") && o.Size == 0 {
			return nil // stands for an empty folder, as consoles make them
		}
		found = append(found, o)
		if o.Modified.After(newest) {
			newest = o.Modified
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case all == 0:
		return nil, source.ErrGone
	}
	slices.SortFunc(found, func(x, y Object) int {
		return source.SumsFirst(strings.TrimPrefix(x.Key, below), strings.TrimPrefix(y.Key, below))
	})
	if len(found) > 0 && found[0].Key != below+source.SumsName && time.Since(newest) < b.Settle {
		return nil, fmt.Errorf("%w: it was modified within the last %s, and has no %s", source.ErrIncomplete, b.Settle, source.SumsName)
	}
	return found, nil
}
