package main

import (
	"context"
	"errors"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/bucket/gcs"
	"github.com/ebb-inference/ebb/models/source/bucket/s3"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/index"
	"github.com/ebb-inference/ebb/models/source/registry"
	"github.com/ebb-inference/ebb/models/source/tfs"
)

// files know all schemes of sources that have the files of versions.
func files() source.Openers {
	web := index.Opener(index.Options{})
	openers := source.Openers{
		folder.Scheme:   folder.Opener(folder.Options{}),
		gcs.Scheme:      gcs.Opener(gcs.Options{}),
		s3.Scheme:       s3.Opener(s3.Options{}),
		registry.Scheme: registry.Opener(oci.Options{}),
	}
	for _, scheme := range index.Schemes {
		openers[scheme] = web
	}
	return openers
}

// open makes the Source that a definition names.
func open(ctx context.Context, s models.Source, limits source.Limits) (source.Source, error) {
	openers := files()
	if s.Files == "" {
		return openers.Open(ctx, s.URL, limits)
	}
	from, err := openers.Open(ctx, s.Files, limits)
	if err != nil {
		return nil, err
	}
	openers[tfs.Scheme] = tfs.Opener(from)
	opened, err := openers.Open(ctx, s.URL, limits)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return opened, nil
}
