package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Bounds on a model's folder.
const maxFiles = 10_000

// layer is a model's folder as a layer of an image. It is never anywhere but in the folder: whoever reads it reads a tar that
// is made of the files on the way, and gets the same bytes each time.
//
// It is gzip without compression. What compresses nothing makes the same bytes for ever, whereas a compressor's output changes
// with its versions, and with it the digest of the same model. Weights do not compress well enough to make up for that (the
// quantised Inception v3 to 71 %, and a node that pulls it at a cold start pays for it in CPU). Layers with no gzip around them at
// all are not accepted by all registries in images of Docker's types.
type layer struct {
	dir       string
	entries   []entry
	mediaType types.MediaType
	size      int64 // of the tar
	digest    v1.Hash
	diffID    v1.Hash
}

// entry is one file or folder of a layer.
type entry struct {
	header []byte // as it is in the tar
	file   string // in the model's folder; empty for a folder
	size   int64
}

// newLayer reads the model's folder once. In the image it has the path, which begins with the folder of networks, root.
func newLayer(dir, root, at string, mediaType types.MediaType) (*layer, error) {
	l := &layer{dir: dir, mediaType: mediaType}
	// Folders above root are the base image's business: they may be links there, which a folder in a layer would replace.
	for folder := at; strings.HasPrefix(folder+"/", root+"/"); folder = path.Dir(folder) {
		above, err := newEntry(folder, "", 0)
		if err != nil {
			return nil, err
		}
		l.entries = append([]entry{above}, l.entries...)
	}
	if err := l.scan(at); err != nil {
		return nil, fmt.Errorf("model's folder: %w", err)
	}
	for _, e := range l.entries {
		l.size += int64(len(e.header)) + e.size + padding(e.size)
	}
	l.size += int64(len(end))
	if err := l.sum(); err != nil {
		return nil, fmt.Errorf("model's folder: %w", err)
	}
	return l, nil
}

// scan adds what is in the folder, in the order of names.
func (l *layer) scan(at string) error {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // it is only read
	files := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		var e entry
		switch {
		case d.IsDir():
			e, err = newEntry(path.Join(at, name), "", 0)
		case d.Type().IsRegular():
			var info fs.FileInfo
			if info, err = d.Info(); err != nil {
				return err
			}
			if files++; files > maxFiles {
				return fmt.Errorf("there are more than %d files", maxFiles)
			}
			e, err = newEntry(path.Join(at, name), name, info.Size())
		default:
			return fmt.Errorf("%q is neither a file nor a folder", name)
		}
		l.entries = append(l.entries, e)
		return err
	})
	if err == nil && files == 0 {
		err = errors.New("there are no files")
	}
	return err
}

func newEntry(at, file string, size int64) (entry, error) {
	h := tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(at, "/"), Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if file == "" {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
		h.Name += "/"
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		return entry{}, fmt.Errorf("%q: %w", at, err)
	}
	return entry{b.Bytes(), file, size}, nil
}

// block is what a tar is made of, and end is the end of one.
const block = 512

var end = make([]byte, 2*block)

func padding(size int64) int64 { return -size & (block - 1) }

// sum computes the digests, of the tar and of what is pushed.
func (l *layer) sum() error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	content, pushed := sha256.New(), sha256.New()
	if _, err := io.Copy(pushed, store(io.TeeReader(r, content), l.size)); err != nil {
		return err
	}
	l.diffID, l.digest = hashOf(content), hashOf(pushed)
	return nil
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// Digest is of what is pushed.
func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the tar.
func (l *layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size is of what is pushed.
func (l *layer) Size() (int64, error) { return storedSize(l.size), nil }

// MediaType is of the base image's family.
func (l *layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed reads what is pushed.
func (l *layer) Compressed() (io.ReadCloser, error) {
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{store(r, l.size), r}, nil
}

// Uncompressed reads the tar.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, fmt.Errorf("model's folder: %w", err)
	}
	return &tarReader{root: root, left: l.entries, now: bytes.NewReader(nil)}, nil
}

// tarReader makes a tar of the entries while it is read, with one file open at a time.
type tarReader struct {
	root  *os.Root
	left  []entry
	now   io.Reader
	open  *os.File
	ended bool
}

func (t *tarReader) Read(p []byte) (int, error) {
	for {
		n, err := t.now.Read(p)
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		if err == nil {
			continue
		}
		if err := t.next(); err != nil {
			return 0, err
		}
	}
}

// next turns to the next entry.
func (t *tarReader) next() error {
	if err := t.closeFile(); err != nil {
		return err
	}
	if t.ended {
		return io.EOF
	}
	if len(t.left) == 0 {
		t.ended = true
		t.now = bytes.NewReader(end)
		return nil
	}
	e := t.left[0]
	t.left = t.left[1:]
	if e.file == "" {
		t.now = bytes.NewReader(e.header)
		return nil
	}
	var err error
	if t.open, err = t.root.Open(e.file); err != nil {
		return err
	}
	t.now = io.MultiReader(bytes.NewReader(e.header), &exactly{t.open, e.file, e.size}, bytes.NewReader(end[:padding(e.size)]))
	return nil
}

func (t *tarReader) closeFile() error {
	if t.open == nil {
		return nil
	}
	err := t.open.Close()
	t.open = nil
	return err
}

func (t *tarReader) Close() error { return errors.Join(t.closeFile(), t.root.Close()) }

// exactly reads a file of a size that is known.
type exactly struct {
	from io.Reader
	name string
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.from.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		return n, fmt.Errorf("file %q became shorter while it was read", e.name)
	}
	return n, err
}
