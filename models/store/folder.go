package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds on what is looked at in one version's folder.
const (
	maxFiles = 10_000
	maxDepth = 8
)

// folder is a version as it lies on disk.
type folder struct {
	version int64
	dir     string
}

// racy is how recent a change of a folder may be for another one not to show in its time: clocks of file systems tick
// slowly.
const racy = 2 * time.Second

// unchanged says whether a folder has the entries that it had before, by what os.Stat says of it. It is never sure of
// one that was changed just now.
func unchanged(before, now fs.FileInfo) bool {
	return before != nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime()) && time.Since(now.ModTime()) > racy
}

// list returns the versions in a model's folder, the newest first. A version is a folder whose name is a positive
// decimal number; leading zeros are allowed. Everything else is left alone, so that any other name will do for a
// version that is still being copied.
func list(dir string) ([]folder, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []folder
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "+") {
			continue // ParseInt would take it
		}
		version, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil || version < 1 || !isDir(dir, e) {
			continue
		}
		found = append(found, folder{version, filepath.Join(dir, e.Name())})
	}
	slices.SortStableFunc(found, func(a, b folder) int { return cmp.Compare(b.version, a.version) })
	// "1" and "01" are the same version: the first in the order of names is taken.
	return slices.CompactFunc(found, func(a, b folder) bool { return a.version == b.version }), nil
}

// isDir says whether an entry is a folder or a link to one, as Kubernetes makes them in volumes.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// view is what a version's folder looked like: two views are equal when no name, size or time in it has changed.
type view struct {
	sum    uint64
	files  int
	newest time.Time // the latest modification of a file or folder in it
}

// inspect looks at a version's folder, without reading any file.
func inspect(dir string) (view, error) {
	in := inspector{sum: fnv.New64a()}
	if err := in.walk(dir, 0); err != nil {
		return view{}, fmt.Errorf("look at the files: %w", err)
	}
	in.seen.sum = in.sum.Sum64()
	return in.seen, nil
}

type inspector struct {
	sum  hash.Hash64
	seen view
}

func (in *inspector) walk(path string, depth int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	in.add(path, info)
	if !info.IsDir() {
		in.seen.files++
		if in.seen.files > maxFiles {
			return fmt.Errorf("there are more than %d", maxFiles)
		}
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("folders are nested more than %d deep", maxDepth)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := in.walk(filepath.Join(path, e.Name()), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspector) add(path string, info fs.FileInfo) {
	if info.ModTime().After(in.seen.newest) {
		in.seen.newest = info.ModTime()
	}
	line := append([]byte(path), 0)
	for _, bits := range []int64{info.Size(), info.ModTime().UnixNano()} {
		line = binary.LittleEndian.AppendUint64(line, uint64(bits))
	}
	_, _ = in.sum.Write(line) // a hash never fails
}
