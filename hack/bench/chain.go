package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
)

// chain starts n servers on loopback, each of which reads a request whole and sends it on to the next; the last one answers.
// It returns the address of the first, and what stops them.
func chain(ctx context.Context, client *http.Client, n int) (first string, stop func() error, err error) {
	var started stops
	for range n {
		url, stop, err := serve(ctx, forward(client, first))
		if err != nil {
			return "", nil, errors.Join(err, started.stop())
		}
		started.add(stop)
		first = url
	}
	return first, started.stop, nil
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
