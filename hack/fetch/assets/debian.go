package assets

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unpack gets one file out of a Debian package, which it downloads to the folder packages.
func (f *Fetcher) unpack(ctx context.Context, from debianFile, packages, temp string) error {
	archive, err := f.debian(ctx, from.pkg, packages)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := exec.CommandContext(ctx, f.dpkg[0], append(f.dpkg[1:len(f.dpkg):len(f.dpkg)], "--fsys-tarfile", archive)...)
	c.WaitDelay = 5 * time.Second
	stream, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("open %s: %w", archive, err)
	}
	err = extract(stream, from.path, temp, from.size)
	cancel() // the rest of the package does not matter, and neither does how its reader takes that
	_ = c.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	return nil
}

// extract writes one file of a tar stream, of at most so many bytes and one.
func extract(stream io.Reader, path, to string, size int64) error {
	for files := tar.NewReader(stream); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("it has no %s", path)
		}
		if err != nil {
			return err
		}
		if strings.TrimPrefix(header.Name, "./") != path {
			continue
		}
		out, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, io.LimitReader(files, size+1))
		return errors.Join(err, out.Close())
	}
}

// debian downloads a package to a folder and returns its path; a second time it finds it. Nothing is installed, so that it takes neither
// dependencies nor root.
func (f *Fetcher) debian(ctx context.Context, pkg, folder string) (string, error) {
	if found, _ := filepath.Glob(filepath.Join(folder, pkg+"_*.deb")); len(found) > 0 {
		return found[0], nil
	}
	p := (&progress{what: "downloading Debian's " + pkg, log: f.log, measure: func() int64 { return folderSize(folder) }}).begin()
	defer p.stop()
	// Downloads go to a folder of their own until they are whole. Package lists of our own are the second choice: the
	// machine's may be missing (a fresh container), stale, or not ours to update.
	work := filepath.Join(folder, "new")
	lists, archives := filepath.Join(folder, "lists"), filepath.Join(folder, "archives")
	for _, d := range []string{work, filepath.Join(lists, "partial"), filepath.Join(archives, "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	me, err := user.Current()
	if err != nil {
		return "", err
	}
	as := []string{"-q", "-o", "APT::Sandbox::User=" + me.Username, "-o", "Acquire::Retries=2"}
	own := slices.Concat(as, []string{"-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache::archives=" + archives,
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="})
	output, err := f.command(ctx, work, f.apt, append(as, "download", pkg)...)
	if err != nil && !errors.Is(err, exec.ErrNotFound) && ctx.Err() == nil {
		if output, err = f.command(ctx, work, f.apt, append(own, "update")...); err == nil {
			output, err = f.command(ctx, work, f.apt, append(own, "download", pkg)...)
		}
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("apt-get is not installed: the test pictures come out of Debian packages, so this needs Debian or Ubuntu")
	case ctx.Err() != nil:
		return "", fmt.Errorf("download Debian's %s: %w", pkg, context.Cause(ctx))
	case err != nil:
		return "", fmt.Errorf("download Debian's %s: %w: check the network and apt's sources\n%s", pkg, err, lastLines(output, 12))
	}
	found, _ := filepath.Glob(filepath.Join(work, pkg+"_*.deb"))
	if len(found) == 0 {
		return "", fmt.Errorf("apt-get download %s made no package\n%s", pkg, lastLines(output, 12))
	}
	to := filepath.Join(folder, filepath.Base(found[0]))
	return to, os.Rename(found[0], to)
}
