package source

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on the name of a file.
const (
	maxName  = 512 // bytes
	maxDepth = 16  // folders
)

// CheckName says whether a version's file may have this name: a relative path with slashes that stays in its folder whatever
// the system, and that can be shown in a line of text. Dir asks it itself; it is for sources that use a name before.
func CheckName(name string) error {
	var bad string
	switch {
	case len(name) > maxName:
		return fmt.Errorf("%w: a file's name has %d bytes, at most %d are allowed", ErrCorrupt, len(name), maxName)
	case !fs.ValidPath(name) || name == ".":
		bad = "must be a relative path without empty parts, . and .."
	case strings.Contains(name, `\`):
		bad = `has a \`
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }):
		bad = "has characters that cannot be shown"
	case strings.Count(name, "/") > maxDepth:
		bad = fmt.Sprintf("is nested more than %d deep", maxDepth)
	case name == partName || strings.HasPrefix(name, partName+"/"):
		bad = "is used while files are brought"
	default:
		return nil
	}
	return fmt.Errorf("%w: a file's name %s: %q", ErrCorrupt, bad, name)
}
