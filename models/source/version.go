package source

import (
	"fmt"
	"slices"
	"strconv"
)

// maxNames bounds how many names a place may list that are no versions.
const maxNames = 100_000

// ParseVersion reads the name of a version's folder: a positive decimal number without sign and leading zeros, so that each
// version has one name.
func ParseVersion(name string) (int64, bool) {
	version, err := strconv.ParseInt(name, 10, 64)
	return version, err == nil && version > 0 && strconv.FormatInt(version, 10) == name
}

// Listing gathers the versions of a place from the names that it lists.
type Listing struct {
	limits Limits
	names  int
	found  []int64
}

// NewListing returns an empty one.
func NewListing(limits Limits) *Listing { return &Listing{limits: limits.WithDefaults()} }

// Add takes a name. One that is no version is skipped; the error is ErrLimit.
func (l *Listing) Add(name string) error {
	if l.names++; l.names > maxNames {
		return fmt.Errorf("%w: more than %d names are listed", ErrLimit, maxNames)
	}
	version, ok := ParseVersion(name)
	if !ok || slices.Contains(l.found, version) {
		return nil
	}
	if len(l.found) == l.limits.Versions {
		return fmt.Errorf("%w: more than %d versions are listed", ErrLimit, l.limits.Versions)
	}
	l.found = append(l.found, version)
	return nil
}

// Versions returns what was found, ascending.
func (l *Listing) Versions() []int64 {
	slices.Sort(l.found)
	return l.found
}
