// Package cluster_test is the acceptance test of Ebb on a real Knative: it deploys what is in config/ as the README says, asks it
// from zero pods, in a burst, in a browser, and back to zero; has bad manifests refused and looks at who may do what; and, while
// requests come in, deletes pods by force, restarts RabbitMQ, rolls revisions out and back, and publishes versions of a network: good, broken, worse.
// Last it runs every command of the guide in config/README.md. `make test-cluster` runs it; without a cluster it is skipped.
//
// A step goes on from what those before it left, and each can be run alone on what is deployed:
// `EBB_CLUSTER_TEST=1 go test -v -run TestOnACluster/a_burst ./hack/cluster`.
//
// It knows a cluster by what people know it by: kubectl, ko, kn, a browser and HTTP. What it needs is in the environment:
//
//	EBB_CLUSTER_TEST=1       says that the cluster of KUBECONFIG may be used; the namespace ebb is deleted first
//	KO_DOCKER_REPO           a registry that ko can write to and the cluster can read
//	RABBITMQ_URL, RABBITMQ_MANAGEMENT_URL  of an administrator, reached from here and from pods alike
//	KO_BASEIMAGEOVERRIDES    base images, where distroless cannot be pulled
//	EBB_URL                  where ingress is reached from here; default: the address that its Service has
//	EBB_CYCLES               how often it is asked from zero, default 20
//	EBB_RABBITMQ_STOP, EBB_RABBITMQ_START  commands that end RabbitMQ, and start it with its data; without them it goes on
package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	root      = "../.."
	namespace = "ebb"
	pictures  = root + "/.ebb/pictures/"
	// patience is for what a cluster does: pulling, starting, scaling. Knative's own window is a minute, and its grace half of one.
	patience = 5 * time.Minute
	interval = 500 * time.Millisecond
)

// table is what was measured.
var table struct {
	mu   sync.Mutex
	rows [][2]string
}

func measured(what, format string, args ...any) {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.rows = append(table.rows, [2]string{what, fmt.Sprintf(format, args...)})
}

func TestMain(m *testing.M) {
	code := m.Run()
	if len(table.rows) > 0 {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		for _, row := range table.rows {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
		_ = w.Flush()
	}
	os.Exit(code)
}

// run runs a program in the project's folder, and returns what it wrote to stdout. What it wrote to stderr is in the error.
func run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = root, bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "KO_CONFIG_PATH=ko.yaml")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, err
}

// command does so, and fails the test when the program does.
func command(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := run(t.Context(), stdin, name, args...)
	require.NoError(t, err)
	return out
}

func kubectl(t *testing.T, args ...string) []byte {
	t.Helper()
	return command(t, nil, "kubectl", args...)
}

// object is of any kind, as far as the test reads it.
type object struct {
	Kind     string
	Metadata struct {
		Name              string
		UID               string
		Labels            map[string]string
		DeletionTimestamp *time.Time
	}
	Spec struct {
		Replicas *int
	}
	Status struct {
		URL                     string
		LatestReadyRevisionName string
		Conditions              []struct{ Type, Status, Reason, Message string }
	}
}

// condition is why a condition is not true, or "".
func (o *object) condition(name string) string {
	for _, c := range o.Status.Conditions {
		if c.Type == name && c.Status == "True" {
			return ""
		} else if c.Type == name {
			return c.Reason + ": " + c.Message
		}
	}
	return "there is no condition " + name
}

func objects(t *testing.T, kinds string) []object {
	t.Helper()
	var list struct{ Items []object }
	require.NoError(t, json.Unmarshal(kubectl(t, "-n", namespace, "get", kinds, "-o", "json"), &list))
	return list.Items
}

// eventually waits until why says nothing any more, and fails with what it said last.
func eventually(t *testing.T, why func() string) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		reason := why()
		if reason == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", patience, reason)
		}
	}
}

// notReady is what is not ready yet, and why.
func notReady(t *testing.T) string {
	t.Helper()
	var waiting []string
	for _, o := range objects(t, "ksvc,broker,trigger,operatorpolicy") {
		if ready := o.condition("Ready"); ready != "" {
			waiting = append(waiting, fmt.Sprintf("%s %s: %s", o.Kind, o.Metadata.Name, ready))
		}
	}
	return strings.Join(waiting, "\n")
}

// replicas is how many pods Knative wants of each function, by its Service.
func replicas(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, o := range objects(t, "deployment") {
		if service := o.Metadata.Labels["serving.knative.dev/service"]; service != "" && o.Spec.Replicas != nil {
			found[service] += *o.Spec.Replicas
		}
	}
	return found
}

// awaitGone waits until no function has a pod, nor one that ends: until it has, it holds what it asked for, and on a small node
// keeps others from starting.
func awaitGone(t *testing.T) {
	t.Helper()
	awaitZero(t)
	eventually(t, func() string {
		return string(kubectl(t, "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/part-of=ebb", "-o", "name"))
	})
}

// awaitZero waits until no function has a pod.
func awaitZero(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		var running []string
		for service, n := range replicas(t) {
			if n > 0 {
				running = append(running, service+": "+strconv.Itoa(n))
			}
		}
		return strings.Join(running, ", ")
	})
}
