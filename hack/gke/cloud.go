package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/hack/command"
)

// apis are what of Google Cloud's has to be turned on.
var apis = []string{
	"artifactregistry.googleapis.com", "certificatemanager.googleapis.com", "compute.googleapis.com",
	"container.googleapis.com", "iam.googleapis.com", "storage.googleapis.com",
}

// spreads is what is said for a while after something was made or turned on, until all of Google Cloud knows.
var spreads = regexp.MustCompile(`does not exist|has not been used in project|SERVICE_DISABLED|concurrent policy changes`)

// resource is one thing in the project that has a name and is made, found and removed by it.
type resource struct {
	what   string
	costs  string // by being there
	api    string // without it there is none
	id     string // the last part of its name
	list   []string
	make   []string
	label  []string // marks it, where make cannot
	within []string // lists what is in it: of what has no mark, only the empty is taken for one whose making was cut short
	remove []string
}

// item is what gcloud lists, of whatever kind.
type item struct {
	Name, Email, Description, Status, Address string
	Labels, ResourceLabels                    map[string]string
}

// resources are what up makes, in this order, and down removes, in the other.
func (s settings) resources() []resource {
	const global = "--location=global"
	here := "--location=" + s.region
	labels, description := "--labels="+s.mark(), "--description="+s.mark()
	account := func(what, name string) resource {
		return resource{
			what: what, api: "iam.googleapis.com", id: s.account(name),
			list:   []string{"iam", "service-accounts", "list"},
			make:   []string{"iam", "service-accounts", "create", name, "--display-name=Ebb: " + what, description},
			remove: []string{"iam", "service-accounts", "delete", s.account(name)},
		}
	}
	return []resource{
		{
			what: "the registry of images", costs: "what is stored", api: "artifactregistry.googleapis.com", id: s.name,
			list:   []string{"artifacts", "repositories", "list", here},
			make:   []string{"artifacts", "repositories", "create", s.name, here, "--repository-format=docker", labels},
			remove: []string{"artifacts", "repositories", "delete", s.name, here},
		},
		{
			what: "the bucket of models", costs: "what is stored", api: "storage.googleapis.com", id: s.bucketName(),
			list:   []string{"storage", "buckets", "list"},
			make:   []string{"storage", "buckets", "create", s.bucket(), here, "--uniform-bucket-level-access", "--public-access-prevention"},
			label:  []string{"storage", "buckets", "update", s.bucket(), "--update-labels=" + s.mark()},
			within: []string{"storage", "objects", "list", s.bucket() + "/**"},
			remove: []string{"storage", "rm", "--recursive", s.bucket()},
		},
		account("the account of the nodes", s.nodesName()),
		account("the account that reads models", s.modelsName()),
		account("the account that rolls models out", s.syncName()),
		{
			what: "the network", api: "compute.googleapis.com", id: s.name,
			list:   []string{"compute", "networks", "list"},
			make:   []string{"compute", "networks", "create", s.name, "--subnet-mode=custom", description},
			remove: []string{"compute", "networks", "delete", s.name},
		},
		{
			what: "its part in the region", api: "compute.googleapis.com", id: s.name,
			list: []string{"compute", "networks", "subnets", "list", "--network=" + s.name, "--regions=" + s.region},
			make: []string{
				"compute", "networks", "subnets", "create", s.name, "--network=" + s.name, "--region=" + s.region, "--range=10.0.0.0/20",
				"--secondary-range=pods=10.4.0.0/14,services=10.8.0.0/20", "--enable-private-ip-google-access", description,
			},
			remove: []string{"compute", "networks", "subnets", "delete", s.name, "--region=" + s.region},
		},
		s.cluster(),
		{
			what: "the address", costs: "by the hour while nothing uses it", api: "compute.googleapis.com", id: s.name,
			list:   []string{"compute", "addresses", "list", "--global"},
			make:   []string{"compute", "addresses", "create", s.name, "--global", description},
			remove: []string{"compute", "addresses", "delete", s.name, "--global"},
		},
		{
			what: "the certificate", api: "certificatemanager.googleapis.com", id: s.name,
			list:   []string{"certificate-manager", "certificates", "list", global},
			make:   []string{"certificate-manager", "certificates", "create", s.name, global, "--domains=" + s.domain, labels},
			remove: []string{"certificate-manager", "certificates", "delete", s.name, global},
		},
		{
			what: "the map of certificates", api: "certificatemanager.googleapis.com", id: s.name,
			list:   []string{"certificate-manager", "maps", "list", global},
			make:   []string{"certificate-manager", "maps", "create", s.name, global, labels},
			remove: []string{"certificate-manager", "maps", "delete", s.name, global},
		},
		{
			what: "the certificate's place in it", api: "certificatemanager.googleapis.com", id: s.name,
			list:   []string{"certificate-manager", "maps", "entries", "list", "--map=" + s.name, global},
			make:   []string{"certificate-manager", "maps", "entries", "create", s.name, "--map=" + s.name, global, "--certificates=" + s.name, "--hostname=" + s.domain, labels},
			remove: []string{"certificate-manager", "maps", "entries", "delete", s.name, "--map=" + s.name, global},
		},
	}
}

