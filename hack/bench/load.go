package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
)

// stopTimeout bounds the end of what was started.
const stopTimeout = 30 * time.Second

// stops ends what was started, the latest first.
type stops []func() error

func (s *stops) add(stop func() error) { *s = append(*s, stop) }

func (s *stops) stop() error {
	var errs []error
	for _, stop := range slices.Backward(*s) {
		errs = append(errs, stop())
	}
	*s = nil
	return errors.Join(errs...)
}

// startModelServer serves the networks of a folder by gRPC on loopback.
func startModelServer(ctx context.Context, networks string, log *slog.Logger) (address string, stop func() error, err error) {
	loader, err := onnx.NewLoader(onnx.Options{})
	if err != nil {
		return "", nil, err
	}
	ms, err := server.New(server.Config{Base: networks, Loader: server.Networks(loader), Logger: log})
	if err != nil {
		return "", nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, errors.Join(err, ms.Stop(context.WithoutCancel(ctx)))
	}
	served := make(chan error, 1)
	go func() { served <- ms.ServeGRPC(ln) }()
	return ln.Addr().String(), func() error {
		return errors.Join(ms.Stop(context.WithoutCancel(ctx)), <-served)
	}, nil
}

// serve serves h over HTTP on loopback.
func serve(ctx context.Context, h http.Handler) (url string, stop func() error, err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	return "http://" + ln.Addr().String(), func() error {
		err := srv.Shutdown(context.WithoutCancel(ctx))
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}

// newClient is a client that keeps as many connections to a host as it needs for requests at once.
func newClient(concurrency int) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: concurrency}}
}

// rate calls do, which handles size pictures, from as many goroutines as make concurrency pictures at once, until so many
// requests are done, and returns pictures a second.
func rate(ctx context.Context, requests, concurrency, size int, do func(context.Context) error) (float64, error) {
	var wg sync.WaitGroup
	var next atomic.Int64
	var failure atomic.Pointer[error]
	calls := int64(requests / size)
	start := time.Now()
	for range max(1, concurrency/size) {
		wg.Go(func() {
			for next.Add(1) <= calls && failure.Load() == nil {
				if err := do(ctx); err != nil {
					failure.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failure.Load(); err != nil {
		return 0, *err
	}
	return float64(calls*int64(size)) / time.Since(start).Seconds(), nil
}

// askHTTP posts a picture; anything but an answer is an error.
func askHTTP(ctx context.Context, client *http.Client, url string, data []byte) error {
	_, err := answerHTTP(ctx, client, url, data)
	return err
}

// answerHTTP posts a picture and returns the answer; anything else is an error.
func answerHTTP(ctx context.Context, client *http.Client, url string, data []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", http.DetectContentType(data))
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read to its end
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return body, nil
}

// freePort is a port that nobody uses at the moment.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	return port, ln.Close()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
