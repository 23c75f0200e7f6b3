package tfs_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/tfs"
)

// kept is a source of files that says whether it was closed.
type kept struct {
	source.Source
	closed int
}

func (k *kept) Close() error {
	k.closed++
	return nil
}

func TestOpenJoinsAServersListWithTheFilesAtAnotherURL(t *testing.T) {
	t.Parallel()
	files := &kept{}
	openers := source.Openers{"file": func(context.Context, *url.URL, source.Limits) (source.Source, error) { return files, nil }}
	for _, tc := range []struct {
		name, at, files string
		fails           string
	}{
		{"files alone", "file:///x", "", ""},
		{"a server and files", "grpc://127.0.0.1:1/net", "file:///x", ""},
		{"a server alone", "grpc://127.0.0.1:1/net", "", source.ErrScheme.Error()},
		{"files that are nowhere", "grpc://127.0.0.1:1/net", "gs://x", source.ErrScheme.Error()},
		{"files and files", "file:///x", "file:///x", source.ErrScheme.Error()},
		{"a server without a model", "grpc://127.0.0.1:1", "file:///x", "write grpc://host:port/model"},
	} {
		s, err := tfs.Open(t.Context(), openers, tc.at, tc.files, source.Limits{})
		if tc.fails != "" {
			require.ErrorContains(t, err, tc.fails, tc.name)
			continue
		}
		require.NoError(t, err, tc.name)
		require.NoError(t, s.Close(), tc.name)
	}
	require.Equal(t, 4, files.closed, "whatever was opened is closed")
}
