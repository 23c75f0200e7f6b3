// Command kind makes a Kubernetes on this machine, in Docker, with all that Ebb needs, for `make test-cluster` and for trying Ebb out:
//
//	go run ./hack/kind -dry-run up     # every command that would run
//	go run ./hack/kind up              # what is missing; the first time about ten minutes, and some gigabytes
//	. .ebb/kind/ebb/env && make test-cluster
//	go run ./hack/kind down
//
// It needs Docker, the whole internet, 6 GB of memory, and kind, kubectl, ko and curl.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/hack/command"
	"github.com/ebb-inference/ebb/hack/download"
	"github.com/ebb-inference/ebb/hack/knative"
)

// What runs, in one version each. The node's image is that of kind 0.30.
const (
	nodeImage     = "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
	registryImage = "registry:2.8.3"
)

// The ports of the node's that lead to Kourier and to RabbitMQ; rabbitmq.yaml has the latter two, too.
const (
	kourierPort    = 31080
	amqpPort       = 30672
	managementPort = 31672
)

const usage = `Usage: kind [flags] up|down

  up    makes what is missing: a registry and a cluster in Docker, and in the cluster Knative, its RabbitMQ
        broker, RabbitMQ's operators and a RabbitMQ. A second one changes nothing.
  down  removes both containers, and what is in them.

It needs Docker, kind 0.30 (go install sigs.k8s.io/kind@v0.30.0), kubectl, ko 0.18 and curl.

Flags:
`

// settings are what a cluster is called and where it is reached.
type settings struct {
	name               string
	port, registryPort int
}

var nameForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

func (s settings) check() error {
	switch {
	case !nameForm.MatchString(s.name):
		return fmt.Errorf("-name is %q: it is at most 20 of a-z, 0-9 and -, beginning with a letter", s.name)
	case s.port < 1 || s.port > 65535 || s.registryPort < 1 || s.registryPort > 65535 || s.port == s.registryPort:
		return fmt.Errorf("-port is %d and -registry-port %d: two ports, 1 to 65535", s.port, s.registryPort)
	}
	return nil
}

func (s settings) registry() string { return s.name + "-registry" }

// machine is what the program runs on.
type machine struct {
	log     io.Writer
	root    string        // the project's folder; empty: the working directory is in it
	environ []string      // of commands; nil: the program's own
	pause   time.Duration // between two tries; 0: the usual one
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], machine{log: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "kind:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just been called
	}
}

