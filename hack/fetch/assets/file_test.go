package assets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// builder counts how often it builds.
type builder struct {
	content string
	built   atomic.Int64
}

func (b *builder) build(_ context.Context, temp string) error {
	b.built.Add(1)
	return os.WriteFile(temp, []byte(b.content), 0o644)
}

func TestFileIsBuiltOnce(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	path := filepath.Join(f.out, "a", "b.bin")
	b := &builder{content: "content"}
	for range 3 {
		require.NoError(t, f.ensure(t.Context(), pinOf("content"), path, b.build))
		again, err := New(Config{Root: f.root})
		require.NoError(t, err)
		f = again
	}
	require.EqualValues(t, 1, b.built.Load())
	requireContent(t, "content", path)
	require.Equal(t, []string{"b.bin"}, names(t, filepath.Dir(path)))
}

func TestFileIsBuiltAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(path string) error
		pinned string
		built  int64
	}{
		"when it is gone":            {os.Remove, "content", 2},
		"when it was changed":        {func(path string) error { return os.WriteFile(path, []byte("another"), 0o644) }, "content", 2},
		"when another is pinned":     {func(string) error { return nil }, "new content", 2},
		"but not for its time alone": {func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) }, "content", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fetcher(t)
			path := filepath.Join(f.out, "b.bin")
			b := &builder{content: "content"}
			require.NoError(t, f.ensure(t.Context(), pinOf("content"), path, b.build))
			require.NoError(t, c.change(path))
			b.content = c.pinned
			want := pinOf(c.pinned)
			require.NoError(t, f.ensure(t.Context(), want, path, b.build))
			require.Equal(t, c.built, b.built.Load())
			require.True(t, f.stamped(want, path))
			requireContent(t, c.pinned, path)
		})
	}
}

func TestFileWithWrongChecksumIsNotLaidDown(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"other bytes": "CONTENT", "too short": "conten", "too long": "contents", "empty": ""} {
		f := fetcher(t)
		path := filepath.Join(f.out, "lib", "b.bin")
		err := f.ensure(t.Context(), pinOf("content"), path, (&builder{content: content}).build)
		require.ErrorIs(t, err, ErrChecksum, name)
		require.ErrorContains(t, err, path, name)
		require.Empty(t, names(t, filepath.Dir(path)), name)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	path := filepath.Join(f.out, "lib", "b.bin")
	broken := errors.New("broken")
	err := f.ensure(t.Context(), pinOf("content"), path, func(_ context.Context, temp string) error {
		return errors.Join(os.WriteFile(temp, []byte("cont"), 0o644), broken)
	})
	require.ErrorIs(t, err, broken)
	require.Empty(t, names(t, filepath.Dir(path)))
}

func TestManyProcessesBuildOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := &builder{content: "content"}
	var all sync.WaitGroup
	failures := make(chan error, 8)
	for range cap(failures) {
		all.Go(func() {
			f, err := New(Config{Root: root}) // a lock of its own, as in another process
			failures <- errors.Join(err, f.ensure(t.Context(), pinOf("content"), filepath.Join(f.out, "b.bin"), b.build))
		})
	}
	all.Wait()
	for range cap(failures) {
		require.NoError(t, <-failures)
	}
	require.EqualValues(t, 1, b.built.Load())
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	require.NoError(t, os.MkdirAll(f.out, 0o755))
	unlock, err := f.lock(t.Context())
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		other, err := New(Config{Root: f.root})
		require.NoError(t, err)
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, enough)
		defer cancel()
		require.ErrorIs(t, other.ensure(ctx, pinOf("content"), filepath.Join(f.out, "b.bin"), (&builder{}).build), enough)
	})
	unlock()
	require.NoError(t, f.ensure(t.Context(), pinOf("content"), filepath.Join(f.out, "b.bin"), (&builder{content: "content"}).build))
}

func TestErrorsOfTheDiskSayWhatToDo(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"the disk is full":                      fmt.Errorf("write: %w", syscall.ENOSPC),
		"choose a folder that you may write to": fmt.Errorf("open: %w", os.ErrPermission),
	} {
		f := fetcher(t)
		got := f.ensure(t.Context(), pinOf("content"), filepath.Join(f.out, "b.bin"), func(context.Context, string) error { return err })
		require.ErrorIs(t, got, err)
		require.ErrorContains(t, got, want)
	}
}

func TestFolderIsFoundFromBelow(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "package-lock.json"), "{}")
	below := filepath.Join(root, "a", "b")
	require.NoError(t, os.MkdirAll(below, 0o755))
	t.Chdir(below)
	f, err := New(Config{})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, ".ebb"), f.out)

	t.Chdir(filepath.Dir(root))
	_, err = New(Config{})
	require.ErrorContains(t, err, "run it inside Ebb's repository")
}
