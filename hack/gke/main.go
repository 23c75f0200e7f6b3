// Command gke makes an Ebb on Google Cloud, deploys to it, loads it and takes it away again:
//
//	export EBB_PROJECT=my-project EBB_REGION=europe-west4 EBB_DOMAIN=ebb.example.com
//	go run ./hack/gke -dry-run up     # every command that would run
//	go run ./hack/gke up              # what is missing; it costs money from here on
//	go run ./hack/gke deploy
//	go run ./hack/gke load
//	go run ./hack/gke -yes down
//
// It runs gcloud, kubectl, ko and curl, with the rights of whoever is logged in to gcloud, and keeps nothing that it could not find
// again: what it made bears its mark.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/hack/command"
)

const usage = `Usage: gke [flags] up|deploy|load|down

  up      makes in a project of Google Cloud's what is missing: a registry of images, a bucket with a
          ResNet-50, a network, a regional cluster over three zones, an address, a certificate; and in the
          cluster Knative, its RabbitMQ broker and RabbitMQ's operators. A second one changes nothing.
  deploy  builds Ebb with ko and applies config/overlays/gke.
  load    asks it for a while, says what came of that, and where to watch it scale.
  down    removes what up and deploy made, and nothing else; it needs -yes.

Everything that is made is called -name, or begins with it, and bears the label or description ebb=NAME.
It needs gcloud, logged in (gcloud auth login), with gke-gcloud-auth-plugin; kubectl; ko 0.18; curl; tar.

Flags:
`

// options are what is said on the command line.
type options struct {
	settings
	dryRun, yes, force bool
	load               loadOptions
	timeout            time.Duration
	verb               string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], machine{getenv: os.Getenv, log: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "gke:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just been called
	}
}

func parse(args []string, getenv func(string) string, log io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("gke", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.Usage = func() {
		_, _ = io.WriteString(log, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.project, "project", getenv("EBB_PROJECT"), "the `id` of the project of Google Cloud's (EBB_PROJECT)")
	flags.StringVar(&o.region, "region", getenv("EBB_REGION"), "the `region` (EBB_REGION)")
	flags.StringVar(&o.name, "name", cmp.Or(getenv("EBB_NAME"), "ebb"), "what it is called (EBB_NAME)")
	flags.StringVar(&o.domain, "domain", getenv("EBB_DOMAIN"), "the `name` that people type (EBB_DOMAIN)")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print every command of an empty project's up, or of a whole one's down, and run none")
	flags.BoolVar(&o.yes, "yes", false, "for down: remove it all, the queues' contents too")
	flags.BoolVar(&o.force, "force", false, "for down: delete a cluster that does not answer")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Hour, "give up after so long")
	flags.IntVar(&o.load.requests, "requests", 300, "for load: how many")
	flags.Float64Var(&o.load.rate, "rate", 10, "for load: how many a second")
	flags.StringVar(&o.load.url, "url", "", "for load: what to ask (default https:// and the domain)")
	flags.StringVar(&o.load.picture, "picture", ".ebb/pictures/dog.jpg", "for load: the `file` to ask about; `make pictures` gets this one")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	// Flags may be behind the verb, too.
	o.verb = flags.Arg(0)
	if flags.NArg() > 1 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return o, err
		}
		if flags.NArg() > 0 {
			return o, fmt.Errorf("only one of up, deploy, load and down at a time, not %q", flags.Args())
		}
	}
	if o.load.url == "" {
		o.load.url = "https://" + o.domain
	}
	return o, errors.Join(o.check(), o.load.check())
}

// machine is what the program runs on.
type machine struct {
	getenv  func(string) string
	log     io.Writer
	root    string        // the project's folder; empty: the working directory is in it
	environ []string      // of commands; nil: the program's own
	pause   time.Duration // between two looks; 0: the usual one
}

func run(ctx context.Context, args []string, m machine) error {
	o, err := parse(args, m.getenv, m.log)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	root := m.root
	if root == "" {
		if root, err = command.Root(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done within %s; -timeout allows for more, and running it again goes on where it was", o.timeout))
	defer cancel()
	f := files{root: root, name: o.name + "-" + o.project}
	c := cloud{o.settings, &command.Runner{
		DryRun: o.dryRun, Log: m.log, Pause: m.pause, Environ: m.environ, Folder: root,
		Env: []string{"KUBECONFIG=" + f.kubeconfig(), "KO_DOCKER_REPO=" + o.repository(), "KO_CONFIG_PATH=" + filepath.Join(root, "ko.yaml")},
		Hints: map[string]string{
			"gcloud":  "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install; then `gcloud auth login`",
			"kubectl": "install it: `gcloud components install kubectl`, or https://kubernetes.io/docs/tasks/tools/",
			"ko":      "install it: go install github.com/google/ko@v0.18.0",
		},
	}}
	switch {
	case o.verb == "up":
		return c.up(ctx, f)
	case o.verb == "deploy":
		return c.deploy(ctx, f)
	case o.verb == "load":
		return c.load(ctx, f, o.load)
	case o.verb == "down" && !o.yes && !o.dryRun:
		return errors.New("down removes the cluster, the images, the models and what waits in the queues: say -yes if that is meant, or -dry-run to see its commands")
	case o.verb == "down":
		return c.down(ctx, f, o.force)
	}
	return fmt.Errorf("there is no %q; there are up, deploy, load and down (-help says more)", o.verb)
}