// cluster is a regional one: its control plane and its nodes are in three zones.
func (s settings) cluster() resource {
	return resource{
		what: "the cluster (about ten minutes)", api: "container.googleapis.com", id: s.name,
		costs: "a fee by the hour; three nodes of type e2-standard-4 at least and twelve at most, with a disk each; RabbitMQ's three disks; " +
			"the load balancer, and what goes in and out",
		list: []string{"container", "clusters", "list", "--region=" + s.region},
		make: []string{
			"container", "clusters", "create", s.name, "--region=" + s.region, "--release-channel=regular",
			"--network=" + s.name, "--subnetwork=" + s.name, "--enable-ip-alias",
			"--cluster-secondary-range-name=pods", "--services-secondary-range-name=services",
			"--enable-dataplane-v2", "--gateway-api=standard",
			"--workload-pool=" + s.project + ".svc.id.goog", "--workload-metadata=GKE_METADATA",
			"--service-account=" + s.nodes(), "--scopes=cloud-platform",
			"--machine-type=e2-standard-4", "--disk-size=50GB", "--shielded-secure-boot",
			// In each zone.
			"--num-nodes=1", "--enable-autoscaling", "--min-nodes=1", "--max-nodes=4", "--location-policy=BALANCED",
			"--labels=" + s.mark(),
		},
		remove: []string{"container", "clusters", "delete", s.name, "--region=" + s.region},
	}
}

// cloud is a project of Google Cloud's, by gcloud.
type cloud struct {
	settings
	runner *command.Runner
}

func (c cloud) gcloud(args ...string) command.Command {
	made := command.New("gcloud", append(slices.Clip(args), "--project="+c.project, "--quiet")...)
	made.Again = spreads
	return made
}

