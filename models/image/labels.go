package image

import (
	"errors"
	"fmt"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ebb-inference/ebb/models/oci"
)

// ErrNotModel says that an image was not made by this package.
var ErrNotModel = errors.New("not an image of a model")

// Image is an image of a network's version.
type Image struct {
	Ref     string // its name, by digest
	Base    string // name of the model server's image that it was made of, by digest
	Name    string // of the network
	Version int64
	Digest  string // of the version's files
	Source  string // where it was published
	Folder  string // where its files are in the image
	Layer   string // digest of the layer that they are in
}

// What an image is made of is in the labels of its configuration, which every registry keeps, and in images of OCI's types also
// in the annotations of its manifest, which tools show. The base's labels that say what the server is stay as they are.
const (
	labelName    = "dev.ebb.model.name"
	labelVersion = "dev.ebb.model.version"
	labelDigest  = "dev.ebb.model.digest"
	labelSource  = "dev.ebb.model.source"
	labelFolder  = "dev.ebb.model.folder"
	labelLayer   = "dev.ebb.model.layer"

	labelBaseName   = "org.opencontainers.image.base.name"
	labelBaseDigest = "org.opencontainers.image.base.digest"
)

// labels returns what is written into an image.
func labels(m Model, from base, l *layer, at string) map[string]string {
	said := map[string]string{
		labelName: m.Name, labelVersion: strconv.FormatInt(m.Version, 10), labelDigest: m.Digest,
		labelFolder: at, labelLayer: l.digest.String(),
		labelBaseName: from.ref.Name(), labelBaseDigest: from.desc.Digest.String(),
	}
	if m.Source != "" {
		said[labelSource] = m.Source
	}
	return said
}

// Read says what an image is made of, all but its own name. ErrNotModel when it was not made here.
func Read(img v1.Image) (Image, error) {
	config, err := configOf(img)
	if errors.Is(err, ErrBase) {
		return Image{}, ErrNotModel
	}
	if err != nil {
		return Image{}, err
	}
	return fromLabels(config.Config.Labels)
}

func fromLabels(labels map[string]string) (Image, error) {
	if _, ok := labels[labelName]; !ok {
		return Image{}, ErrNotModel
	}
	version, err := strconv.ParseInt(labels[labelVersion], 10, 64)
	if err != nil || version < 1 {
		return Image{}, fmt.Errorf("%w: label %s is %q", ErrNotModel, labelVersion, labels[labelVersion])
	}
	ref, err := oci.Reference(labels[labelBaseName])
	if err != nil {
		return Image{}, fmt.Errorf("%w: label %s: %w", ErrNotModel, labelBaseName, err)
	}
	for _, label := range []string{labelBaseDigest, labelDigest, labelLayer} {
		if _, err := v1.NewHash(labels[label]); err != nil {
			return Image{}, fmt.Errorf("%w: label %s is not a digest", ErrNotModel, label)
		}
	}
	if err := checkRoot(labels[labelFolder]); err != nil {
		return Image{}, fmt.Errorf("%w: label %s: %w", ErrNotModel, labelFolder, err)
	}
	return Image{
		Base: ref.Context().Digest(labels[labelBaseDigest]).Name(), Name: labels[labelName], Version: version,
		Digest: labels[labelDigest], Source: labels[labelSource], Folder: labels[labelFolder], Layer: labels[labelLayer],
	}, nil
}
