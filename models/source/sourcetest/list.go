package sourcetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

func listsAscending(t *testing.T, p *Place) {
	t.Helper()
	for _, name := range []string{"10", "9", "20260131120000", "1", "2", "100"} {
		p.Publish(t, name, Files{"model": name})
	}
	versions, err := p.open(t, source.Limits{}).Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 9, 10, 100, 20260131120000}, versions)
}

func skipsNonVersions(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "3", Files{"model": "three"})
	for _, name := range []string{
		"0", "-1", "+2", "01", "007", ".4", "5.tmp", "6 ", "1e3", "0x7", "latest", "v8", "9223372036854775808", "٣",
	} {
		p.Publish(t, name, Files{"model": name})
	}
	versions, err := p.open(t, source.Limits{}).Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{3}, versions)
}

func listsNothing(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "latest", Files{"model": "of no version"})
	versions, err := p.open(t, source.Limits{}).Versions(t.Context())
	require.NoError(t, err)
	require.Empty(t, versions)
}

func tooManyVersions(t *testing.T, p *Place) {
	t.Helper()
	for _, name := range []string{"1", "2", "3"} {
		p.Publish(t, name, Files{"model": name})
	}
	versions, err := p.open(t, source.Limits{Versions: 3}).Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, versions)
	_, err = p.open(t, source.Limits{Versions: 2}).Versions(t.Context())
	require.ErrorIs(t, err, source.ErrLimit)
}

func away(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network())
	s := p.open(t, source.Limits{})
	p.Away(t)
	_, err := s.Versions(t.Context())
	requireAway(t, p, err)
	_, err = s.Fetch(t.Context(), 1, folder(t))
	requireAway(t, p, err)
}

// requireAway says that the error names the place, and is none of those that mean something else than "try again".
func requireAway(t *testing.T, p *Place, err error) {
	t.Helper()
	require.ErrorContains(t, err, p.URL)
	for _, wrong := range []error{
		source.ErrScheme, source.ErrURL, source.ErrGone, source.ErrIncomplete, source.ErrCorrupt, source.ErrLimit,
	} {
		require.NotErrorIs(t, err, wrong)
	}
}
