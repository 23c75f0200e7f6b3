package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
)

// partName is the file that is being written. It is renamed when it is complete, so that what has a file's name is all of the
// file, wherever the process was killed.
const partName = ".part"

// File is one file of a version, as its source describes it.
type File struct {
	Name string // within the version's folder, with slashes
	Size int64  // -1 when the source does not say
	Sum  Sum    // what the source itself knows; what SHA256SUMS says comes on top of it
}

// Dir is a folder that receives the files of one version. All that sources have in common when they Fetch is here: whatever a
// source says, nothing is written but files, below the folder, within the limits; checksums are right, or it is an error.
//
// A source that can choose brings SHA256SUMS first, so that what is wrong or already here is known at once.
type Dir struct {
	root    *os.Root
	limits  Limits
	files   map[string]brought
	folders map[string]bool // that have files in them
	bytes   int64
	sums    map[string]Sum // what SHA256SUMS says; nil without one
}

type brought struct {
	size     int64
	digest   []byte // SHA-256
	verified bool
}

// NewDir returns the folder at a path, which exists.
func NewDir(dir string, limits Limits) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("folder for a version: %w", err)
	}
	return &Dir{root: root, limits: limits.WithDefaults(), files: make(map[string]brought), folders: make(map[string]bool)}, nil
}

// Close frees what it holds.
func (d *Dir) Close() error { return d.root.Close() }