// listed is what a command of gcloud's lists.
func (c cloud) listed(ctx context.Context, args []string, into any) error {
	out, err := c.runner.Output(ctx, c.gcloud(append(slices.Clip(args), "--format=json")...))
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("gcloud %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// find is a resource as it is, nil when it is not there. In a dry run none is.
func (c cloud) find(ctx context.Context, r resource) (*item, error) {
	var all []item
	if err := c.listed(ctx, r.list, &all); err != nil {
		return nil, fmt.Errorf("look for %s: %w", r.what, err)
	}
	for _, i := range all {
		if path.Base(i.Name) == r.id || i.Email == r.id {
			return &i, nil
		}
	}
	return nil, nil
}

// isOurs says whether something was made by this program under this name, and whether its mark is still to be made.
func (c cloud) isOurs(ctx context.Context, r resource, i *item) (ours, unmarked bool, err error) {
	if i.Labels["ebb"] == c.name || i.ResourceLabels["ebb"] == c.name || i.Description == c.mark() {
		return true, false, nil
	}
	if r.within == nil || len(i.Labels) > 0 {
		return false, false, nil
	}
	var in []item
	err = c.listed(ctx, r.within, &in)
	return err == nil && len(in) == 0, true, err
}

// ensure makes a resource that is not there. One that somebody else made is not touched.
func (c cloud) ensure(ctx context.Context, r resource) error {
	i, err := c.find(ctx, r)
	if err != nil {
		return err
	}
	unmarked := true
	if i != nil {
		var ours bool
		if ours, unmarked, err = c.isOurs(ctx, r, i); err != nil {
			return err
		}
		if !ours {
			return fmt.Errorf("there is %s %s already, and it does not say %q: somebody else made it; choose another -name", r.what, r.id, c.mark())
		}
	} else {
		c.runner.Say("%s %s", r.what, r.id)
		if r.costs != "" {
			c.runner.Say("    costs money: %s", r.costs)
		}
		create := c.gcloud(r.make...)
		create.Hint = "when that is mended, run this again: it goes on from here. Whoever is logged in (`gcloud auth list`) has to be an owner of the project, and the project to have billing"
		if err := c.runner.Run(ctx, create); err != nil {
			return fmt.Errorf("make %s: %w", r.what, err)
		}
	}
	if r.label == nil || !unmarked {
		return nil
	}
	if err := c.runner.Run(ctx, c.gcloud(r.label...)); err != nil {
		return fmt.Errorf("mark %s: %w", r.what, err)
	}
	return nil
}

// binding is a role that somebody has in something.
type binding struct {
	what         string
	in           []string // the words of gcloud's commands about it, and its name after the command
	name         []string
	member, role string
}

// bindings are the roles: those that can be given when the accounts are there, the one in the project, which down takes back, and
// those that take a cluster's pool of Kubernetes' accounts.
func (c cloud) bindings() (early []binding, project binding, workloads []binding) {
	nodes, sync := "serviceAccount:"+c.nodes(), "serviceAccount:"+c.modelsync()
	registry, bucket, accounts := []string{"artifacts", "repositories"}, []string{"storage", "buckets"}, []string{"iam", "service-accounts"}
	project = binding{"what a node does", []string{"projects"}, []string{c.project}, nodes, "roles/container.defaultNodeServiceAccount"}
	return []binding{
			{"nodes read the registry", registry, []string{c.name, "--location=" + c.region}, nodes, "roles/artifactregistry.reader"},
			{"modelsync writes to the registry", registry, []string{c.name, "--location=" + c.region}, sync, "roles/artifactregistry.writer"},
			{"the reader of models reads the bucket", bucket, []string{c.bucket()}, "serviceAccount:" + c.modelsReader(), "roles/storage.objectViewer"},
			{"modelsync reads the bucket", bucket, []string{c.bucket()}, sync, "roles/storage.objectViewer"},
		}, project, []binding{
			{"model servers are the reader of models", accounts, []string{c.modelsReader()}, c.workload("modelserver"), "roles/iam.workloadIdentityUser"},
			{"modelsync is who rolls models out", accounts, []string{c.modelsync()}, c.workload("modelsync"), "roles/iam.workloadIdentityUser"},
		}
}

func (c cloud) isBound(ctx context.Context, b binding) (bool, error) {
	var policy struct {
		Bindings []struct {
			Role    string
			Members []string
		}
	}
	if err := c.listed(ctx, slices.Concat(b.in, []string{"get-iam-policy"}, b.name), &policy); err != nil {
		return false, fmt.Errorf("look whether %s: %w", b.what, err)
	}
	for _, is := range policy.Bindings {
		if is.Role == b.role && slices.Contains(is.Members, b.member) {
			return true, nil
		}
	}
	return false, nil
}

func (c cloud) bind(ctx context.Context, verb string, b binding) error {
	return c.runner.Run(ctx, c.gcloud(slices.Concat(b.in, []string{verb}, b.name,
		[]string{"--member=" + b.member, "--role=" + b.role, "--condition=None"})...))
}

// ensureBound gives a role to who does not have it.
func (c cloud) ensureBound(ctx context.Context, b binding) error {
	bound, err := c.isBound(ctx, b)
	if err != nil || bound {
		return err
	}
	c.runner.Say("%s: %s", b.what, b.role)
	return c.bind(ctx, "add-iam-policy-binding", b)
}
