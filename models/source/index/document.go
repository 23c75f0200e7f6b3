package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ebb-inference/ebb/models/source"
)

// documentName is the file that says what is published; see the package's "index.json".
const documentName = "index.json"

type document struct {
	Versions []version `json:"versions"`
}

type version struct {
	Version int64  `json:"version"`
	Files   []file `json:"files"`
}

type file struct {
	Name   string `json:"name"`
	Size   *int64 `json:"size"`
	SHA256 string `json:"sha256"`
}

// document reads index.json. It is nil when there is none.
func (x *index) document(ctx context.Context) (*document, error) {
	got, err := x.client.get(ctx, x.base.JoinPath(documentName), x.cached)
	if isMissing(err) {
		x.cached = page{}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", documentName, err)
	}
	var doc document
	if err := json.Unmarshal(got.body, &doc); err != nil {
		return nil, fmt.Errorf("%s: it cannot be read: %w", documentName, err)
	}
	if err := doc.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", documentName, err)
	}
	x.cached = got
	return &doc, nil
}

// check says what is wrong with the list of versions. What is wrong with one version's files is that version's matter.
func (d *document) check() error {
	if d.Versions == nil {
		return errors.New(`it has no "versions"`)
	}
	seen := make(map[int64]bool)
	for i, v := range d.Versions {
		switch {
		case v.Version < 1:
			return fmt.Errorf(`versions[%d]: "version" must be a positive integer`, i)
		case seen[v.Version]:
			return fmt.Errorf("versions[%d]: version %d is listed twice", i, v.Version)
		}
		seen[v.Version] = true
	}
	return nil
}

// files returns a version's files.
func (d *document) files(number int64) ([]source.File, error) {
	i := slices.IndexFunc(d.Versions, func(v version) bool { return v.Version == number })
	if i < 0 {
		return nil, fmt.Errorf("%w in %s", source.ErrGone, documentName)
	}
	var files []source.File
	for j, f := range d.Versions[i].Files {
		want, err := hex.DecodeString(f.SHA256)
		if err != nil || len(want) != sha256.Size || f.Size == nil || *f.Size < 0 {
			return nil, fmt.Errorf(`%w: %s: versions[%d].files[%d] needs a "size" of at least 0, and a "sha256" of 64 hexadecimal digits`,
				source.ErrCorrupt, documentName, i, j)
		}
		files = append(files, source.File{Name: f.Name, Size: *f.Size, Sum: source.SHA256(want)})
	}
	return files, nil
}
