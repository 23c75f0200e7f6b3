// Package download gets files from the web whose checksums nobody could write down beforehand: the first download of an address is
// trusted and its checksum kept in a file, and every later one has to be the same. What has a checksum in the source code is got by
// hack/fetch.
package download

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-inference/ebb/hack/command"
)

// ErrChecksum is wrapped when a file is not what it was the first time.
var ErrChecksum = errors.New("wrong checksum")

// Downloader gets files with curl.
type Downloader struct {
	Runner *command.Runner
	Sums   string // the file of checksums
}

// Get gets a file, unless it is there and right. It is under its name only once it is checked.
func (d Downloader) Get(ctx context.Context, url, file string) error {
	if d.Runner.DryRun {
		return d.Runner.Run(ctx, fetch(url, file))
	}
	sums, err := readSums(d.Sums)
	if err != nil {
		return err
	}
	if sum, err := sumOf(file); err == nil && sum == sums[url] {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := d.Runner.Run(ctx, fetch(url, file)); err != nil {
		return err
	}
	sum, err := sumOf(part(file))
	if err != nil {
		return err
	}
	switch want, known := sums[url]; {
	case !known:
		if err := appendSum(d.Sums, sum, url); err != nil {
			return err
		}
		d.Runner.Say("    trusted, as this is the first time: %s; its checksum is now in %s", url, d.Sums)
	case sum != want:
		return errors.Join(fmt.Errorf("%w: %s is %s and was %s; do not use it: somebody changed it on the way, or there. If you know why, remove its line from %s",
			ErrChecksum, url, sum, want, d.Sums), os.Remove(part(file)))
	}
	return os.Rename(part(file), file)
}

// part is where a file is until it is known to be right.
func part(file string) string { return file + ".part" }

func fetch(url, file string) command.Command {
	c := command.New("curl", "--fail", "--silent", "--show-error", "--location", "--proto", "=https", "--retry", "3",
		"--max-time", "600", "--max-filesize", "268435456", "--output", part(file), url)
	c.Hint = "this needs the whole internet: check the network and HTTPS_PROXY, then run it again"
	return c
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readSums reads lines of a checksum and an address. A file that is not there has none.
func readSums(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums := map[string]string{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			fields := strings.Fields(line)
			if len(fields) != 2 || len(fields[0]) != hex.EncodedLen(sha256.Size) {
				return nil, fmt.Errorf("%s, line %d: not a checksum and an address", file, n)
			}
			sums[fields[1]] = fields[0]
		}
	}
	return sums, lines.Err()
}

func appendSum(file, sum, url string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", sum, url)
	return errors.Join(err, f.Close())
}
