package knative_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/tfserving"
)

const definition = `
name: bright
question: Is it bright?
subject: bright
serving:
  address: inception-v3.ebb.svc.cluster.local:80
  model: inception_v3
  source: {url: "oci://registry.example/network", keep: 2}
  rollout: {hold: 0s}
input: {tensor: image, dtype: uint8, width: 2, height: 2}
output: {tensor: probabilities, labels: labels.txt, yes: [1]}
`

// publication is a source of versions, and the model server that is asked about them.
type publication struct{ versions []int64 }

func (p publication) Versions(context.Context) ([]int64, error) { return p.versions, nil }

func (p publication) Fetch(_ context.Context, version int64, dir string) (source.Fetched, error) {
	return source.Fetched{Digest: fmt.Sprintf("sha256:%d", version)}, os.WriteFile(filepath.Join(dir, "model"), []byte("weights"), 0o600)
}

func (p publication) Close() error { return nil }

// asked is a model server as far as a check asks it.
type asked struct{ publication }

func (asked) Metadata(context.Context, tfserving.Spec) (map[string]tfserving.Signature, error) {
	return map[string]tfserving.Signature{"serving_default": {
		Inputs:  map[string]tfserving.TensorInfo{"image": {DType: tfserving.Uint8, Shape: []int64{-1, 2, 2, 3}}},
		Outputs: map[string]tfserving.TensorInfo{"probabilities": {DType: tfserving.Float32, Shape: []int64{-1, 2}}},
	}}, nil
}

func (asked) Predict(_ context.Context, spec tfserving.Spec, _ map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	return map[string]tfserving.Tensor{outputs[0]: {DType: tfserving.Float32, Shape: []int64{1, 2}, Data: make([]byte, 8)}}, spec.Version, nil
}

// modelsync is a process that rolls versions out in the cluster.
func (c *cluster) modelsync(holder string, published publication) *rollout.Rollout {
	c.t.Helper()
	m, err := models.Parse(fstest.MapFS{"model.yaml": {Data: []byte(definition)}, "labels.txt": {Data: []byte("dark\nbright\n")}}, "model.yaml")
	require.NoError(c.t, err)
	networks, err := models.Networks([]*models.Model{m})
	require.NoError(c.t, err)
	r, err := rollout.New(rollout.Config{
		Network: networks[0], Open: func(context.Context) (source.Source, error) { return published, nil },
		Target: c.target(), Records: knative.NewRecords(c.kube, namespace, service),
		Dial:   func(string) (rollout.Server, error) { return asked{published}, nil },
		Fetch:  func(context.Context, string) ([]byte, error) { return nil, errors.New("no picture is by URL") },
		Holder: holder, Dir: c.t.TempDir(), Lease: lease, Logger: quiet,
	})
	require.NoError(c.t, err)
	return r
}

// lease is how long a process that was killed keeps others waiting.
const lease = 250 * time.Millisecond

// settle has processes look, one after the other, until a version serves for good.
func (c *cluster) settle(version int64, published publication) {
	c.t.Helper()
	n := 0
	require.Eventually(c.t, func() bool {
		n++
		r := c.modelsync(fmt.Sprintf("process %d", n), published)
		_, err := r.Look(c.t.Context())
		if err != nil && !errors.Is(err, errKilled) {
			c.t.Log(err)
		}
		c.died()
		s, err := r.State(c.t.Context())
		return err == nil && s.Serving == version && s.Candidate == nil && c.traffic()[0] == fmt.Sprintf("%05d=100 current", c.generationOf(version))
	}, waitFor, tick)
}

// generationOf is the number of the revision of a version.
func (c *cluster) generationOf(version int64) int64 {
	c.t.Helper()
	if version == 1 {
		return 1
	}
	for _, name := range c.revisions() {
		r, err := c.serving.ServingV1().Revisions(namespace).Get(c.t.Context(), service+"-"+name, metav1.GetOptions{})
		require.NoError(c.t, err)
		if r.Annotations["ebb.dev/version"] == fmt.Sprint(version) {
			var n int64
			_, err = fmt.Sscanf(name, "%d", &n)
			require.NoError(c.t, err)
			return n
		}
	}
	return 0
}

// A process that decides, records and acts dies at any of its writes; others go on, and in the end nobody can tell.
func TestRollOutIsGoneOnWithWhoeverDies(t *testing.T) {
	t.Parallel()
	both := publication{[]int64{1, 2}}
	recorded := func(t *testing.T) *cluster {
		t.Helper()
		c := newCluster(t)
		giveVersions(c.kube, func(do func() error) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.write(do)
		})
		return c
	}
	undisturbed := recorded(t)
	undisturbed.settle(2, both)
	require.Greater(t, undisturbed.writes, 10)
	for n := 1; n <= undisturbed.writes; n++ {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, late %v", n, late), func(t *testing.T) {
				t.Parallel()
				c := recorded(t)
				c.killAt, c.killLate = n, late
				c.settle(2, both)
				require.Equal(t, undisturbed.outcome(), c.outcome())
			})
		}
	}
}

func TestProcessesDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	giveVersions(c.kube, func(do func() error) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return do()
	})
	published := publication{[]int64{1, 2}}
	var looks sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		process := c.modelsync(fmt.Sprintf("process %d", i), published)
		looks.Go(func() { _, errs[i] = process.Look(t.Context()) })
	}
	looks.Wait()
	require.NoError(t, errors.Join(errs...))
	c.settle(2, published)
	require.Equal(t, []string{"00001", "00003"}, c.revisions())
}
