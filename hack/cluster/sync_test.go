//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"fmt"
	"image/jpeg"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/hack/onnx"
	"github.com/ebb-inference/ebb/models/oci"
)

const (
	networkName = "inception_v3"
	rollouts    = 20 // in a row
)

// published is where versions are published: a repository of the registry that there is, new for each run.
var published = sync.OnceValue(func() string {
	return fmt.Sprintf("%s/published-%d/%s", os.Getenv("KO_DOCKER_REPO"), time.Now().Unix(), networkName)
})

// keepsItselfCurrent gives a model a source, and publishes there what is better, broken and worse.
func keepsItselfCurrent(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, ".ebb/models", networkName, "1", "*"))
	require.NoError(t, err)
	good := map[string][]byte{}
	for _, file := range files {
		if good[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	require.NotEmpty(t, good["model.onnx"])
	config := withSource(t)
	// What an earlier run left of the network goes; it begins with the version in its server's image.
	kubectl(t, "-n", namespace, "delete", "ksvc/inception-v3", "configmap/modelsync-inception-v3", "--ignore-not-found", "--timeout", patience.String())
	command(t, nil, "ko", "apply", "-f", config, "-f", filepath.Join(config, "models"))
	eventually(t, func() string { return notReady(t) })
	requireServing(t, "inception-v3", 1)

	l := begin(t)
	before := l.mark(t, 20*time.Second)

	// With nobody's help: a PingSource asks for a look.
	publish(t, 2, good)
	at := time.Now()
	awaitState(t, func(s rollout.State) bool { return s.Serving == 2 && s.Candidate == nil })
	took := time.Since(at)
	during := l.since(t, before)
	after := l.mark(t, 10*time.Second)
	first, last := l.turn(t, at, 2)
	measured("a version is published, nobody helps", "it answers after %.1f s, alone after %.1f s, and is settled after %.1f s", first.Seconds(), last.Seconds(), took.Seconds())
	measured("latency while it is rolled out", "p99 %.0f ms, median %.0f ms; before p99 %.0f ms, median %.0f ms; after p99 %.0f ms",
		ms(during, 0.99), ms(during, 0.5), ms(l.between(t, time.Time{}, before), 0.99), ms(l.between(t, time.Time{}, before), 0.5), ms(l.since(t, after.Add(-10*time.Second)), 0.99))

	broken := map[string][]byte{"model.onnx": good["model.onnx"][:len(good["model.onnx"])/2]}
	publish(t, 3, broken)
	reason := refused(t, 3)
	measured("a broken version", "refused: %.120s", reason)
	publish(t, 4, map[string][]byte{"model.onnx": worse()})
	reason = refused(t, 4)
	measured("a worse version", "refused: %.120s", reason)
	require.EqualValues(t, 2, status(t).Serving)

	command(t, nil, "go", "run", "./hack/model", "rollback", "cat")
	require.EqualValues(t, 1, status(t).Serving)
	requireServing(t, "inception-v3", 1)
	look(t)
	require.EqualValues(t, 1, status(t).Serving, "what was taken back is not rolled out again")

	began := time.Now()
	var each []time.Duration
	for version := int64(5); version < 5+rollouts; version++ {
		publish(t, version, good)
		at := time.Now()
		look(t)
		awaitState(t, func(s rollout.State) bool { return s.Serving == version && s.Candidate == nil })
		each = append(each, time.Since(at))
	}
	measured(fmt.Sprintf("%d roll-outs in a row", rollouts), "median %.1f s, longest %.1f s each, %.0f s together; p99 of latency %.0f ms",
		median(each).Seconds(), slices.Max(each).Seconds(), time.Since(began).Seconds(), ms(l.since(t, began), 0.99))
	kept := objects(t, "revision.serving.knative.dev")
	kept = slices.DeleteFunc(kept, func(o object) bool { return o.Metadata.Labels["serving.knative.dev/service"] != "inception-v3" })
	require.LessOrEqual(t, len(kept), 5, "old versions are removed")

	takesBackByKn(t, 4+rollouts)

	samples := l.end()
	versions := map[int64]int{}
	for _, s := range samples {
		require.NoError(t, s.err)
		require.NotZero(t, s.version)
		versions[s.version]++
	}
	require.NotContains(t, versions, int64(3))
	require.NotContains(t, versions, int64(4))
	measured("under all of that", "%d requests, 0 failed, 0 without a version", len(samples))
}

// takesBackByKn gives the traffic back to the version before the newest, as the guide says. It has been taken back then, as by
// hack/model: the newest is not rolled out again.
func takesBackByKn(t *testing.T, newest int64) {
	t.Helper()
	before := kubectl(t, "-n", namespace, "get", "ksvc", "inception-v3", "-o", `jsonpath={.status.traffic[?(@.tag=="previous")].revisionName}`)
	command(t, nil, "kn", "service", "update", "inception-v3", "-n", namespace, "--traffic", string(before)+"=100")
	look(t)
	requireServing(t, "inception-v3", newest-1)
	look(t)
	s := status(t)
	require.Equal(t, newest-1, s.Serving, "what was taken back is not rolled out again")
	require.Nil(t, s.Candidate)
	i := slices.IndexFunc(s.Refused, func(r rollout.Refusal) bool { return r.Version == newest })
	require.NotEqual(t, -1, i, "%v", s.Refused)
	require.Equal(t, rollout.ByOperator, s.Refused[i].By)
	measured("taken back by kn", "version %d serves again, and version %d is refused: %s", newest-1, newest, s.Refused[i].Reason)
}

// withSource is the manifests with a source, golden pictures and short steps for the network, made by `make generate`.
func withSource(t *testing.T) string {
	t.Helper()
	config, err := os.MkdirTemp("", "ebb-config-") //nolint:usetesting // its name would have a comma, which ko takes to be between two folders
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(config)) })
	require.NoError(t, os.CopyFS(config, os.DirFS(root+"/config")))
	path := filepath.Join(config, "models", "cat.yaml")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	with := strings.Replace(string(text), "      model: "+networkName+"\n", `      model: `+networkName+`
      source: {url: "oci://`+published()+`", keep: 3}
      rollout:
        golden:
          - {picture: chelsea.jpg, answer: yes, probability: 0.5}
        steps: [10, 50]
        hold: 3s
        errors: 0.05
        latency: 5 # two cores do a cluster's work as well
`, 1)
	with = strings.Replace(with, "---\n# What follows", "binaryData:\n  chelsea.jpg: "+base64.StdEncoding.EncodeToString(golden(t))+"\n---\n# What follows", 1)
	require.NotEqual(t, string(text), with)
	require.NoError(t, os.WriteFile(path, []byte(with), 0o600))
	command(t, nil, "go", "run", "./hack/generate", "-config", config)
	sync := filepath.Join(config, "600-modelsync.yaml")
	text, err = os.ReadFile(sync)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte("*/5 * * * *"), []byte("* * * * *"), 1)
	text = bytes.Replace(text, []byte("            - {name: PATIENCE"), []byte("            - {name: LOG_LEVEL, value: debug}\n            - {name: PATIENCE"), 1)
	require.NoError(t, os.WriteFile(sync, text, 0o600))
	return config
}

