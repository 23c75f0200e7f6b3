package tfs

import (
	"context"
	"errors"

	"github.com/ebb-inference/ebb/models/source"
)

// Open opens the source at a URL. With files, the URL is that of a server, which lists versions whose files are at that other
// URL; openers know the schemes of both but this package's.
func Open(ctx context.Context, openers source.Openers, at, files string, limits source.Limits) (source.Source, error) {
	if files == "" {
		return openers.Open(ctx, at, limits)
	}
	from, err := openers.Open(ctx, files, limits)
	if err != nil {
		return nil, err
	}
	opened, err := source.Openers{Scheme: Opener(from)}.Open(ctx, at, limits)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return opened, nil
}
