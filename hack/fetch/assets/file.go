package assets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// ErrChecksum is wrapped by errors about files that are not what they have to be.
var ErrChecksum = errors.New("wrong checksum")

// build makes a file under the given name, in a folder that exists.
type build func(ctx context.Context, temp string) error

// ensure sees to it that path is the pinned file: it does nothing when it is, and otherwise has it built.
func (f *Fetcher) ensure(ctx context.Context, want pin, path string, b build) error {
	if f.stamped(want, path) {
		return nil
	}
	return f.locked(ctx, func() error { return f.lay(ctx, want, path, b) })
}

// locked does work that nobody else may do in the same folder at the same time.
func (f *Fetcher) locked(ctx context.Context, work func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return explain(err)
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return explain(err)
	}
	defer unlock()
	return explain(work())
}

// lay builds a file under a temporary name, checks it and renames it. The lock is held.
func (f *Fetcher) lay(ctx context.Context, want pin, path string, b build) error {
	// It may have come while this waited for the lock, or have lost its stamp, as by a move to another folder.
	if f.stamped(want, path) {
		return nil
	}
	if check(want, path) == nil {
		return f.stamp(want, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	defer os.Remove(temp)
	if err := b(ctx, temp); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := check(want, temp); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := flush(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return f.stamp(want, path)
}

// check reads a file and compares it with its pin.
func check(want pin, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.sha256 || n != want.size {
		return fmt.Errorf("%w: it is %d bytes with sha256 %s; want %d bytes with sha256 %s", ErrChecksum, n, got, want.size, want.sha256)
	}
	return nil
}

// A stamp lies in Out/stamps under the file's path and holds what was found when the file was checked, so that it need
// not be read again. It ends to count when the file is touched or something else is pinned.
func (f *Fetcher) stampPath(path string) string {
	relative, err := filepath.Rel(f.out, path)
	if err != nil {
		panic(err) // paths are made by joining to out
	}
	return filepath.Join(f.out, "stamps", relative)
}

func stampOf(want pin, info os.FileInfo) string {
	return fmt.Sprintf("%s %d %d\n", want.sha256, info.Size(), info.ModTime().UnixNano())
}

func (f *Fetcher) stamped(want pin, path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	stamp, err := os.ReadFile(f.stampPath(path))
	return err == nil && string(stamp) == stampOf(want, info)
}

func (f *Fetcher) stamp(want pin, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	to := f.stampPath(path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, []byte(stampOf(want, info)), 0o644)
}

// flush has a file on the disk before its name is.
func flush(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// explain adds what to do to an error of the operating system.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: the disk is full; the networks and ONNX Runtime take 200 MB", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: choose a folder that you may write to with -out", err)
	}
	return err
}
