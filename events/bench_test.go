package events_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

// What an event costs each function that it goes through, beside HTTP and its picture.

func BenchmarkWriteRequest(b *testing.B) {
	r := newRequest()
	b.ReportAllocs()
	for b.Loop() {
		_, err := events.NewHTTPRequest(b.Context(), "http://broker.invalid/", r)
		require.NoError(b, err)
	}
}

func BenchmarkReadAttributes(b *testing.B) {
	req, err := events.NewHTTPRequest(b.Context(), "http://broker.invalid/", newRequest())
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, err := events.ReadHTTPAttributes(req.Header)
		require.NoError(b, err)
	}
}

func BenchmarkResult(b *testing.B) {
	r := newAnswer()
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := r.Event()
			require.NoError(b, err)
		}
	})
	ev, err := r.Event()
	require.NoError(b, err)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := events.ParseResult(ev)
			require.NoError(b, err)
		}
	})
}
