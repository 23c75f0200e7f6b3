package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/ebb-inference/ebb/models/oci"
)

var (
	// ErrGone says that there is no such image.
	ErrGone = errors.New("no such image")
	// ErrUnsupported says that the registry lets nobody remove images this way. Its own cleaning can.
	ErrUnsupported = errors.New("registry does not let images be removed")
)

// Describe says what an image is made of. ErrNotModel when it was not made here.
func (r *Registries) Describe(ctx context.Context, image string) (Image, error) {
	found, err := r.find(ctx, image)
	return found.image, err
}

// found is an image as the registry has it.
type found struct {
	image     Image
	repo      name.Repository
	digest    v1.Hash
	platforms []v1.Hash // of an index
}

func (r *Registries) find(ctx context.Context, image string) (found, error) {
	ref, err := oci.Reference(image)
	if err != nil {
		return found{}, err
	}
	puller, err := r.client.Puller()
	if err != nil {
		return found{}, err
	}
	desc, err := puller.Get(ctx, ref)
	if oci.IsGone(err) {
		return found{}, fmt.Errorf("%s: %w", ref.Name(), ErrGone)
	}
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", ref.Name(), oci.Explain(ctx, err))
	}
	f := found{repo: ref.Context(), digest: desc.Digest}
	first, err := f.first(desc)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", ref.Name(), oci.Explain(ctx, err))
	}
	if f.image, err = Read(first); err != nil {
		return found{}, fmt.Errorf("%s: %w", ref.Name(), oci.Explain(ctx, err))
	}
	f.image.Ref = f.repo.Digest(desc.Digest.String()).Name()
	return f, nil
}

// first returns the image, or that of the first platform: what is said of the model is the same in all of them.
func (f *found) first(desc *remote.Descriptor) (v1.Image, error) {
	if !desc.MediaType.IsIndex() {
		if !desc.MediaType.IsImage() {
			return nil, ErrNotModel
		}
		return desc.Image()
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		if runs(d) && len(f.platforms) < maxPlatforms {
			f.platforms = append(f.platforms, d.Digest)
		}
	}
	if len(f.platforms) == 0 {
		return nil, ErrNotModel
	}
	return index.Image(f.platforms[0])
}

// Remove takes an image that was made here out of the registry. What is not there is removed; what was not made here is not
// (ErrNotModel). ErrUnsupported when the registry does not allow it.
func (r *Registries) Remove(ctx context.Context, image string) error {
	f, err := r.find(ctx, image)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	pusher, err := r.client.Pusher()
	if err != nil {
		return err
	}
	// Some registries remove nothing that has a tag, others cannot remove a tag; the removal of the image itself shows which.
	_ = pusher.Delete(ctx, f.repo.Tag(tag(f.image.Version, f.digest)))
	// Images of platforms last: registries keep what an index needs.
	for _, digest := range append([]v1.Hash{f.digest}, f.platforms...) {
		switch err := pusher.Delete(ctx, f.repo.Digest(digest.String())); {
		case err == nil || oci.IsGone(err):
		case oci.IsUnsupported(err):
			return fmt.Errorf("%s: %w", f.image.Ref, ErrUnsupported)
		default:
			return fmt.Errorf("remove %s: %w", f.image.Ref, oci.Explain(ctx, err))
		}
	}
	return nil
}