// golden is a picture that is small enough for what kubectl notes of a ConfigMap.
func golden(t *testing.T) []byte {
	t.Helper()
	file, err := os.Open(pictures + "chelsea.png")
	require.NoError(t, err)
	defer file.Close()
	img, err := png.Decode(file)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, img, nil))
	require.Less(t, b.Len(), 100<<10)
	return b.Bytes()
}

// publish pushes a version as ORAS does.
func publish(t *testing.T, version int64, files map[string][]byte) {
	t.Helper()
	repo, err := oci.Repository(published())
	require.NoError(t, err)
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	for _, file := range slices.Sorted(maps.Keys(files)) {
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer(files[file], "application/octet-stream"), Annotations: map[string]string{"org.opencontainers.image.title": file},
		})
		require.NoError(t, err)
	}
	push(t, repo.Tag(strconv.FormatInt(version, 10)), img)
}

func push(t *testing.T, to name.Tag, img v1.Image) {
	t.Helper()
	client := oci.New(oci.Options{})
	defer client.Close()
	pusher, err := client.Pusher()
	require.NoError(t, err)
	require.NoError(t, pusher.Push(t.Context(), to, img))
}

// worse is a network with the same signature that sees goldfish everywhere.
func worse() []byte {
	const classes, goldfish = 1001, 2
	weights := make([]byte, 4*classes)
	binary.LittleEndian.PutUint32(weights[4*goldfish:], math.Float32bits(1))
	batch := onnx.Dim{Name: "N"}
	m := onnx.Model{
		Producer: "hack/cluster", Opsets: []onnx.Opset{{Version: 13}},
		Graph: onnx.Graph{
			Name: "worse",
			Nodes: []onnx.Node{
				{Op: "Cast", Inputs: []string{"input"}, Outputs: []string{"floats"}, Attributes: []onnx.Attribute{{Name: "to", Int: int64(onnx.Float)}}},
				{Op: "ReduceMean", Inputs: []string{"floats"}, Outputs: []string{"mean"}, Attributes: []onnx.Attribute{{Name: "axes", Ints: []int64{1, 2, 3}}, {Name: "keepdims", Int: 0}}},
				{Op: "Unsqueeze", Inputs: []string{"mean", "last"}, Outputs: []string{"column"}},
				{Op: "MatMul", Inputs: []string{"column", "weights"}, Outputs: []string{"logits"}},
			},
			Constants: []onnx.Tensor{
				{Name: "last", Type: 7, Dims: []int64{1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0}},
				{Name: "weights", Type: onnx.Float, Dims: []int64{1, classes}, Data: weights},
			},
			Inputs:  []onnx.Value{{Name: "input", Type: onnx.Uint8, Dims: []onnx.Dim{batch, {Size: 299}, {Size: 299}, {Size: 3}}}},
			Outputs: []onnx.Value{{Name: "logits", Type: onnx.Float, Dims: []onnx.Dim{batch, {Size: classes}}}},
		},
	}
	return m.Marshal()
}

