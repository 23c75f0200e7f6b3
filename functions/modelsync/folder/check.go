package folder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// checkServer is a model server that has the candidate and nothing else.
type checkServer struct {
	version int64
	address string
	server  *server.Server
	done    chan error // of serving
}

// serve starts the candidate's server, in place of another one's, and waits until it has loaded it.
func (t *Target) serve(ctx context.Context, version int64) (string, error) {
	if err := t.unserve(ctx); err != nil {
		return "", err
	}
	ln, err := app.Listen(ctx, "127.0.0.1", 0)
	if err != nil {
		return "", err
	}
	s, err := server.New(server.Config{
		Base: filepath.Join(t.Base, candidates), Loader: t.Loader, Logger: t.Logger,
		Models: []store.Model{{Name: t.Network, Policy: store.Policy{Specific: []int64{version}}}},
	})
	if err != nil {
		_ = ln.Close() // nothing was served on it
		return "", fmt.Errorf("server for a candidate: %w", err)
	}
	t.checked = start(s, ln, version)
	if err := t.awaitCandidate(ctx); err != nil {
		return "", errors.Join(err, t.unserve(ctx))
	}
	return t.checked.address, nil
}

func start(s *server.Server, ln net.Listener, version int64) *checkServer {
	c := &checkServer{version: version, address: ln.Addr().String(), server: s, done: make(chan error, 1)}
	go func() { c.done <- s.ServeGRPC(ln) }()
	return c
}

func (t *Target) awaitCandidate(ctx context.Context) error {
	client, err := tfserving.Dial(t.checked.address)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // all answers are here
	return until(ctx, func() (bool, error) {
		versions, err := client.Status(ctx, tfserving.Spec{Model: t.Network, Version: t.checked.version})
		switch {
		case errors.Is(err, tfserving.ErrNotFound), errors.Is(err, tfserving.ErrUnavailable):
			return false, nil // it has not looked at its folder yet
		case err != nil:
			return false, err
		}
		for _, v := range versions {
			if v.Err != nil {
				return false, fmt.Errorf("%w: the model server cannot load it: %w", rollout.ErrRefused, v.Err)
			}
			if v.Available() {
				return true, nil
			}
		}
		return false, nil
	})
}

// unserve ends the candidate's server.
func (t *Target) unserve(ctx context.Context) error {
	if t.checked == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := t.checked.server.Stop(ctx)
	err = errors.Join(err, <-t.checked.done)
	t.checked = nil
	if err != nil {
		return fmt.Errorf("end the server of a candidate: %w", err)
	}
	return nil
}
