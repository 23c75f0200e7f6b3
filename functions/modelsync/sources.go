package main

import (
	"context"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/index"
	"github.com/ebb-inference/ebb/models/source/registry"
)

// openers know all schemes.
var openers = func() source.Openers {
	web := index.Opener(index.Options{})
	return source.Openers{
		folder.Scheme:   folder.Opener(folder.Options{}),
		"http":          web,
		"https":         web,
		registry.Scheme: registry.Opener(oci.Options{}),
	}
}()

// open makes the Source that a definition names.
func open(ctx context.Context, s models.Source, limits source.Limits) (source.Source, error) {
	return openers.Open(ctx, s.URL, limits)
}