// status is the state of the network, as hack/model says it.
func status(t *testing.T) rollout.State {
	t.Helper()
	var states []rollout.State
	require.NoError(t, json.Unmarshal(command(t, nil, "go", "run", "./hack/model", "status", "-json", "cat"), &states))
	require.Len(t, states, 1)
	return states[0]
}

// look asks for a look, and waits for what comes of it.
func look(t *testing.T) {
	t.Helper()
	command(t, nil, "go", "run", "./hack/model", "look", "cat")
}

func awaitState(t *testing.T, is func(rollout.State) bool) {
	t.Helper()
	eventually(t, func() string {
		s := status(t)
		if is(s) {
			return ""
		}
		text, err := json.Marshal(s)
		return fmt.Sprintf("the state is %s %v", text, err)
	})
}

// refused waits until a version is refused, and says why.
func refused(t *testing.T, version int64) (reason string) {
	t.Helper()
	look(t)
	awaitState(t, func(s rollout.State) bool {
		for _, r := range s.Refused {
			if r.Version == version {
				reason = r.Reason
			}
		}
		return reason != "" && s.Candidate == nil
	})
	require.Contains(t, string(command(t, nil, "go", "run", "./hack/model", "status", "cat")), strconv.FormatInt(version, 10))
	return reason
}

// requireServing asks until a version answers.
func requireServing(t *testing.T, service string, version int64) {
	t.Helper()
	base := address(t)
	eventually(t, func() string {
		a, _, err := ask(t, base, "cat", "chelsea.png", true)
		if err != nil || a.ServedBy.Version != version {
			return fmt.Sprintf("%s: version %d answers instead of %d: %v", service, a.ServedBy.Version, version, err)
		}
		return ""
	})
}

// sample is what became of one request.
type sample struct {
	at      time.Time
	took    time.Duration
	version int64
	err     error
}

// steady asks at a steady rate.
type steady struct {
	stop context.CancelFunc
	done chan struct{}
	mu   sync.Mutex
	all  []sample
}

// begin begins to ask.
func begin(t *testing.T) *steady {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &steady{stop: cancel, done: make(chan struct{})}
	base := address(t)
	go func() {
		defer close(l.done)
		var asking sync.WaitGroup
		defer asking.Wait()
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			asking.Go(func() {
				on := shown[n%2]
				s := sample{at: time.Now()}
				var a answer
				a, s.took, s.err = ask(t, base, "cat", on.file, on.model == "cat")
				s.version = a.ServedBy.Version
				l.mu.Lock()
				defer l.mu.Unlock()
				l.all = append(l.all, s)
			})
		}
	}()
	t.Cleanup(func() { l.end() })
	return l
}

// end ends it, and returns all samples.
func (l *steady) end() []sample {
	l.stop()
	<-l.done
	return l.all
}

// mark waits for a while and says when it was over.
func (l *steady) mark(t *testing.T, d time.Duration) time.Time {
	t.Helper()
	require.NoError(t, pause(t.Context(), d))
	return time.Now()
}

func (l *steady) since(t *testing.T, from time.Time) []sample {
	t.Helper()
	return l.between(t, from, time.Now())
}

func (l *steady) between(t *testing.T, from, to time.Time) []sample {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []sample
	for _, s := range l.all {
		if s.at.After(from) && s.at.Before(to) {
			some = append(some, s)
		}
	}
	require.NotEmpty(t, some)
	return some
}

// turn is after which times a version answered first, and nothing else any more.
func (l *steady) turn(t *testing.T, at time.Time, version int64) (first, last time.Duration) {
	t.Helper()
	for _, s := range l.since(t, at) {
		came := s.at.Add(s.took).Sub(at)
		if s.version == version && (first == 0 || came < first) {
			first = came
		}
		if s.version != version && s.at.After(at) {
			last = max(last, came)
		}
	}
	require.NotZero(t, first)
	return first, last
}

// ms is a quantile of the latencies, in milliseconds.
func ms(samples []sample, quantile float64) float64 {
	took := make([]time.Duration, len(samples))
	for i, s := range samples {
		took[i] = s.took
	}
	slices.Sort(took)
	return float64(took[min(len(took)-1, int(float64(len(took))*quantile))]) / float64(time.Millisecond)
}
