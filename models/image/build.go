package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ebb-inference/ebb/models/oci"
)

// Errors for callers that decide by them.
var (
	// ErrStacked says that a base has a model in it already. Describe has the base to take instead.
	ErrStacked = errors.New("there is a model in the base image already")
	// ErrBase says that no model can be put on a base.
	ErrBase = errors.New("not a base for models")
)

// Bounds on a base image.
const (
	maxPlatforms = 32
	maxConfig    = 4 << 20
)

// Registries has the images. It may be used by many at the same time.
type Registries struct {
	client *oci.Client
}

// New returns Registries that are spoken with through a client.
func New(client *oci.Client) *Registries { return &Registries{client} }

// base is a model server's image.
type base struct {
	ref  name.Reference
	desc *remote.Descriptor
}

// Build makes the image of a model on a base and sees to it that the repository has it. A base for several platforms makes an
// image for all of them, since the model is the same for each. Build may be repeated: it pushes only what is missing.
func (r *Registries) Build(ctx context.Context, on string, m Model, repository string) (Image, error) {
	if err := m.check(); err != nil {
		return Image{}, err
	}
	ref, err := oci.Reference(on)
	if err != nil {
		return Image{}, fmt.Errorf("base image: %w", err)
	}
	to, err := oci.Repository(repository)
	if err != nil {
		return Image{}, fmt.Errorf("repository for images of models: %w", err)
	}
	puller, err := r.client.Puller()
	if err != nil {
		return Image{}, err
	}
	from := base{ref: ref}
	if from.desc, err = puller.Get(ctx, ref); err != nil {
		return Image{}, fmt.Errorf("base image %s: %w", ref.Name(), oci.Explain(ctx, err))
	}
	made, err := newBuild(from, m).image()
	if err != nil {
		return Image{}, fmt.Errorf("image of %s version %d on %s: %w", m.Name, m.Version, ref.Name(), oci.Explain(ctx, err))
	}
	digest, err := made.what.Digest()
	if err != nil {
		return Image{}, err
	}
	if err := r.push(ctx, to.Tag(tag(m.Version, digest)), made.what); err != nil {
		return Image{}, fmt.Errorf("push image of %s version %d to %s: %w", m.Name, m.Version, to.Name(), oci.Explain(ctx, err))
	}
	image, err := fromLabels(made.labels)
	image.Ref = to.Digest(digest.String()).Name()
	return image, err
}

// tag is a name for people, by which registries tell what is used from what can be cleaned away. Each image has its own, so
// that it never changes what it names. It is not a number, so that who looks for versions does not find images of them.
func tag(version int64, digest v1.Hash) string {
	return strconv.FormatInt(version, 10) + "-" + digest.Hex[:16]
}

// pushable is an image, for one platform or for several.
type pushable interface {
	remote.Taggable
	Digest() (v1.Hash, error)
}

// push asks first what is there: the tag, then each platform's manifest, then each layer.
func (r *Registries) push(ctx context.Context, to name.Tag, what pushable) error {
	pusher, err := r.client.Pusher()
	if err != nil {
		return err
	}
	return pusher.Push(ctx, to, what)
}

// build is one image in the making.
type build struct {
	from   base
	model  Model
	layers map[layerKey]*layer // made already; platforms share them
}

type layerKey struct {
	at        string
	mediaType types.MediaType
}

type built struct {
	what   pushable
	labels map[string]string
}

func newBuild(from base, m Model) *build {
	return &build{from: from, model: m, layers: make(map[layerKey]*layer)}
}

func (b *build) image() (built, error) {
	switch {
	case b.from.desc.MediaType.IsIndex():
		return b.index()
	case b.from.desc.MediaType.IsImage():
		img, err := b.from.desc.Image()
		if err != nil {
			return built{}, err
		}
		return b.platform(img)
	}
	return built{}, fmt.Errorf("%w: it is of type %q, want an image or an index of OCI or Docker (schema 2)", ErrBase, b.from.desc.MediaType)
}

