package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/source"
)

func TestEveryKindOfSourceIsKnown(t *testing.T) {
	t.Parallel()
	for _, s := range []models.Source{
		{URL: "file:///models/net"}, {URL: "http://web.example/net"}, {URL: "https://web.example/net"},
		{URL: "gs://bucket/net"}, {URL: "s3://bucket/net"}, {URL: "oci://registry.example/net"},
		{URL: "grpc://serving.example:8500/net", Files: "gs://bucket/net"},
	} {
		t.Run(s.URL, func(t *testing.T) {
			t.Parallel()
			opened, err := open(t.Context(), s, source.Limits{})
			require.NoError(t, err)
			require.NoError(t, opened.Close())
		})
	}
	for name, s := range map[string]models.Source{
		"another kind":       {URL: "ftp://web.example/net"},
		"files of no kind":   {URL: "grpc://serving.example:8500/net", Files: "ftp://web.example/net"},
		"a list alone":       {URL: "grpc://serving.example:8500/net"},
		"a list of no model": {URL: "grpc://serving.example:8500", Files: "gs://bucket/net"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := open(t.Context(), s, source.Limits{})
			require.Error(t, err)
		})
	}
}
