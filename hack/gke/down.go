package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/hack/command"
)

// down removes what up and deploy made, the latest first. What bears no mark of theirs is left.
func (c cloud) down(ctx context.Context, f files, force bool) error {
	on, err := c.turnedOn(ctx)
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(c.resources()) {
		if !on[r.api] && !c.runner.DryRun {
			continue // nor could it be looked for
		}
		there, err := c.isThere(ctx, r)
		if err != nil {
			return err
		}
		switch {
		case !there:
			continue
		case r.what == c.cluster().what && !force:
			if err := c.empty(ctx, f); err != nil {
				return err
			}
		case r.id == c.nodes():
			if err := c.unbindProject(ctx); err != nil {
				return err
			}
		}
		c.runner.Say("removing %s %s", r.what, r.id)
		remove := c.gcloud(r.remove...)
		remove.Hint = "run this again: what is removed stays so, and what Google still holds is free some minutes later"
		if err := c.runner.Run(ctx, remove); err != nil {
			return err
		}
	}
	if c.runner.DryRun {
		c.runner.Say("and the folder %s", f.folder())
		return nil
	}
	if force {
		c.runner.Say("Load balancers and disks that the cluster had made may be there still: see `gcloud compute forwarding-rules list` and `gcloud compute disks list`.")
	}
	return os.RemoveAll(f.folder())
}

// isThere says whether there is something to remove. In a dry run there is.
func (c cloud) isThere(ctx context.Context, r resource) (bool, error) {
	// The places in a map of certificates can only be listed where there is one.
	if strings.HasPrefix(strings.Join(r.list, " "), "certificate-manager maps entries") && !c.runner.DryRun {
		for _, of := range c.resources() {
			if strings.HasPrefix(strings.Join(of.list, " "), "certificate-manager maps list") {
				if i, err := c.find(ctx, of); err != nil || i == nil {
					return false, err
				}
			}
		}
	}
	i, err := c.find(ctx, r)
	if err != nil || c.runner.DryRun {
		return err == nil, err
	}
	if i == nil {
		return false, nil
	}
	ours, _, err := c.isOurs(ctx, r, i)
	if err == nil && !ours {
		c.runner.Say("leaving %s %s, which does not say %q: somebody else made it", r.what, r.id, c.mark())
	}
	return ours, err
}

func (c cloud) unbindProject(ctx context.Context) error {
	_, project, _ := c.bindings()
	bound, err := c.isBound(ctx, project)
	if err != nil || !bound && !c.runner.DryRun {
		return err
	}
	return c.bind(ctx, "remove-iam-policy-binding", project)
}

// empty removes what the cluster has made outside of itself, while it can: the load balancer and RabbitMQ's disks. What is in
// RabbitMQ goes first, since it takes the Secret to remove that.
func (c cloud) empty(ctx context.Context, f files) error {
	if err := c.awaitCluster(ctx); err != nil {
		return err
	}
	if err := c.credentials(ctx, f); err != nil {
		return err
	}
	out, err := c.kubectl(ctx, "get", "customresourcedefinition", "--output=name")
	if err != nil {
		return err
	}
	has := func(kind string) bool {
		return c.runner.DryRun || strings.Contains(string(out), "/"+kind+"\n")
	}
	for _, kind := range []string{"triggers.eventing.knative.dev", "brokers.eventing.knative.dev", "operatorpolicies.rabbitmq.com"} {
		if has(kind) {
			if _, err := c.kubectl(ctx, "--namespace=ebb", "delete", kind, "--all", "--timeout=10m"); err != nil {
				return err
			}
		}
	}
	if has("queues.rabbitmq.com") {
		if err := c.awaitNone(ctx, "--namespace=ebb", "get", "queues.rabbitmq.com,exchanges.rabbitmq.com,bindings.rabbitmq.com", "--output=name"); err != nil {
			return err
		}
	}
	if has("gateways.gateway.networking.k8s.io") {
		if _, err := c.kubectl(ctx, "--namespace=kourier-system", "delete", "gateways.gateway.networking.k8s.io", "ebb", "--ignore-not-found", "--timeout=15m"); err != nil {
			return err
		}
	}
	if _, err := c.kubectl(ctx, "delete", "namespace", "ebb", "--ignore-not-found", "--timeout=15m"); err != nil {
		return err
	}
	return c.awaitNone(ctx, "get", "persistentvolume", "--output=name")
}

func (c cloud) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	do := command.New("kubectl", args...)
	do.Hint = "if the cluster does not answer any more, `down -force` deletes it as it is; then look for load balancers and disks that it had made"
	return c.runner.Output(ctx, do)
}

// awaitNone waits until kubectl lists nothing.
func (c cloud) awaitNone(ctx context.Context, args ...string) error {
	for {
		out, err := c.kubectl(ctx, args...)
		if err != nil || len(out) == 0 {
			return err
		}
		c.runner.Say("    still there: %s", strings.Join(strings.Fields(string(out)), " "))
		if err := c.runner.Sleep(ctx); err != nil {
			return err
		}
	}
}
