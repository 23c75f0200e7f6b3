// Package tfs is the source of versions that a TensorFlow Serving instance, or any server that speaks its protocol, has
// available: grpc://host:port/model. What another instance has loaded and serves is new here.
//
// The server says which versions there are, and not what is in them: their files come from another source, such as the folder
// or the bucket that the server itself reads.
package tfs

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
)

// Scheme is the URL's.
const Scheme = "grpc"

// statusTimeout bounds the question for the versions.
const statusTimeout = 30 * time.Second

// Opener opens the server's list of versions, whose files come from another source. That is closed with the one that is opened.
func Opener(files source.Source) source.Opener {
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		if files == nil {
			return nil, fmt.Errorf("%w: a model server lists versions but does not hand out their files; say where they are", source.ErrURL)
		}
		port, err := strconv.ParseUint(at.Port(), 10, 16)
		model := strings.Trim(at.Path, "/")
		switch {
		case at.Hostname() == "" || err != nil || port == 0 || model == "" || strings.Contains(model, "/"):
			return nil, fmt.Errorf("%w: write grpc://host:port/model", source.ErrURL)
		case at.RawQuery != "" || at.ForceQuery:
			return nil, fmt.Errorf("%w: a model server has no ?query", source.ErrURL)
		}
		client, err := tfserving.Dial(at.Host)
		if err != nil {
			return nil, fmt.Errorf("%w: there can be no such server", source.ErrURL)
		}
		return &server{client, model, limits.WithDefaults(), files}, nil
	}
}

type server struct {
	client *tfserving.Client
	model  string
	limits source.Limits
	files  source.Source
}

// Close ends the connection, and closes the source of the files.
func (s *server) Close() error { return errors.Join(s.client.Close(), s.files.Close()) }

// Versions lists what the server has available. What it is loading is not yet listed, and what it could not load never is. A
// server that does not know the model has no versions of it.
func (s *server) Versions(ctx context.Context) ([]int64, error) {
	all, err := s.status(ctx, 0)
	if errors.Is(err, tfserving.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := source.NewListing(s.limits)
	for _, v := range all {
		if !v.Available() {
			continue
		}
		if err := found.Add(strconv.FormatInt(v.Version, 10)); err != nil {
			return nil, err
		}
	}
	return found.Versions(), nil
}

// Fetch brings the files of a version, if the server still has it available.
func (s *server) Fetch(ctx context.Context, version int64, dir string) (source.Fetched, error) {
	all, err := s.status(ctx, version)
	switch {
	case errors.Is(err, tfserving.ErrNotFound):
		return source.Fetched{}, source.ErrGone
	case err != nil:
		return source.Fetched{}, err
	case len(all) != 1 || all[0].Version != version:
		return source.Fetched{}, fmt.Errorf("the server was asked for version %d and answers with %d others", version, len(all))
	case all[0].State == serving.ModelVersionStatus_START || all[0].State == serving.ModelVersionStatus_LOADING:
		return source.Fetched{}, fmt.Errorf("%w: the server is just loading it", source.ErrIncomplete)
	case !all[0].Available():
		return source.Fetched{}, fmt.Errorf("%w: the server has it as %s", source.ErrGone, all[0].State)
	}
	return s.files.Fetch(ctx, version, dir)
}

// status asks for one version, or for all with 0.
func (s *server) status(ctx context.Context, version int64) ([]tfserving.VersionStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return s.client.Status(ctx, tfserving.Spec{Model: s.model, Version: version})
}
