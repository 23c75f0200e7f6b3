// Package assets gets what Ebb needs and does not keep in its repository: networks, ONNX Runtime and pictures to try
// things on. All of it comes from package registries or over HTTPS, is held against a checksum that is written down
// here, and appears under its name only when it is whole and right.
//
// What is there already costs a look at its size and time, so callers simply ask for what they need: the fetch command,
// and every test that runs a network. Several processes may ask at once.
package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/hack/convert/translate"
)

// Config says where to work.
type Config struct {
	Root string    // the folder of package-lock.json, where npm installs; default: the working folder or the first above that has one
	Out  string    // the folder that results are laid down in; default Root/.ebb
	Log  io.Writer // gets a line a second about what takes longer than one; nil for none
}

// Fetcher lays assets down in a folder. Its methods return what they made, and may be called at any time; they do their
// work one at a time.
type Fetcher struct {
	root, out string
	log       io.Writer
	npm       []string // the commands, which tests replace
	apt, dpkg []string
	client    *http.Client
	stall     time.Duration // without a byte, after which a download is tried again
	mu        sync.Mutex
	installed bool // npm has run: doing so again would change nothing
}

// New makes a Fetcher.
func New(c Config) (*Fetcher, error) {
	f := &Fetcher{
		log: c.Log,
		npm: []string{"npm"}, apt: []string{"apt-get"}, dpkg: []string{"dpkg-deb"},
		client: newClient(), stall: 30 * time.Second,
	}
	if f.log == nil {
		f.log = io.Discard
	}
	var err error
	if c.Root == "" {
		f.root, err = findRoot()
	} else {
		f.root, err = filepath.Abs(c.Root)
	}
	if err != nil {
		return nil, err
	}
	if c.Out == "" {
		c.Out = filepath.Join(f.root, ".ebb")
	}
	f.out, err = filepath.Abs(c.Out)
	return f, err
}

func findRoot() (string, error) {
	from, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := from; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "package-lock.json")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no package-lock.json in %s or above: run it inside Ebb's repository, or name that", from)
		}
	}
}

// Inception is Inception v3, quantised, as ONNX: Out/models/inception_v3/1/model.onnx, with the names of its classes
// beside it in labels.txt, one a line.
func (f *Fetcher) Inception(ctx context.Context) (path string, err error) {
	folder := filepath.Join(f.out, "models", "inception_v3", "1")
	// The model comes last: a store that looks for it must not find a version that is half there.
	if err := f.ensure(ctx, inceptionLabels.pin, filepath.Join(folder, "labels.txt"), f.copy(inceptionLabels)); err != nil {
		return "", err
	}
	path = filepath.Join(folder, "model.onnx")
	return path, f.ensure(ctx, inceptionONNX, path, func(ctx context.Context, temp string) error {
		source, err := f.source(ctx, inceptionTFLite)
		if err != nil {
			return err
		}
		defer f.progress("converting Inception v3 to ONNX").stop()
		tflite, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		network, err := translate.Convert(tflite)
		if err != nil {
			return fmt.Errorf("convert %s: %w", source, err)
		}
		return os.WriteFile(temp, network, 0o644)
	})
}

// InceptionTFLite is what Inception is made from, in npm's folder.
func (f *Fetcher) InceptionTFLite(ctx context.Context) (path string, err error) {
	err = f.locked(ctx, func() error {
		path, err = f.source(ctx, inceptionTFLite)
		return err
	})
	return path, err
}

// ResNet50 is ResNet-50 v1 of the ONNX model zoo: Out/models/resnet50/1/model.onnx. It needs the whole
// internet, not just package registries.
func (f *Fetcher) ResNet50(ctx context.Context) (path string, err error) {
	path = filepath.Join(f.out, "models", "resnet50", "1", "model.onnx")
	return path, f.ensure(ctx, resnet50.pin, path, func(ctx context.Context, temp string) error {
		return f.download(ctx, resnet50, temp)
	})
}

// Runtime is ONNX Runtime's shared library for this machine: Out/lib/libonnxruntime.so, under that name on every
// platform.
func (f *Fetcher) Runtime(ctx context.Context) (path string, err error) {
	library, ok := libraries[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("there is no ONNX Runtime for %s/%s in package.json; these have one: %s", runtime.GOOS, runtime.GOARCH, platforms())
	}
	path = filepath.Join(f.out, "lib", "libonnxruntime.so")
	return path, f.ensure(ctx, library.pin, path, f.copy(library))
}

// Pictures is a folder with pictures to try networks on: chelsea.png (a cat), dog.jpg (a dog, a bicycle and a car) and
// coffee.png (neither). They come out of Debian packages, of which nothing is installed.
func (f *Fetcher) Pictures(ctx context.Context) (folder string, err error) {
	folder = filepath.Join(f.out, "pictures")
	path := func(p debianFile) string { return filepath.Join(folder, filepath.Base(p.path)) }
	if !slices.ContainsFunc(pictures, func(p debianFile) bool { return !f.stamped(p.pin, path(p)) }) {
		return folder, nil
	}
	return folder, f.locked(ctx, func() error {
		packages := filepath.Join(f.out, "debian")
		for _, p := range pictures {
			if err := f.lay(ctx, p.pin, path(p), func(ctx context.Context, temp string) error {
				return f.unpack(ctx, p, packages, temp)
			}); err != nil {
				return err
			}
		}
		return os.RemoveAll(packages)
	})
}

// copy makes a file as it is in an npm package.
func (f *Fetcher) copy(from npmFile) build {
	return func(ctx context.Context, temp string) error {
		source, err := f.source(ctx, from)
		if err != nil {
			return err
		}
		in, err := os.Open(source)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(temp)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
}
