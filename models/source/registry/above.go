package registry

import (
	"fmt"
	"path"
	"strings"

	"github.com/ebb-inference/ebb/models/source"
)

// Names by which a layer takes away what is below it (OCI image specification, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaque         = ".wh..wh..opq"
)

// whiteout says what a layer takes away with an entry.
func whiteout(at string) (hidden string, ok bool) {
	dir, base := path.Split(at)
	switch {
	case base == opaque:
		return path.Clean(dir), true
	case strings.HasPrefix(base, whiteoutPrefix):
		return path.Join(dir, strings.TrimPrefix(base, whiteoutPrefix)), true
	}
	return "", false
}

// above is what the layers have that are above the one that is read. Layers are read from the uppermost on, so that each file
// is brought once.
type above struct {
	hidden  map[string]bool // with all that is in them
	folders map[string]bool // in which there are files
	now     []string        // hidden by the layer that is read, from those below it
	files   []string        // of the layer that is read
	max     int             // whiteouts
}

func newAbove(limit int) *above {
	return &above{hidden: make(map[string]bool), folders: make(map[string]bool), max: limit}
}

// hides says whether an entry of the layer gives way.
func (a *above) hides(at string) bool {
	if a.folders[at] {
		return true
	}
	for ; ; at = path.Dir(at) {
		if a.hidden[at] {
			return true
		}
		if at == "/" {
			return false
		}
	}
}

// hide takes something away from the layers below.
func (a *above) hide(at string) error {
	if len(a.hidden)+len(a.now) >= a.max {
		return fmt.Errorf("%w: the layers take away more than %d files", source.ErrLimit, a.max)
	}
	a.now = append(a.now, at)
	return nil
}

// add says that the layer has a file.
func (a *above) add(at string) { a.files = append(a.files, at) }

// next turns to the layer below.
func (a *above) next() {
	for _, at := range a.files {
		a.hidden[at] = true
		for dir := path.Dir(at); !a.folders[dir] && dir != "/"; dir = path.Dir(dir) {
			a.folders[dir] = true
		}
	}
	for _, at := range a.now {
		a.hidden[at] = true
	}
	a.files, a.now = nil, nil
}