func run(ctx context.Context, args []string, m machine) error {
	var s settings
	flags := flag.NewFlagSet("kind", flag.ContinueOnError)
	flags.SetOutput(m.log)
	flags.Usage = func() {
		_, _ = io.WriteString(m.log, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&s.name, "name", "ebb", "what the cluster is `called`")
	flags.IntVar(&s.port, "port", 8888, "where Ebb is reached, on loopback")
	flags.IntVar(&s.registryPort, "registry-port", 5001, "where the registry is reached, on loopback")
	dryRun := flags.Bool("dry-run", false, "print every command of a machine without a cluster's up, or of a down, and run none")
	timeout := flags.Duration("timeout", time.Hour, "give up after so long")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("one of up and down, not %q (-help says more)", flags.Args())
	}
	if err := s.check(); err != nil {
		return err
	}
	root := m.root
	if root == "" {
		var err error
		if root, err = command.Root(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done within %s; -timeout allows for more, and running it again goes on where it was", *timeout))
	defer cancel()
	c := cluster{settings: s, root: root}
	c.runner = &command.Runner{
		DryRun: *dryRun, Log: m.log, Environ: m.environ, Pause: m.pause, Folder: root, Env: []string{"KUBECONFIG=" + c.file("kubeconfig")},
		Hints: map[string]string{
			"docker": "install Docker: https://docs.docker.com/engine/install/", "kubectl": "install it: https://kubernetes.io/docs/tasks/tools/",
			"kind": "install it: go install sigs.k8s.io/kind@v0.30.0", "curl": "install it",
		},
	}
	switch verb := flags.Arg(0); verb {
	case "up":
		return c.up(ctx)
	case "down":
		return c.down(ctx)
	default:
		return fmt.Errorf("there is no %q; there are up and down", verb)
	}
}

// cluster is one in Docker.
type cluster struct {
	settings
	root   string
	runner *command.Runner
}

// file is one of those about this cluster; down removes them.
func (c cluster) file(name string) string { return filepath.Join(c.root, ".ebb", "kind", c.name, name) }

func (c cluster) up(ctx context.Context) error {
	if err := c.makeRegistry(ctx); err != nil {
		return err
	}
	if err := c.makeCluster(ctx); err != nil {
		return err
	}
	if err := c.join(ctx); err != nil {
		return err
	}
	installer := knative.Installer{
		Runner: c.runner, Files: download.Downloader{Runner: c.runner, Sums: filepath.Join(c.root, "hack", "download", "sums")},
		Folder: filepath.Join(c.root, ".ebb", "releases"),
	}
	if err := installer.Install(ctx, append(knative.Needed(), c.knative()...)...); err != nil {
		return err
	}
	return c.makeRabbitMQ(ctx)
}

// knative is what Knative is told here: Kourier at a port of the node's, names that lead to this machine, and little patience, so that
// what has nothing to do is soon at zero.
func (c cluster) knative() []knative.Setting {
	port := func(name string, port, target, node int) map[string]any {
		p := map[string]any{"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
		if node != 0 {
			p["nodePort"] = node
		}
		return p
	}
	return []knative.Setting{
		{Namespace: "kourier-system", Kind: "service", Name: "kourier", Want: map[string]any{"spec": map[string]any{
			"type": "NodePort", "ports": []any{port("http2", 80, 8080, kourierPort), port("https", 443, 8443, 0)},
		}}},
		knative.ConfigMap("knative-serving", "config-domain", map[string]any{"127.0.0.1.sslip.io": ""}),
		knative.ConfigMap("knative-serving", "config-autoscaler", map[string]any{"stable-window": "10s", "scale-to-zero-grace-period": "5s"}),
	}
}

// ours lists the containers of this cluster's that this program made.
func (c cluster) ours(ctx context.Context) ([]string, error) {
	out, err := c.runner.Output(ctx, command.New("docker", "ps", "--all", "--filter=label=ebb="+c.name, "--format={{.Names}}"))
	return strings.Fields(string(out)), err
}

func (c cluster) makeRegistry(ctx context.Context) error {
	there, err := c.ours(ctx)
	if err != nil || slices.Contains(there, c.registry()) {
		return err
	}
	c.runner.Say("a registry at localhost:%d", c.registryPort)
	run := command.New("docker", "run", "--detach", "--restart=always", "--name="+c.registry(), "--label=ebb="+c.name,
		fmt.Sprintf("--publish=127.0.0.1:%d:5000", c.registryPort), registryImage)
	run.Hint = "if the name or the port is somebody else's, choose another -name or -registry-port"
	return c.runner.Run(ctx, run)
}

func (c cluster) isThere(ctx context.Context) (bool, error) {
	out, err := c.runner.Output(ctx, command.New("kind", "get", "clusters"))
	return slices.Contains(strings.Fields(string(out)), c.name), err
}

func (c cluster) makeCluster(ctx context.Context) error {
	there, err := c.isThere(ctx)
	if err != nil {
		return err
	}
	config := c.file("cluster.yaml")
	_, missing := os.Stat(config)
	switch {
	case there && missing != nil:
		return fmt.Errorf("there is a kind cluster %s that this did not make, as %s is missing; choose another -name", c.name, config)
	case there:
		return c.runner.Run(ctx, command.New("kind", "export", "kubeconfig", "--name="+c.name, "--kubeconfig="+c.file("kubeconfig")))
	}
	c.runner.Say("a cluster of one node (some minutes)")
	if err := c.writeConfig(config); err != nil {
		return err
	}
	return c.runner.Run(ctx, command.New("kind", "create", "cluster", "--name="+c.name, "--image="+nodeImage, "--config="+config,
		"--kubeconfig="+c.file("kubeconfig"), "--wait=5m"))
}

// writeConfig says that the node has a port for Kourier, and that it finds the registry under the name that this machine has for it.
func (c cluster) writeConfig(file string) error {
	registry := fmt.Sprintf("localhost:%d", c.registryPort)
	text, err := json.MarshalIndent(map[string]any{ // which is YAML, too
		"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4",
		"nodes": []any{map[string]any{
			"role":              "control-plane",
			"extraPortMappings": []any{map[string]any{"containerPort": kourierPort, "hostPort": c.port, "listenAddress": "127.0.0.1"}},
			"extraMounts":       []any{map[string]any{"hostPath": c.file("certs.d"), "containerPath": "/etc/containerd/certs.d", "readOnly": true}},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	if c.runner.DryRun {
		c.runner.Say("%s is:\n%s", file, text)
		return nil
	}
	hosts := filepath.Join(c.file("certs.d"), registry)
	if err := os.MkdirAll(hosts, 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "[host.\"http://%s:5000\"]\n", c.registry()), 0o644),
		os.WriteFile(file, text, 0o644))
}

// join puts the registry into the network of kind's nodes.
func (c cluster) join(ctx context.Context) error {
	out, err := c.runner.Output(ctx, command.New("docker", "inspect", c.registry(), "--format={{range $name, $network := .NetworkSettings.Networks}}{{$name}} {{end}}"))
	if err != nil || slices.Contains(strings.Fields(string(out)), "kind") {
		return err
	}
	return c.runner.Run(ctx, command.New("docker", "network", "connect", "kind", c.registry()))
}

// makeRabbitMQ makes a RabbitMQ and writes down how it, and everything else, is reached.
func (c cluster) makeRabbitMQ(ctx context.Context) error {
	out, err := c.runner.Output(ctx, command.New("kubectl", "--namespace=rabbitmq", "get", "rabbitmqclusters.rabbitmq.com", "rabbitmq", "--ignore-not-found", "--output=name"))
	if err != nil {
		return err
	}
	if len(out) == 0 {
		c.runner.Say("a RabbitMQ")
		if err := c.runner.Run(ctx, command.New("kubectl", "apply", "--server-side", "--filename="+filepath.Join(c.root, "hack", "kind", "rabbitmq.yaml"))); err != nil {
			return err
		}
	}
	for _, condition := range []string{"AllReplicasReady", "ReconcileSuccess"} {
		if err := c.runner.Run(ctx, command.New("kubectl", "--namespace=rabbitmq", "wait", "--for=condition="+condition, "--timeout=10m", "rabbitmqclusters.rabbitmq.com", "--all")); err != nil {
			return err
		}
	}
	if out, err = c.runner.Output(ctx, command.New("kubectl", "--namespace=rabbitmq", "get", "secret", "rabbitmq-default-user", "--output=json")); err != nil {
		return err
	}
	var secret struct {
		Data struct{ Username, Password []byte }
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &secret); err != nil {
			return err
		}
	}
	if out, err = c.runner.Output(ctx, command.New("docker", "inspect", c.name+"-control-plane", "--format={{.NetworkSettings.Networks.kind.IPAddress}}")); err != nil {
		return err
	}
	node := cmp.Or(strings.TrimSpace(string(out)), "NODE")
	env := fmt.Sprintf("export KUBECONFIG='%s' KO_DOCKER_REPO=localhost:%d/ebb\nexport RABBITMQ_URL='amqp://%s:%s@%s:%d/' RABBITMQ_MANAGEMENT_URL=http://%s:%d\nexport EBB_URL=http://ingress.ebb.127.0.0.1.sslip.io:%d\n",
		c.file("kubeconfig"), c.registryPort, secret.Data.Username, secret.Data.Password, node, amqpPort, node, managementPort, c.port)
	if !c.runner.DryRun {
		if err := os.WriteFile(c.file("env"), []byte(env), 0o600); err != nil { // it has a password
			return err
		}
	}
	c.runner.Say("All of it is there. Next:\n    . %s && make test-cluster\nand then the page is at http://ingress.ebb.127.0.0.1.sslip.io:%d/home. "+
		"(The node's address, at which RabbitMQ is, is reached on Linux; Docker Desktop keeps it to itself.)", c.file("env"), c.port)
	return nil
}

// down removes what up made.
func (c cluster) down(ctx context.Context) error {
	there, err := c.isThere(ctx)
	if err != nil {
		return err
	}
	_, missing := os.Stat(c.file("cluster.yaml"))
	switch {
	case there && missing != nil && !c.runner.DryRun:
		c.runner.Say("leaving the kind cluster %s, which this did not make, as %s is missing", c.name, c.file("cluster.yaml"))
	case there || c.runner.DryRun:
		if err := c.runner.Run(ctx, command.New("kind", "delete", "cluster", "--name="+c.name, "--kubeconfig="+c.file("kubeconfig"))); err != nil {
			return err
		}
	}
	containers, err := c.ours(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(containers, c.registry()) || c.runner.DryRun {
		if err := c.runner.Run(ctx, command.New("docker", "rm", "--force", "--volumes", c.registry())); err != nil {
			return err
		}
	}
	if c.runner.DryRun {
		c.runner.Say("and the folder %s", c.file(""))
		return nil
	}
	return os.RemoveAll(c.file(""))
}