// index makes an image for each platform. What else is in an index, such as attestations, is about the base and stays there.
func (b *build) index() (built, error) {
	all, err := b.from.desc.ImageIndex()
	if err != nil {
		return built{}, err
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		return built{}, err
	}
	var made built
	var platforms []mutate.IndexAddendum
	for _, d := range manifest.Manifests {
		if !runs(d) {
			continue
		}
		if len(platforms) == maxPlatforms {
			return built{}, fmt.Errorf("%w: it is for more than %d platforms", ErrBase, maxPlatforms)
		}
		img, err := all.Image(d.Digest)
		if err != nil {
			return built{}, err
		}
		one, err := b.platform(img)
		if err != nil {
			return built{}, err
		}
		if made.labels == nil {
			made.labels = one.labels
		}
		platforms = append(platforms, mutate.IndexAddendum{Add: one.what.(mutate.Appendable), Descriptor: v1.Descriptor{Platform: d.Platform}})
	}
	if len(platforms) == 0 {
		return built{}, fmt.Errorf("%w: it is an index without images", ErrBase)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, b.from.desc.MediaType), platforms...)
	if b.from.desc.MediaType == types.OCIImageIndex {
		index = mutate.Annotations(index, made.labels).(v1.ImageIndex)
	}
	made.what = index
	return made, nil
}

// runs says whether an index's entry is an image that can be run.
func runs(d v1.Descriptor) bool {
	return d.MediaType.IsImage() && (d.Platform == nil || d.Platform.OS != "unknown")
}

// platform makes the image for one.
func (b *build) platform(from v1.Image) (built, error) {
	config, err := configOf(from)
	if err != nil {
		return built{}, err
	}
	if _, ok := config.Config.Labels[labelName]; ok {
		return built{}, ErrStacked
	}
	root, err := b.model.root(config.Config.Env)
	if err != nil {
		return built{}, fmt.Errorf("%w: KO_DATA_PATH: %w", ErrBase, err)
	}
	manifest, err := from.Manifest()
	if err != nil {
		return built{}, err
	}
	docker := manifest.MediaType == types.DockerManifestSchema2
	at := path.Join(root, b.model.Name, strconv.FormatInt(b.model.Version, 10))
	l, err := b.layer(root, at, docker)
	if err != nil {
		return built{}, err
	}
	said := labels(b.model, b.from, l, at)
	if config.Config.Labels == nil {
		config.Config.Labels = make(map[string]string, len(said))
	}
	maps.Copy(config.Config.Labels, said)
	img, err := mutate.ConfigFile(from, config)
	if err != nil {
		return built{}, err
	}
	img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{
		Created: v1.Time{Time: time.Unix(0, 0).UTC()}, CreatedBy: "ebb", Comment: fmt.Sprintf("%s version %d", b.model.Name, b.model.Version),
	}})
	if err != nil {
		return built{}, err
	}
	if !docker {
		img = mutate.Annotations(img, said).(v1.Image)
	}
	return built{img, said}, nil
}

func (b *build) layer(root, at string, docker bool) (*layer, error) {
	key := layerKey{at, types.OCILayer}
	if docker {
		key.mediaType = types.DockerLayer
	}
	if l, ok := b.layers[key]; ok {
		return l, nil
	}
	l, err := newLayer(b.model.Dir, root, at, key.mediaType)
	if err == nil {
		b.layers[key] = l
	}
	return l, err
}

// configOf reads the configuration of an image that can be run.
func configOf(img v1.Image) (*v1.ConfigFile, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if t := manifest.Config.MediaType; t != types.OCIConfigJSON && t != types.DockerConfigJSON {
		return nil, fmt.Errorf("%w: its configuration is of type %q; it is no image that can be run", ErrBase, t)
	}
	if manifest.Config.Size > maxConfig {
		return nil, fmt.Errorf("%w: its configuration has %d bytes, at most %d are allowed", ErrBase, manifest.Config.Size, maxConfig)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	return config.DeepCopy(), nil
}
