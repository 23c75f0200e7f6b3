package source_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

// none is a source that fails.
type none struct{ err error }

func (n none) Versions(context.Context) ([]int64, error) { return nil, n.err }

func (n none) Fetch(context.Context, int64, string) (source.Fetched, error) {
	return source.Fetched{}, n.err
}

func (n none) Close() error { return nil }

func TestOpenersChooseByScheme(t *testing.T) {
	t.Parallel()
	var got source.Limits
	openers := source.Openers{
		"https": func(_ context.Context, _ *url.URL, limits source.Limits) (source.Source, error) {
			got = limits
			return none{source.ErrIncomplete}, nil
		},
		"file": func(context.Context, *url.URL, source.Limits) (source.Source, error) { return nil, source.ErrURL },
	}
	s, err := openers.Open(t.Context(), "HTTPS://models.example/resnet", source.Limits{Files: 7})
	require.NoError(t, err)
	require.Equal(t, source.Limits{Versions: 1000, Files: 7, Bytes: 8 << 30}, got, "with the defaults filled in")

	_, err = s.Versions(t.Context())
	require.EqualError(t, err, "list the versions at HTTPS://models.example/resnet: version is not complete")
	require.ErrorIs(t, err, source.ErrIncomplete)
	_, err = s.Fetch(t.Context(), 3, t.TempDir())
	require.EqualError(t, err, "fetch version 3 from HTTPS://models.example/resnet: version is not complete")

	_, err = openers.Open(t.Context(), "ftp://models.example/resnet", source.Limits{})
	require.ErrorIs(t, err, source.ErrScheme)
	require.ErrorContains(t, err, `"ftp"; known are file, https`)
	_, err = openers.Open(t.Context(), "file:///models", source.Limits{})
	require.ErrorIs(t, err, source.ErrURL)
}

func TestURLsThatAreNoSourcesAreRefusedWithoutRepeatingThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, at, want string }{
		{"empty", "", "empty"},
		{"a path", "/models/secret", "scheme://host/path"},
		{"no slashes", "mailto:secret", "scheme://host/path"},
		{"a user and a password", "https://user:secret@models.example/resnet", "before the @"},
		{"a token as the user", "https://secret@models.example/resnet", "before the @"},
		{"a password with a space", "https://user:sec ret@models.example", "cannot be read"},
		{"a port that is a password", "https://models.example:secret/resnet", "cannot be read"},
		{"a control character", "https://models.example/\nsecret", "cannot be read"},
		{"half an escape", "https://models.example/secret%2", "cannot be read"},
		{"a fragment", "https://models.example/resnet#secret", "#fragment"},
		{"an empty fragment", "https://models.example/secret#", "#fragment"},
		{"too long", "https://models.example/" + strings.Repeat("secret", 1000), "at most 2048"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := source.ParseURL(c.at)
			require.ErrorIs(t, err, source.ErrURL)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "sec ret")
		})
	}
}

func TestVersionNumbers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{
		"1": 1, "10": 10, "20260131120000": 20260131120000, "9223372036854775807": 1<<63 - 1,
		"": 0, "0": 0, "-1": 0, "+1": 0, "01": 0, "1.0": 0, "1e3": 0, "0x1": 0, "1_0": 0, " 1": 0, "1 ": 0, "1.tmp": 0, ".1": 0,
		"9223372036854775808": 0, "٣": 0, "\uff11": 0, "one": 0,
	} {
		version, ok := source.ParseVersion(name)
		require.Equal(t, want != 0, ok, "%q", name)
		if ok {
			require.Equal(t, want, version)
		}
	}
}

func TestAListOfNamesWithoutEndIsOverTheLimit(t *testing.T) {
	t.Parallel()
	l := source.NewListing(source.Limits{})
	var err error
	for n := 0; err == nil; n++ {
		require.Less(t, n, 1_000_000)
		err = l.Add("latest")
	}
	require.ErrorIs(t, err, source.ErrLimit)
	require.Empty(t, l.Versions())
}
