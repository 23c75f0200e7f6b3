package source

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// maxURL bounds the length of a URL.
const maxURL = 2048

// Open makes the Source at a URL. The Source's errors name the URL, so that those of the Openers' Sources need not.
func (o Openers) Open(ctx context.Context, at string, limits Limits) (Source, error) {
	u, err := ParseURL(at)
	if err != nil {
		return nil, err
	}
	open, ok := o[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("%w: %q; known are %s", ErrScheme, u.Scheme, strings.Join(slices.Sorted(maps.Keys(o)), ", "))
	}
	s, err := open(ctx, u, limits.WithDefaults())
	if err != nil {
		return nil, err // does not name the URL: what is wrong with it may be a password
	}
	return named{s, at}, nil
}

// named is a Source whose errors say where it is.
type named struct {
	Source
	at string
}

func (n named) Versions(ctx context.Context) ([]int64, error) {
	versions, err := n.Source.Versions(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the versions at %s: %w", n.at, err)
	}
	return versions, nil
}

func (n named) Fetch(ctx context.Context, version int64, dir string) (Fetched, error) {
	got, err := n.Source.Fetch(ctx, version, dir)
	if err != nil {
		return Fetched{}, fmt.Errorf("fetch version %d from %s: %w", version, n.at, err)
	}
	return got, nil
}

// ParseURL reads the URL of a source, of any scheme. Credentials have no place in one, since definitions are read by many and
// URLs are written to logs: sources find theirs in their surroundings.
func ParseURL(at string) (*url.URL, error) {
	if at == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrURL)
	}
	if len(at) > maxURL {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrURL, len(at), maxURL)
	}
	u, err := url.Parse(at)
	if err != nil {
		// What url.Parse says has parts of the URL in it.
		return nil, fmt.Errorf("%w: it cannot be read; write scheme://host/path, with special characters as %%XX", ErrURL)
	}
	switch {
	case u.Scheme == "" || u.Opaque != "":
		return nil, fmt.Errorf("%w: write scheme://host/path", ErrURL)
	case u.User != nil:
		return nil, fmt.Errorf("%w: it has a user or a password in it, which would be shown with it; leave out what is before the @", ErrURL)
	case u.Fragment != "" || strings.HasSuffix(at, "#"):
		return nil, fmt.Errorf("%w: it has a #fragment, which means nothing here", ErrURL)
	}
	return u, nil
}
