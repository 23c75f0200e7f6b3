package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// SumsName is the file with the checksums of a version's other files, as sha256sum writes it. See the package's "Publishing".
const SumsName = "SHA256SUMS"

// maxSums bounds its size.
const maxSums = 4 << 20

// parseSums reads a SHA256SUMS. That it lists itself, as `sha256sum * >SHA256SUMS` makes it do, means nothing.
func parseSums(text string) (map[string]Sum, error) {
	sums := make(map[string]Sum)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		digits, name, ok := strings.Cut(line, " ")
		want, err := hex.DecodeString(digits)
		// After the first space comes another one, or a star for a file that was read as binary.
		if !ok || err != nil || len(want) != sha256.Size || len(name) < 2 || name[0] != ' ' && name[0] != '*' {
			return nil, fmt.Errorf("%w: %s has a line that is not a SHA-256 and a name, as sha256sum writes them", ErrCorrupt, SumsName)
		}
		name = strings.TrimPrefix(name[1:], "./")
		if name == SumsName {
			continue
		}
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", SumsName, err)
		}
		if old, ok := sums[name]; ok && string(old.Want) != string(want) {
			return nil, fmt.Errorf("%w: %s has two checksums of %q", ErrCorrupt, SumsName, name)
		}
		sums[name] = SHA256(want)
	}
	return sums, nil
}

// SumsFirst orders names of files as they are best brought: SHA256SUMS first.
func SumsFirst(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == SumsName:
		return -1
	case b == SumsName:
		return 1
	}
	return strings.Compare(a, b)
}
