package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

var errLost = errors.New("connection lost")

// torn returns the first bytes of a text, and then breaks.
func torn(text string, after int) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(text[:after]), iotest.ErrReader(errLost)))
}

func TestADownloadGoesOnAsLongAsItIsWorthIt(t *testing.T) {
	t.Parallel()
	const text = "0123456789"
	for _, c := range []struct {
		name  string
		open  func(try int, from int64) (io.ReadCloser, error)
		want  string // what is read
		tries int
		is    error
		says  string
	}{
		{"breaks, and goes on", func(_ int, from int64) (io.ReadCloser, error) {
			if from == 10 {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return torn(text[from:], 5), nil
		}, text, 3, nil, ""},
		{"is refused for a while", func(try int, from int64) (io.ReadCloser, error) {
			switch try {
			case 1:
				return torn(text, 5), nil
			case 2, 3:
				return nil, errors.New("503")
			}
			return io.NopCloser(strings.NewReader(text[from:])), nil
		}, text, 4, nil, ""},
		{"breaks too often", func(_ int, from int64) (io.ReadCloser, error) {
			return torn(text[from:], 0), nil
		}, "", 11, errLost, "broken after 0 bytes"},
		{"has changed", func(try int, _ int64) (io.ReadCloser, error) {
			if try == 1 {
				return torn(text, 5), nil
			}
			return nil, fmt.Errorf("%w: changed", source.ErrIncomplete)
		}, text[:5], 2, source.ErrIncomplete, "changed"},
		{"cannot be taken up", func(try int, _ int64) (io.ReadCloser, error) {
			if try == 1 {
				return torn(text, 5), nil
			}
			return nil, source.ErrBroken
		}, text[:5], 2, errLost, "broken after 5 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				from, err := source.Download(t.Context(), source.Patience{}, func(_ context.Context, from int64) (io.ReadCloser, error) {
					tries++
					return c.open(tries, from)
				})
				require.NoError(t, err)
				got, err := io.ReadAll(from)
				require.NoError(t, from.Close())
				require.Equal(t, c.want, string(got))
				require.Equal(t, c.tries, tries)
				require.ErrorIs(t, err, c.is)
				if c.says != "" {
					require.ErrorContains(t, err, c.says)
				}
			})
		})
	}
}

func TestADownloadThatBringsNothingBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, err := source.Download(t.Context(), source.Patience{}, func(ctx context.Context, from int64) (io.ReadCloser, error) {
			if from > 0 {
				return nil, source.ErrBroken
			}
			return io.NopCloser(io.MultiReader(slowly{29 * time.Second}, until{ctx})), nil
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, from.Close()) }()
		p := make([]byte, 1)
		_, err = from.Read(p)
		require.NoError(t, err, "29 seconds are not too long")
		time.Sleep(time.Hour) // nor is it its fault that nobody reads
		begin := time.Now()
		for err == nil {
			_, err = from.Read(p)
		}
		require.ErrorContains(t, err, "nothing has come for 30s")
		require.Equal(t, 31*time.Second, time.Since(begin), "and the pause before the next try")
	})
}

func TestADownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		from, err := source.Download(ctx, source.Patience{Pause: time.Hour}, func(context.Context, int64) (io.ReadCloser, error) {
			return torn("", 0), nil
		})
		require.NoError(t, err)
		time.AfterFunc(time.Minute, cancel)
		_, err = io.ReadAll(from)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, from.Close())
	})
}

// slowly is a reader of one byte.
type slowly struct{ after time.Duration }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(s.after)
	return copy(p, "x"), io.EOF
}

// until is a reader that brings nothing until its request ends.
type until struct {
	ctx context.Context //nolint:containedctx // of the request
}

func (u until) Read([]byte) (int, error) {
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}
