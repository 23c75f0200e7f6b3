// Package registry is the source of versions that are published in a registry of images, as tags that are numbers:
// oci://registry.example/models/resnet has version 3 as registry.example/models/resnet:3.
//
// A version is one of these:
//
//   - an image that models/image made: it says itself where its files are, and only their layer is read;
//   - another image with the files in the folder /models, as KServe's modelcars have them. All of its layers are read;
//   - an artifact as ORAS makes it: a layer a file, which has its name as the annotation org.opencontainers.image.title, or
//     layers that are tars.
//
// Where the files are in another folder, the URL says so: oci://registry.example/models/resnet?path=/srv/resnet/{version}.
//
// A registry knows the digest of everything that it has, so what is fetched is verified, and has a version completely or not.
package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ebb-inference/ebb/models/image"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
)

// Scheme is the URL's.
const Scheme = "oci"

// Names that others gave.
const (
	title  = "org.opencontainers.image.title" // of the file that a layer is
	unpack = "io.deis.oras.content.unpack"    // a layer is a tar, whatever its title

	modelcar = "/models" // where images have models that say nothing of it
)

// maxManifest bounds what is read of a version's description.
const maxManifest = 8 << 20

// Opener opens repositories.
func Opener(o oci.Options) source.Opener {
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		repo, err := oci.Repository(at.Host + strings.TrimSuffix(at.Path, "/"))
		if err != nil {
			return nil, fmt.Errorf("%w: write oci://registry/repository, without a tag: %w", source.ErrURL, err)
		}
		folder, err := folderOf(at)
		if err != nil {
			return nil, err
		}
		return &registry{oci.New(o), repo, folder, limits.WithDefaults()}, nil
	}
}

// folderOf reads the URL's query.
func folderOf(at *url.URL) (string, error) {
	query, err := url.ParseQuery(at.RawQuery)
	if err != nil {
		return "", fmt.Errorf("%w: its ?query cannot be read", source.ErrURL)
	}
	folder := ""
	for key, values := range query {
		if key != "path" || len(values) != 1 {
			return "", fmt.Errorf("%w: its ?query can have one path and nothing else", source.ErrURL)
		}
		folder = values[0]
		if !path.IsAbs(folder) || path.Clean(folder) != folder {
			return "", fmt.Errorf("%w: ?path is an absolute path in the image, as /srv/model", source.ErrURL)
		}
	}
	return folder, nil
}

type registry struct {
	client *oci.Client
	repo   name.Repository
	folder string // as the URL has it; empty without one
	limits source.Limits
}

// Close frees connections.
func (r *registry) Close() error {
	r.client.Close()
	return nil
}

// Versions lists the tags that are numbers.
func (r *registry) Versions(ctx context.Context) ([]int64, error) {
	puller, err := r.client.Puller()
	if err != nil {
		return nil, err
	}
	pages, err := puller.Lister(ctx, r.repo)
	if err != nil {
		return nil, oci.Explain(ctx, err)
	}
	found := source.NewListing(r.limits)
	for pages.HasNext() {
		page, err := pages.Next(ctx)
		if err != nil {
			return nil, oci.Explain(ctx, err)
		}
		for _, tag := range page.Tags {
			if err := found.Add(tag); err != nil {
				return nil, err
			}
		}
	}
	return found.Versions(), nil
}

// Fetch brings the files of what a tag names.
func (r *registry) Fetch(ctx context.Context, version int64, dir string) (source.Fetched, error) {
	puller, err := r.client.Puller()
	if err != nil {
		return source.Fetched{}, err
	}
	tag := r.repo.Tag(strconv.FormatInt(version, 10))
	desc, err := puller.Get(ctx, tag)
	if oci.IsGone(err) {
		return source.Fetched{}, fmt.Errorf("%w: there is no %s", source.ErrGone, tag.Name())
	}
	if err != nil {
		return source.Fetched{}, oci.Explain(ctx, err)
	}
	img, err := one(desc)
	if err != nil {
		return source.Fetched{}, incomplete(ctx, err)
	}
	what, err := r.find(img, version)
	if err != nil {
		return source.Fetched{}, incomplete(ctx, err)
	}
	to, err := source.NewDir(dir, r.limits)
	if err != nil {
		return source.Fetched{}, err
	}
	defer func() { _ = to.Close() }() // what was written is checked by Finish
	f := &fetch{
		puller: puller, repo: r.repo, to: to, folder: what.folder,
		left: min(r.limits.Bytes, math.MaxInt64-maxRest) + maxRest, above: newAbove(r.limits.Files),
	}
	if err := f.bring(ctx, what); err != nil {
		return source.Fetched{}, err
	}
	got, err := to.Finish()
	if err != nil {
		if errors.Is(err, source.ErrIncomplete) && f.files == 0 {
			err = fmt.Errorf("%w: there are no files in %s of %s; the URL says where they are with ?path=/folder or ?path=/folder/{version}",
				source.ErrIncomplete, what.folder, tag.Name())
		}
		return source.Fetched{}, err
	}
	if what.digest != "" && got.Digest != what.digest {
		return source.Fetched{}, fmt.Errorf("%w: its files are not those that %s says that it has", source.ErrCorrupt, tag.Name())
	}
	got.Verified = true // each layer was read to its end, and was what its digest says
	return got, nil
}