// Bring writes a file. It opens it only when it has to: not when a file with the right checksum is here already, from a Fetch
// that came to no end.
func (d *Dir) Bring(ctx context.Context, f File, open func(context.Context) (io.ReadCloser, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.admit(f); err != nil {
		return err
	}
	if f.Name == SumsName {
		return d.bringSums(ctx, f, open)
	}
	listed := d.sums[f.Name]
	got, err := d.kept(ctx, f, listed)
	if err != nil {
		return err
	}
	if got == nil {
		if got, err = d.write(ctx, f, listed, open); err != nil {
			return fmt.Errorf("file %q: %w", f.Name, err)
		}
	}
	got.verified = f.Sum.given() || listed.given()
	d.files[f.Name] = *got
	d.bytes += got.size
	return nil
}

// admit says whether the file may be brought, by what is known of it.
func (d *Dir) admit(f File) error {
	if err := CheckName(f.Name); err != nil {
		return err
	}
	if _, ok := d.files[f.Name]; ok || d.folders[f.Name] {
		return fmt.Errorf("%w: two things have the name %q", ErrCorrupt, f.Name)
	}
	if len(d.files) == d.limits.Files {
		return fmt.Errorf("%w: the version has more than %d files", ErrLimit, d.limits.Files)
	}
	if f.Size > d.limits.Bytes-d.bytes {
		return d.tooLarge()
	}
	for parent := path.Dir(f.Name); parent != "."; parent = path.Dir(parent) {
		if _, ok := d.files[parent]; ok {
			return fmt.Errorf("%w: %q is both a file and a folder", ErrCorrupt, parent)
		}
		d.folders[parent] = true
	}
	return nil
}

func (d *Dir) tooLarge() error {
	return fmt.Errorf("%w: the version has more than %d bytes", ErrLimit, d.limits.Bytes)
}

func (d *Dir) bringSums(ctx context.Context, f File, open func(context.Context) (io.ReadCloser, error)) error {
	if d.sums != nil {
		return fmt.Errorf("%w: there are two %s", ErrCorrupt, SumsName)
	}
	from, err := open(ctx)
	if err != nil {
		return fmt.Errorf("file %q: %w", f.Name, err)
	}
	defer func() { _ = from.Close() }() // it was only read
	check := f.Sum.start()
	text, err := io.ReadAll(io.TeeReader(io.LimitReader(whole{ctx, from}, maxSums+1), check))
	switch {
	case err != nil:
		return fmt.Errorf("file %q: %w", f.Name, err)
	case len(text) > maxSums:
		return fmt.Errorf("%w: %s has more than %d bytes", ErrLimit, SumsName, maxSums)
	case f.Size >= 0 && int64(len(text)) < f.Size:
		return fmt.Errorf("%w: %q has %d bytes of %d", ErrIncomplete, f.Name, len(text), f.Size)
	case !check.right():
		return fmt.Errorf("%w: %q is not what its %s says", ErrCorrupt, f.Name, f.Sum.Name)
	}
	d.sums, err = parseSums(string(text))
	return err
}

// kept returns the file if it is here already, whole and confirmed by a checksum, and otherwise nil.
func (d *Dir) kept(ctx context.Context, f File, listed Sum) (*brought, error) {
	if !f.Sum.given() && !listed.given() {
		return nil, nil
	}
	info, err := d.root.Lstat(f.Name)
	if err != nil || !info.Mode().IsRegular() || f.Size >= 0 && info.Size() != f.Size || info.Size() > d.limits.Bytes-d.bytes {
		return nil, nil // then it has to be brought, and what is wrong here shows
	}
	here, err := d.root.Open(f.Name)
	if err != nil {
		return nil, nil // as above
	}
	defer func() { _ = here.Close() }() // it is only read
	var got brought
	own, sums, all := f.Sum.start(), listed.start(), sha256.New()
	got.size, err = io.Copy(io.MultiWriter(own, sums, all), whole{ctx, here})
	if err != nil || !own.right() || !sums.right() {
		return nil, ctx.Err()
	}
	got.digest = all.Sum(nil)
	return &got, nil
}

// write brings the file from where it is.
func (d *Dir) write(ctx context.Context, f File, listed Sum, open func(context.Context) (io.ReadCloser, error)) (*brought, error) {
	if err := d.makeRoom(f.Name); err != nil {
		return nil, err
	}
	from, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }() // it was only read
	to, err := d.root.OpenFile(partName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	var got brought
	own, sums, all := f.Sum.start(), listed.start(), sha256.New()
	left := d.limits.Bytes - d.bytes
	if f.Size >= 0 {
		left = f.Size
	}
	got.size, err = io.Copy(io.MultiWriter(to, own, sums, all), io.LimitReader(whole{ctx, from}, left+1))
	if err := errors.Join(err, to.Close()); err != nil {
		return nil, err
	}
	switch {
	case f.Size >= 0 && got.size < f.Size:
		return nil, fmt.Errorf("%w: it has %d bytes of %d", ErrIncomplete, got.size, f.Size)
	case f.Size >= 0 && got.size > f.Size:
		return nil, fmt.Errorf("%w: it has more than the %d bytes that its source says", ErrCorrupt, f.Size)
	case got.size > left:
		return nil, d.tooLarge()
	case !own.right():
		return nil, fmt.Errorf("%w: it is not what its %s says", ErrCorrupt, f.Sum.Name)
	case !sums.right():
		return nil, fmt.Errorf("%w: it is not what %s says", ErrCorrupt, SumsName)
	}
	got.digest = all.Sum(nil)
	return &got, d.root.Rename(partName, f.Name)
}

// makeRoom removes what an earlier Fetch left where the file and its folders have to be, and makes the folders.
func (d *Dir) makeRoom(name string) error {
	if parent := path.Dir(name); parent != "." {
		err := d.root.MkdirAll(parent, 0o755)
		for at := parent; err != nil && at != "."; at = path.Dir(at) {
			if info, e := d.root.Lstat(at); e == nil && !info.IsDir() {
				if err = d.root.Remove(at); err == nil {
					err = d.root.MkdirAll(parent, 0o755)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	if info, err := d.root.Lstat(name); err == nil && info.IsDir() {
		return d.root.RemoveAll(name)
	}
	return nil
}

// Finish ends the Fetch: it checks what only the whole version shows, and removes what an earlier Fetch left.
func (d *Dir) Finish() (Fetched, error) {
	if len(d.files) == 0 {
		return Fetched{}, fmt.Errorf("%w: it has no files", ErrIncomplete)
	}
	for _, name := range slices.Sorted(maps.Keys(d.sums)) {
		f, ok := d.files[name]
		if !ok {
			return Fetched{}, fmt.Errorf("%w: %q is missing, which %s lists", ErrIncomplete, name, SumsName)
		}
		// For a source that could not bring SHA256SUMS first.
		if string(f.digest) != string(d.sums[name].Want) {
			return Fetched{}, fmt.Errorf("%w: file %q: it is not what %s says", ErrCorrupt, name, SumsName)
		}
		f.verified = true
		d.files[name] = f
	}
	if err := d.clear(); err != nil {
		return Fetched{}, fmt.Errorf("remove what is not of the version: %w", err)
	}
	got := Fetched{Files: len(d.files), Bytes: d.bytes, Verified: true}
	all := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		got.Verified = got.Verified && f.verified
		_, _ = fmt.Fprintf(all, "%x %d %s\n", f.digest, f.size, name) // a hash never fails
	}
	got.Digest = "sha256:" + hex.EncodeToString(all.Sum(nil))
	return got, nil
}

// clear removes what was not brought.
func (d *Dir) clear() error {
	return fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." || d.folders[name] {
			return err
		}
		if _, ok := d.files[name]; ok {
			return nil
		}
		if err := d.root.RemoveAll(name); err != nil {
			return err
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// whole is a reader that ends with its context.
type whole struct {
	ctx  context.Context //nolint:containedctx // of one copy
	from io.Reader
}

func (r whole) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(p)
}
