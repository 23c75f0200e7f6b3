package registry

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ebb-inference/ebb/models/source"
)

// maxRest bounds what an image may have besides the model: a system, a server. It is read and not kept.
const maxRest = 8 << 30

// fetch is a version being brought.
type fetch struct {
	puller *remote.Puller
	repo   name.Repository
	to     *source.Dir
	folder string // in the layers
	files  int    // brought
	left   int64  // bytes of tars that may still be read
	above  *above
}

func (f *fetch) bring(ctx context.Context, what version) error {
	for _, d := range what.files {
		if err := f.file(ctx, d); err != nil {
			return err
		}
	}
	for _, d := range what.tars {
		if err := f.tar(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// file brings a layer that is a file.
func (f *fetch) file(ctx context.Context, d v1.Descriptor) error {
	in, _, err := f.within(d.Annotations[title])
	if err != nil || in == "" {
		return err
	}
	sum, err := hex.DecodeString(d.Digest.Hex)
	if err != nil {
		return fmt.Errorf("%w: digest %q", source.ErrCorrupt, d.Digest)
	}
	file := source.File{Name: in, Size: d.Size}
	if d.Digest.Algorithm == "sha256" {
		file.Sum = source.SHA256(sum)
	}
	f.files++
	return f.to.Bring(ctx, file, func(ctx context.Context) (io.ReadCloser, error) { return f.open(ctx, d) })
}

// within says where in the version's folder something is that has a name in a layer; empty when it is elsewhere. The other
// result is its path in the layer.
func (f *fetch) within(name string) (in, at string, err error) {
	at = path.Clean("/" + name)
	if at == f.folder {
		return "", at, nil
	}
	in, ok := strings.CutPrefix(at, strings.TrimSuffix(f.folder, "/")+"/")
	if !ok {
		return "", at, nil
	}
	if "/"+name != at {
		return "", at, fmt.Errorf("%w: a file's name must not have empty parts, . and ..: %q", source.ErrCorrupt, name)
	}
	return in, at, nil
}

// open asks for a layer.
func (f *fetch) open(ctx context.Context, d v1.Descriptor) (*blob, error) {
	l, err := f.puller.Layer(ctx, f.repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, incomplete(ctx, err)
	}
	from, err := l.Compressed()
	if err != nil {
		return nil, incomplete(ctx, err)
	}
	return &blob{ctx: ctx, from: from, left: d.Size, digest: d.Digest}, nil
}

// blob is a layer as the registry sends it. It ends with io.EOF only when it was what its digest says.
type blob struct {
	ctx    context.Context //nolint:containedctx // of one layer
	from   io.ReadCloser   // which checks the digest at its end
	left   int64
	digest v1.Hash
	err    error // what ended it
}

func (b *blob) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0 || errors.Is(err, io.EOF) && b.left > 0:
		b.err = fmt.Errorf("%w: layer %s has not the size that it should have", source.ErrCorrupt, b.digest)
	case errors.Is(err, io.EOF):
		b.err = io.EOF
	case err != nil && b.left == 0 && b.ctx.Err() == nil:
		b.err = fmt.Errorf("%w: layer %s is not what its digest says", source.ErrCorrupt, b.digest)
	case err != nil:
		b.err = incomplete(b.ctx, err)
	}
	return n, b.err
}

func (b *blob) Close() error { return b.from.Close() }

// tar brings what a layer that is a tar has in the folder. A layer that is below others gives way to what they have.
func (f *fetch) tar(ctx context.Context, d v1.Descriptor) error {
	from, err := f.open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	content, err := uncompressed(from)
	if err == nil {
		defer func() { _ = content.Close() }() // as above
		err = f.entries(ctx, content)
	}
	if err == nil {
		// What comes after the end of the tar, and after that of its compression, counts for the digest.
		_, err = io.Copy(io.Discard, from)
	}
	switch {
	case from.err != nil && !errors.Is(from.err, io.EOF):
		return from.err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errTar):
		return fmt.Errorf("%w: layer %s is not a tar that can be read: %w", source.ErrCorrupt, d.Digest, err)
	}
	f.above.next()
	return err
}

// errTar says that reading a tar failed, and not what was done with it.
var errTar = errors.New("unreadable")

// uncompressed reads a layer whatever its compression: what says its media type is often not so.
func uncompressed(b *blob) (io.ReadCloser, error) {
	l, err := partial.CompressedToLayer(compressed{b})
	if err != nil {
		return nil, err
	}
	content, err := l.Uncompressed()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTar, err)
	}
	return content, nil
}

// compressed is a layer of which nobody asks anything but its content.
type compressed struct{ *blob }

func (c compressed) Digest() (v1.Hash, error)            { return c.digest, nil }
func (c compressed) Compressed() (io.ReadCloser, error)  { return io.NopCloser(c.blob), nil }
func (c compressed) Size() (int64, error)                { return c.left, nil }
func (c compressed) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (f *fetch) entries(ctx context.Context, content io.Reader) error {
	all := &readable{&bounded{content, &f.left}}
	for tr := tar.NewReader(all); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return unreadable(err)
		}
		if err := f.entry(ctx, h, &readable{tr}); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, all)
	return err
}

func (f *fetch) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	in, at, err := f.within(plain(h.Name))
	if err != nil {
		return err
	}
	if f.above.hides(at) {
		return nil
	}
	if hidden, ok := whiteout(at); ok {
		return f.hide(hidden)
	}
	switch {
	case in == "" && (at != f.folder || h.Typeflag == tar.TypeDir):
		return nil
	case h.Typeflag == tar.TypeDir:
		return nil
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("%w: %q is neither a file nor a folder", source.ErrCorrupt, h.Name)
	case in == "":
		return fmt.Errorf("%w: %q is not a folder", source.ErrCorrupt, h.Name)
	}
	f.files++
	f.above.add(at)
	return f.to.Bring(ctx, source.File{Name: in, Size: h.Size}, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(content), nil
	})
}

// plain is a name as most tars have it. In some they begin with ./ or /, and those of folders end with one.
func plain(name string) string {
	if rest, ok := strings.CutPrefix(name, "./"); ok {
		name = rest
	} else {
		name = strings.TrimPrefix(name, "/")
	}
	return strings.TrimSuffix(name, "/")
}

// hide takes something away from the layers below, if it has to do with the folder.
func (f *fetch) hide(at string) error {
	if !isIn(at, f.folder) && !isIn(f.folder, at) {
		return nil
	}
	return f.above.hide(at)
}

func isIn(at, dir string) bool {
	return at == dir || strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/")
}

// bounded reads tars, and no more of them than may be read.
type bounded struct {
	from io.Reader
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if *b.left <= 0 {
		return 0, fmt.Errorf("%w: the layers have more than the version may have, and %d bytes besides", source.ErrLimit, int64(maxRest))
	}
	n, err := b.from.Read(p[:min(int64(len(p)), *b.left)])
	*b.left -= int64(n)
	return n, err
}

// readable reads with errors that say that it was reading that failed, and not what is done with it.
type readable struct{ from io.Reader }

func (r *readable) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, unreadable(err)
}

func unreadable(err error) error {
	if errors.Is(err, source.ErrLimit) || errors.Is(err, errTar) {
		return err
	}
	return fmt.Errorf("%w: %w", errTar, err)
}
