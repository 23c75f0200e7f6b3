package assets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// source is the path of a file from an npm package, checked. It has npm install what package-lock.json names when the file is
// not there or not right.
func (f *Fetcher) source(ctx context.Context, file npmFile) (string, error) {
	path := filepath.Join(f.root, "node_modules", filepath.FromSlash(file.path))
	err := check(file.pin, path)
	if err == nil {
		return path, nil
	}
	if !f.installed {
		if err := f.install(ctx); err != nil {
			return "", err
		}
		f.installed = true
		err = check(file.pin, path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("npm has installed what package-lock.json names, but not %s: the two do not fit together", path)
	case err != nil:
		return "", fmt.Errorf("%s from npm: %w; do not use it: if package.json was changed, change its pin as well", path, err)
	}
	return path, nil
}

// install runs npm. The flags repeat what .npmrc says, since a user's own settings win over that.
func (f *Fetcher) install(ctx context.Context) error {
	modules := filepath.Join(f.root, "node_modules")
	p := (&progress{what: "npm ci", log: f.log, measure: func() int64 { return folderSize(modules) }}).begin()
	defer p.stop()
	output, err := f.command(ctx, f.root, f.npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--include=optional", "--no-audit", "--no-fund")
	if err == nil {
		return nil
	}
	advice := "its messages say why"
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("npm is not installed: install Node.js with it (on Debian: apt-get install npm)")
	case ctx.Err() != nil:
		return fmt.Errorf("npm ci: %w", context.Cause(ctx))
	case contains(output, "ENOSPC", "EDQUOT"):
		advice = "the disk is full; the packages take 70 MB"
	case contains(output, "EINTEGRITY"):
		advice = "the registry sent a package with a wrong checksum; do not use it, and try again or ask who runs the registry"
	case contains(output, "EAI_AGAIN", "ENOTFOUND", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ERR_SOCKET_TIMEOUT"):
		advice = "the registry could not be reached; check the network, npm's proxy settings and its registry (npm config get registry)"
	case contains(output, "E401", "E403", "E404"):
		advice = "the registry refused a package; check npm's registry (npm config get registry)"
	case contains(output, "EUSAGE"):
		advice = "package.json and package-lock.json do not fit together: run npm install --package-lock-only"
	}
	return fmt.Errorf("npm ci: %w: %s\n%s", err, advice, lastLines(output, 12))
}

func contains(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// command runs a program in a folder and returns what it wrote. It ends with ctx.
func (f *Fetcher) command(ctx context.Context, folder string, program []string, args ...string) (output string, err error) {
	c := exec.CommandContext(ctx, program[0], append(program[1:len(program):len(program)], args...)...)
	c.Dir = folder
	c.WaitDelay = 5 * time.Second
	b, err := c.CombinedOutput()
	return string(b), err
}

// lastLines is the end of a program's output, indented.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	lines = lines[max(len(lines)-n, 0):]
	return "    " + strings.Join(lines, "\n    ")
}

// folderSize is the bytes of all files below a folder, as far as they can be seen.
func folderSize(folder string) (size int64) {
	_ = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go while npm works
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			size += info.Size()
		}
		return nil
	})
	return size
}