// one returns the image that a tag names: of several platforms the first one's, since a model is the same for all.
func one(desc *remote.Descriptor) (v1.Image, error) {
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("%w: its manifest has more than %d bytes", source.ErrLimit, maxManifest)
	}
	if !desc.MediaType.IsIndex() {
		if !desc.MediaType.IsImage() {
			return nil, fmt.Errorf("%w: it is of type %q, want an image or an artifact", source.ErrCorrupt, desc.MediaType)
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
		// The unknown platform is that of what is said of images, such as attestations.
		if d.MediaType.IsImage() && d.Size <= maxManifest && (d.Platform == nil || d.Platform.OS != "unknown") {
			return index.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("%w: it is an index without images", source.ErrCorrupt)
}

// version is where the files of a version are.
type version struct {
	folder string          // in the layers
	files  []v1.Descriptor // layers that are files
	tars   []v1.Descriptor // layers that are folders, the uppermost first
	digest string          // of the files, if it is known
}

// find says where the files are.
func (r *registry) find(img v1.Image, number int64) (version, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return version{}, err
	}
	folder := strings.ReplaceAll(r.folder, "{version}", strconv.FormatInt(number, 10))
	if isArtifact(manifest) {
		return artifact(manifest, folder), nil
	}
	layers := slices.Clone(manifest.Layers)
	slices.Reverse(layers)
	what := version{folder: folder, tars: layers}
	if folder != "" {
		return what, nil
	}
	what.folder = modelcar
	made, err := image.Read(img)
	if errors.Is(err, image.ErrNotModel) {
		return what, nil
	}
	if err != nil {
		return version{}, err
	}
	what.folder, what.digest = made.Folder, made.Digest
	// Somebody may have squashed the layers of an image and kept what it says.
	if i := slices.IndexFunc(layers, func(d v1.Descriptor) bool { return d.Digest.String() == made.Layer }); i >= 0 {
		what.tars = layers[i : i+1]
	}
	return what, nil
}

// isArtifact tells what is not an image from what is.
func isArtifact(manifest *v1.Manifest) bool {
	switch manifest.Config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON:
		return slices.ContainsFunc(manifest.Layers, func(d v1.Descriptor) bool { return d.Annotations[title] != "" })
	}
	return true
}

func artifact(manifest *v1.Manifest, folder string) version {
	what := version{folder: folder}
	if folder == "" {
		what.folder = "/"
	}
	for _, d := range manifest.Layers {
		mediaType := string(d.MediaType)
		switch {
		case d.Annotations[title] != "" && d.Annotations[unpack] != "true":
			what.files = append(what.files, d)
		case strings.HasSuffix(mediaType, ".tar") || strings.Contains(mediaType, ".tar+") || strings.HasSuffix(mediaType, ".tar.gzip"),
			d.Annotations[unpack] == "true":
			what.tars = append(what.tars, d)
		}
	}
	slices.SortStableFunc(what.files, func(a, b v1.Descriptor) int { return source.SumsFirst(a.Annotations[title], b.Annotations[title]) })
	return what
}

// incomplete says of what the registry does not have that something else says that it has.
func incomplete(ctx context.Context, err error) error {
	if oci.IsGone(err) && ctx.Err() == nil {
		return fmt.Errorf("%w: the registry has lost a part of it: %w", source.ErrIncomplete, oci.Explain(ctx, err))
	}
	return oci.Explain(ctx, err)
}
