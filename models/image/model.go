package image

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Model is a network's version on its way into an image.
type Model struct {
	Name    string // of the network, as the server knows it
	Version int64
	Dir     string // where its files are, on this machine
	Digest  string // of its files, "sha256:…"
	Source  string // the URL it was published at; may be empty
	// Root is the folder in which the server looks for networks. Empty: what the server's image says, that is models in
	// KO_DATA_PATH if it was made by ko, and otherwise /models, as TensorFlow Serving's.
	Root string
}

// ErrModel says that a Model is not one.
var ErrModel = errors.New("not a model for an image")

// networkName is what can be a folder everywhere. It is stricter than a model server.
var networkName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// maxSource bounds the length of a source's URL.
const maxSource = 2048

func (m Model) check() error {
	if !networkName.MatchString(m.Name) {
		return fmt.Errorf("%w: the name %q is not made of letters, digits and _.-, or is longer than 128", ErrModel, m.Name)
	}
	if m.Version < 1 {
		return fmt.Errorf("%w: version %d is not a positive number", ErrModel, m.Version)
	}
	if _, err := v1.NewHash(m.Digest); err != nil {
		return fmt.Errorf("%w: the digest of its files is not one", ErrModel)
	}
	if u, err := url.Parse(m.Source); err != nil || u.User != nil || len(m.Source) > maxSource {
		return fmt.Errorf("%w: its source is not a URL, has a user in it or is longer than %d", ErrModel, maxSource)
	}
	if m.Root != "" {
		if err := checkRoot(m.Root); err != nil {
			return fmt.Errorf("%w: folder of networks: %w", ErrModel, err)
		}
	}
	return nil
}

// checkRoot says whether a folder of an image can be that of networks.
func checkRoot(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s || s == "/" {
		return fmt.Errorf("%q is not an absolute path of a folder, without a slash at its end", s)
	}
	return nil
}

// root is the folder in which the server of an image looks for networks.
func (m Model) root(env []string) (string, error) {
	if m.Root != "" {
		return m.Root, nil
	}
	const ko = "KO_DATA_PATH="
	for _, e := range env {
		if len(e) > len(ko) && e[:len(ko)] == ko {
			root := path.Join(e[len(ko):], "models")
			return root, checkRoot(root)
		}
	}
	return "/models", nil
}
