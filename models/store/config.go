package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Model says which versions of a model are served, and from where.
type Model struct {
	Name string
	// Path is the folder with a folder for each version. It is the base folder or lies below it, as an absolute or a
	// relative path. Default: the folder of the model's name in the base folder.
	Path   string
	Policy Policy
	// Labels are names for versions, such as "stable" and "canary".
	Labels map[string]int64
}

// Policy says which versions of a model are kept loaded. At most one field is set; the zero value is the latest version.
type Policy struct {
	Latest   int     // the newest so many of the versions that can be loaded
	Specific []int64 // these versions
	All      bool    // every version
}

// maxName bounds the names of models and labels.
const maxName = 128

// check validates a whole configuration and returns it by name, with absolute paths.
func (s *Store[S]) check(models []Model) (map[string]Model, error) {
	checked := make(map[string]Model, len(models))
	for _, m := range models {
		if err := checkName(m.Name); err != nil {
			return nil, fmt.Errorf("%w: model name %q: %w", ErrConfig, m.Name, err)
		}
		if _, ok := checked[m.Name]; ok {
			return nil, fmt.Errorf("%w: model %q is named twice", ErrConfig, m.Name)
		}
		path, err := s.path(m)
		if err != nil {
			return nil, fmt.Errorf("%w: model %q: %w", ErrConfig, m.Name, err)
		}
		m.Path = path
		if err := m.Policy.check(); err != nil {
			return nil, fmt.Errorf("%w: model %q: %w", ErrConfig, m.Name, err)
		}
		for label, version := range m.Labels {
			switch err := checkName(label); {
			case err != nil:
				return nil, fmt.Errorf("%w: model %q: label %q: %w", ErrConfig, m.Name, label, err)
			case version < 1:
				return nil, fmt.Errorf("%w: model %q: label %q: version %d is not a positive number", ErrConfig, m.Name, label, version)
			case m.Policy.Specific != nil && !slices.Contains(m.Policy.Specific, version):
				return nil, fmt.Errorf("%w: model %q: label %q: version %d is not among the versions to load", ErrConfig, m.Name, label, version)
			}
		}
		checked[m.Name] = m
	}
	return checked, nil
}

// path returns a model's folder. A configuration may come over the network, so it must not lead out of the base folder.
// Links within the base folder are followed: whoever can make them can place models too.
func (s *Store[S]) path(m Model) (string, error) {
	if m.Path == "" {
		return filepath.Join(s.base, m.Name), nil
	}
	rel := m.Path
	if filepath.IsAbs(rel) {
		var err error
		if rel, err = filepath.Rel(s.base, rel); err != nil {
			return "", fmt.Errorf("path %q: %w", m.Path, err)
		}
	}
	if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("path %q is not in the base folder %q", m.Path, s.base)
	}
	return filepath.Join(s.base, rel), nil
}

func (p Policy) check() error {
	set := 0
	for _, is := range []bool{p.Latest != 0, p.Specific != nil, p.All} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return errors.New("version policy: only one of latest, specific and all may be set")
	case p.Latest < 0:
		return fmt.Errorf("version policy: latest %d versions", p.Latest)
	case p.Specific != nil && len(p.Specific) == 0:
		return errors.New("version policy: no specific version is named")
	case slices.ContainsFunc(p.Specific, func(v int64) bool { return v < 1 }):
		return fmt.Errorf("version policy: versions are positive numbers, got %d", p.Specific)
	}
	return nil
}

// wants says whether a version is to be loaded, given how many newer ones already are.
func (p Policy) wants(version int64, newer int) bool {
	switch {
	case p.All:
		return true
	case p.Specific != nil:
		return slices.Contains(p.Specific, version)
	default:
		return newer < max(p.Latest, 1)
	}
}

// checkName holds names to what can be a folder and a part of a URL: no separators, nothing hidden.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxName:
		return fmt.Errorf("is longer than %d bytes", maxName)
	case strings.HasPrefix(name, "."):
		return errors.New("starts with a dot")
	case strings.ContainsAny(name, `/\:?#%`):
		return errors.New(`must not contain any of / \ : ? # %`)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }):
		return errors.New("must not contain spaces or unprintable characters")
	}
	return nil
}
