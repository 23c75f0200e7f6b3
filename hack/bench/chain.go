package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// chain starts n servers on loopback, each of which reads a request whole and sends it on to the next; the last one answers.
// It returns the address of the first, and what stops them.
func chain(ctx context.Context, client *http.Client, n int) (first string, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range slices.Backward(stops) {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	next := ""
	for range n {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, errors.Join(err, stop())
		}
		srv := &http.Server{Handler: forward(client, next), ReadHeaderTimeout: 5 * time.Second}
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(ln) }()
		stops = append(stops, func() error {
			err := srv.Shutdown(context.WithoutCancel(ctx))
			if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
				err = errors.Join(err, e)
			}
			return err
		})
		next = "http://" + ln.Addr().String()
	}
	return next, stop, nil
}

func forward(client *http.Client, next string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if next == "" {
			return
		}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, next, bytes.NewReader(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_ = resp.Body.Close() // it is empty
	})
}
