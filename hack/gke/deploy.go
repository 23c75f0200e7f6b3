package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebb-inference/ebb/hack/command"
)

// overlay is the folder of what is applied, below the copy of config.
const overlay = "overlays/gke"

// deploy builds Ebb and applies it, and waits until it is ready.
func (c cloud) deploy(ctx context.Context, f files) error {
	if err := c.credentials(ctx, f); err != nil {
		return err
	}
	if err := c.writeConfig(f); err != nil {
		return err
	}
	if err := c.runner.Run(ctx, command.New("kubectl", "apply", "--filename="+filepath.Join(f.root, "config", "000-namespace.yaml"))); err != nil {
		return err
	}
	if err := c.makeSecret(ctx); err != nil {
		return err
	}
	c.runner.Say("building and applying Ebb (some minutes the first time)")
	apply := command.New("kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", filepath.Join(f.config(), overlay)).
		Pipe(command.New("ko", "apply", "--filename=-"))
	apply.Hint = "who pushes needs the role roles/artifactregistry.writer in the project"
	if err := c.runner.Run(ctx, apply); err != nil {
		return err
	}
	for _, kind := range []string{"rabbitmqclusters.rabbitmq.com", "brokers.eventing.knative.dev", "triggers.eventing.knative.dev", "services.serving.knative.dev"} {
		if err := c.runner.Run(ctx, ready(kind)); err != nil {
			return err
		}
	}
	return c.sayWhere(ctx)
}

// makeSecret makes RabbitMQ's password, once.
func (c cloud) makeSecret(ctx context.Context) error {
	out, err := c.runner.Output(ctx, command.New("kubectl", "--namespace=ebb", "get", "secret", "rabbitmq", "--ignore-not-found", "--output=name"))
	if err != nil || len(out) > 0 {
		return err
	}
	return c.runner.Run(ctx, command.New("go", "run", "./hack/secret", "-new").Pipe(command.New("kubectl", "create", "--filename=-")))
}

func ready(kind string) command.Command {
	condition := "--for=condition=Ready"
	if kind == "rabbitmqclusters.rabbitmq.com" {
		condition = "--for=condition=AllReplicasReady"
	}
	c := command.New("kubectl", "--namespace=ebb", "wait", condition, "--timeout=15m", kind, "--all")
	c.Hint = "`KUBECONFIG=... kubectl --namespace=ebb get pods,ksvc,broker,trigger` and `get events` say what is missing; then run this again"
	return c
}

// writeConfig copies config and says in the copy what is this Ebb's own, so that the project's files stay as they are.
func (c cloud) writeConfig(f files) error {
	yours := fmt.Sprintf("account=%s\nmodelsync=%s\nmodels=%s\ndomain=%s\naddress=%s\ncertificates=%s\n", c.modelsReader(), c.modelsync(), c.models(), c.domain, c.name, c.name)
	file := filepath.Join(f.config(), overlay, "gke.env")
	if c.runner.DryRun {
		c.runner.Say("%s is a copy of config, with this in %s/gke.env:\n%s", f.config(), overlay, yours)
		return nil
	}
	if err := os.RemoveAll(f.config()); err != nil {
		return err
	}
	if err := os.CopyFS(f.config(), os.DirFS(filepath.Join(f.root, "config"))); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(yours), 0o644)
}

// sayWhere says what is left to do for people to reach it.
func (c cloud) sayWhere(ctx context.Context) error {
	var addresses, certificates []struct {
		Name, Address string
		Managed       struct{ State string }
	}
	if err := c.listed(ctx, []string{"compute", "addresses", "list", "--global"}, &addresses); err != nil {
		return err
	}
	if err := c.listed(ctx, []string{"certificate-manager", "certificates", "list", "--location=global"}, &certificates); err != nil {
		return err
	}
	for _, a := range addresses {
		if filepath.Base(a.Name) == c.name {
			c.runner.Say("The name %s has to be an A record of %s.", c.domain, a.Address)
		}
	}
	for _, is := range certificates {
		if filepath.Base(is.Name) == c.name {
			c.runner.Say("Google's certificate for it is %s; it becomes ACTIVE some minutes to an hour after the record is there.", is.Managed.State)
		}
	}
	c.runner.Say("Then the page is at https://%s/home. Next: go run ./hack/gke load", c.domain)
	return nil
}
