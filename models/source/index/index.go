// Package index is the source of versions that a web server has: https://models.example/inception_v3.
//
// The URL is that of the network's folder; below it are <version>/<file>, as TensorFlow Serving has them. What is there, the
// package learns from the file index.json in the folder or, where there is none, from the pages by which servers list folders
// (nginx's autoindex, Apache's, Caddy's, Python's http.server, Go's http.FileServer).
//
// # index.json
//
//	{
//	  "versions": [
//	    {
//	      "version": 3,
//	      "files": [
//	        {"name": "saved_model.pb", "size": 4, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
//	        {"name": "variables/index", "size": 5, "sha256": "1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6"}
//	      ]
//	    }
//	  ]
//	}
//
// What the fields mean:
//
//   - versions are the versions that are complete, in any order. A version is added when all of its files are there, and the
//     file is exchanged by renaming, so that it is never seen half.
//   - version is a positive integer, and the name of the version's folder beside index.json.
//   - files are all of the version's files. Each has its name within the folder, with slashes, its size in bytes, and the
//     SHA-256 of its content in hexadecimal digits: all three are required. So what is fetched is always verified.
//   - Fields with other names are ignored, and are free for the publisher.
//
// The file has at most 16 MiB, and as many versions and files as source.Limits allow. It says all there is: what it does not
// name is not published, whatever else is in the folder. A server should give it an ETag; then a look costs one small answer.
//
// # Without index.json
//
// The links on the server's pages are followed, if they lead one step down from the page that they are on; all others mean
// nothing. Such a version has no checksums, unless it has SHA256SUMS, and without them nothing says that it is complete: it
// is taken when each of its files was last modified some time before it is fetched, by the server's own clock.
//
// # The network
//
// URLs of sources are the operator's, not strangers': any address may be asked, private ones too. A server may redirect, to
// other servers as well, but not from https to http. A download that breaks is taken up where it broke, as long as the server says
// that the file is still the same. Servers that want credentials cannot be asked: URLs have none.
package index

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

// Schemes are the URL's.
var Schemes = []string{"http", "https"}

// DefaultSettle is the time after which an upload with pauses has probably ended.
const DefaultSettle = time.Minute

// Options say how servers are asked.
type Options struct {
	// Transport makes the requests; default one that waits Patience.Idle for each answer to begin.
	Transport http.RoundTripper
	// Settle is how long a version with no sign of its completeness must not have changed; default DefaultSettle.
	Settle   time.Duration
	Patience source.Patience
}

// Opener opens indexes.
func Opener(o Options) source.Opener {
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	o.Patience = o.Patience.WithDefaults()
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		if at.Hostname() == "" {
			return nil, fmt.Errorf("%w: it has no host", source.ErrURL)
		}
		if at.RawQuery != "" || at.ForceQuery {
			return nil, fmt.Errorf("%w: an index has no ?query, and credentials have no place in URLs", source.ErrURL)
		}
		return &index{
			base: at.JoinPath("/"), limits: limits.WithDefaults(), settle: o.Settle, client: newClient(o),
		}, nil
	}
}

type index struct {
	base   *url.URL // ends with a slash
	limits source.Limits
	settle time.Duration
	client *client
	cached page // the last index.json
}

// Close ends the connections.
func (x *index) Close() error {
	x.client.close()
	return nil
}

// Versions lists what index.json has, or the server's page.
func (x *index) Versions(ctx context.Context) ([]int64, error) {
	doc, err := x.document(ctx)
	if err != nil {
		return nil, err
	}
	found := source.NewListing(x.limits)
	if doc != nil {
		for _, v := range doc.Versions {
			if err := found.Add(strconv.FormatInt(v.Version, 10)); err != nil {
				return nil, err
			}
		}
		return found.Versions(), nil
	}
	entries, err := x.list(ctx, x.base)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.folder {
			continue
		}
		if err := found.Add(e.name); err != nil {
			return nil, err
		}
	}
	return found.Versions(), nil
}

// Fetch downloads a version.
func (x *index) Fetch(ctx context.Context, version int64, dir string) (source.Fetched, error) {
	doc, err := x.document(ctx)
	if err != nil {
		return source.Fetched{}, err
	}
	var files []source.File
	if doc != nil {
		files, err = doc.files(version)
	} else {
		files, err = x.walk(ctx, version)
	}
	if err != nil {
		return source.Fetched{}, err
	}
	slices.SortFunc(files, func(a, b source.File) int { return source.SumsFirst(a.Name, b.Name) })
	// SHA256SUMS says what a complete version is, and so does index.json.
	guess := doc == nil && len(files) > 0 && files[0].Name != source.SumsName
	to, err := source.NewDir(dir, x.limits)
	if err != nil {
		return source.Fetched{}, err
	}
	defer func() { _ = to.Close() }() // what was written is checked by Finish
	for _, f := range files {
		err := to.Bring(ctx, f, func(ctx context.Context) (io.ReadCloser, error) {
			return x.open(ctx, version, f, guess)
		})
		if err != nil {
			return source.Fetched{}, err
		}
	}
	return to.Finish()
}

// open begins the download of a file.
func (x *index) open(ctx context.Context, version int64, f source.File, guess bool) (io.ReadCloser, error) {
	at := x.below(append([]string{strconv.FormatInt(version, 10)}, strings.Split(f.Name, "/")...)...)
	d := &download{client: x.client, at: at}
	from, err := source.Download(ctx, x.client.patience, d.open)
	switch {
	case isMissing(err):
		return nil, fmt.Errorf("%w: it is listed, and %w", source.ErrIncomplete, err)
	case err != nil:
		return nil, err
	case guess && d.age() < x.settle:
		_ = from.Close()
		return nil, fmt.Errorf("%w: it was modified within the last %s, and the version has no %s", source.ErrIncomplete, x.settle, source.SumsName)
	}
	return from, nil
}

// below returns a URL below the base.
func (x *index) below(names ...string) *url.URL {
	for i := range names {
		names[i] = url.PathEscape(names[i])
	}
	return x.base.JoinPath(names...)
}

// walk finds a version's files on the server's pages.
func (x *index) walk(ctx context.Context, version int64) ([]source.File, error) {
	var files []source.File
	todo := []string{"."}
	for folders := 1; len(todo) > 0; folders++ {
		within := todo[0]
		todo = todo[1:]
		if folders > x.limits.Files {
			return nil, fmt.Errorf("%w: the version has more than %d folders", source.ErrLimit, x.limits.Files)
		}
		names := []string{strconv.FormatInt(version, 10)}
		if within != "." {
			names = append(names, strings.Split(within, "/")...)
		}
		entries, err := x.list(ctx, x.below(names...).JoinPath("/"))
		switch {
		case isMissing(err) && within == ".":
			return nil, fmt.Errorf("%w: %w", source.ErrGone, err)
		case err != nil:
			return nil, err
		}
		for _, e := range entries {
			name := path.Join(within, e.name)
			if !e.folder {
				files = append(files, source.File{Name: name, Size: -1})
				continue
			}
			if strings.Count(name, "/") > maxDepth {
				return nil, fmt.Errorf("%w: folders are nested more than %d deep", source.ErrLimit, maxDepth)
			}
			todo = append(todo, name)
		}
		if len(files)+len(todo) > 2*x.limits.Files {
			return nil, fmt.Errorf("%w: the version has more than %d files", source.ErrLimit, x.limits.Files)
		}
	}
	return files, nil
}

// maxDepth bounds what pages can make a server's folders look like.
const maxDepth = 16
