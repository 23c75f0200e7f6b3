package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/ebb-inference/ebb/hack/command"
	"github.com/ebb-inference/ebb/hack/download"
	"github.com/ebb-inference/ebb/hack/knative"
)

// The network: TensorFlow's official ResNet-50, which takes JPEG files as they are.
const (
	savedModel  = "https://storage.googleapis.com/download.tensorflow.org/models/official/20181001_resnet/savedmodels/resnet_v2_fp32_savedmodel_NHWC_jpg.tar.gz"
	modelObject = "resnet/1/saved_model.pb"
)

// highlyAvailable are Kourier's gateway without a load balancer of its own, since that of config/overlays/gke is before it, and two
// at least of what every request goes through.
var highlyAvailable = []knative.Setting{
	{Namespace: "kourier-system", Kind: "service", Name: "kourier", Want: map[string]any{"spec": map[string]any{"type": "ClusterIP"}}},
	{Namespace: "kourier-system", Kind: "horizontalpodautoscaler", Name: "3scale-kourier-gateway", Want: map[string]any{"spec": map[string]any{"minReplicas": 2}}},
	{Namespace: "knative-serving", Kind: "horizontalpodautoscaler", Name: "activator", Want: map[string]any{"spec": map[string]any{"minReplicas": 2}}},
}

// up makes what is missing.
func (c cloud) up(ctx context.Context, f files) error {
	if err := c.turnOn(ctx); err != nil {
		return err
	}
	early, project, workloads := c.bindings()
	for _, r := range c.resources() {
		if err := c.ensure(ctx, r); err != nil {
			return err
		}
		switch r.what {
		case c.cluster().what:
			if err := c.awaitCluster(ctx); err != nil {
				return err
			}
			// The pool of Kubernetes' accounts comes with the project's first cluster that has one.
			for _, b := range workloads {
				if err := c.ensureBound(ctx, b); err != nil {
					return err
				}
			}
		case "the account that rolls models out":
			for _, b := range append(early, project) {
				if err := c.ensureBound(ctx, b); err != nil {
					return err
				}
			}
		}
	}
	if err := c.upload(ctx, f); err != nil {
		return err
	}
	if err := c.credentials(ctx, f); err != nil {
		return err
	}
	installer := knative.Installer{Runner: c.runner, Files: f.downloader(c.runner), Folder: f.releases()}
	if err := installer.Install(ctx, append(knative.Needed(), highlyAvailable...)...); err != nil {
		return err
	}
	c.runner.Say("All of it is there. Next: go run ./hack/gke deploy")
	return nil
}

// turnOn turns on what of Google Cloud's is off.
func (c cloud) turnOn(ctx context.Context) error {
	on, err := c.turnedOn(ctx)
	if err != nil {
		return err
	}
	off := slices.DeleteFunc(slices.Clone(apis), func(api string) bool { return on[api] })
	if len(off) == 0 {
		return nil
	}
	c.runner.Say("turning on %d APIs; `down` leaves them on, since others may use them, and they cost nothing", len(off))
	return c.runner.Run(ctx, c.gcloud(slices.Concat([]string{"services", "enable"}, off)...))
}

func (c cloud) turnedOn(ctx context.Context) (map[string]bool, error) {
	var all []item
	if err := c.listed(ctx, []string{"services", "list", "--enabled"}, &all); err != nil {
		return nil, err
	}
	on := map[string]bool{}
	for _, i := range all {
		on[path.Base(i.Name)] = true
	}
	return on, nil
}

// awaitCluster waits until the cluster is made: whoever made it may have been interrupted.
func (c cloud) awaitCluster(ctx context.Context) error {
	for {
		i, err := c.find(ctx, c.cluster())
		switch {
		case err != nil:
			return err
		case c.runner.DryRun:
			return nil
		case i == nil:
			return errors.New("the cluster has gone while it was waited for; run this again")
		case i.Status == "RUNNING":
			return nil
		case i.Status != "PROVISIONING" && i.Status != "RECONCILING":
			return fmt.Errorf("the cluster is in the state %s: see `gcloud container clusters describe %s --region=%s --project=%s`; `down` removes it", i.Status, c.name, c.region, c.project)
		}
		c.runner.Say("    the cluster is in the state %s", i.Status)
		if err := c.runner.Sleep(ctx); err != nil {
			return err
		}
	}
}

// credentials writes how kubectl reaches the cluster into a file of its own, which the Runner's environment names: no other cluster is
// ever spoken to.
func (c cloud) credentials(ctx context.Context, f files) error {
	if !c.runner.DryRun {
		if err := os.MkdirAll(f.folder(), 0o755); err != nil {
			return err
		}
	}
	get := c.gcloud("container", "clusters", "get-credentials", c.name, "--region="+c.region)
	get.Hint = "kubectl needs gke-gcloud-auth-plugin: `gcloud components install gke-gcloud-auth-plugin`, or the package google-cloud-cli-gke-gcloud-auth-plugin"
	return c.runner.Run(ctx, get)
}

// upload puts the network into the bucket.
func (c cloud) upload(ctx context.Context, f files) error {
	var objects []item
	if err := c.listed(ctx, []string{"storage", "objects", "list", c.bucket() + "/**"}, &objects); err != nil {
		return err
	}
	if slices.ContainsFunc(objects, func(i item) bool { return i.Name == modelObject }) {
		return nil
	}
	c.runner.Say("a ResNet-50 into %s", c.models())
	archive, folder := filepath.Join(f.releases(), path.Base(savedModel)), f.savedModel()
	if err := f.downloader(c.runner).Get(ctx, savedModel, archive); err != nil {
		return err
	}
	if !c.runner.DryRun {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	to := c.models() + "/1/"
	for _, do := range []command.Command{
		command.New("tar", "--extract", "--gzip", "--no-same-owner", "--strip-components=3", "--directory="+folder, "--file="+archive),
		c.gcloud("storage", "cp", filepath.Join(folder, "variables", "*"), to+"variables/"),
		// It comes last: a version that has it is whole.
		c.gcloud("storage", "cp", filepath.Join(folder, "saved_model.pb"), to+"saved_model.pb"),
	} {
		if err := c.runner.Run(ctx, do); err != nil {
			return err
		}
	}
	return nil
}

// files is where everything is on this machine.
type files struct{ root, name string }

// folder is for what is about one Ebb in the cloud; down removes it.
func (f files) folder() string     { return filepath.Join(f.root, ".ebb", "gke", f.name) }
func (f files) kubeconfig() string { return filepath.Join(f.folder(), "kubeconfig") }
func (f files) config() string     { return filepath.Join(f.folder(), "config") }
func (f files) savedModel() string { return filepath.Join(f.folder(), "resnet") }
func (f files) releases() string   { return filepath.Join(f.root, ".ebb", "releases") }

func (f files) downloader(r *command.Runner) download.Downloader {
	return download.Downloader{Runner: r, Sums: filepath.Join(f.root, "hack", "download", "sums")}
}
