// Package current_test holds how networks keep themselves current where all of Ebb is one process: versions are published at a
// source while questions are asked without a pause, and come to serve, or are refused, with nobody's help. No question may be
// answered wrongly, or not at all.
package current_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/system"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	modelsync "github.com/ebb-inference/ebb/functions/modelsync/service"
)

const (
	root     = "../../.."
	programs = root + "/.ebb/bin"
	patience = time.Minute // for anything, on a busy machine
	interval = 5 * time.Millisecond
	golden   = 7 // the number of the picture whose answer is known
	askers   = 3
)

// measured is what the process counts; roll-outs are watched by it.
var measured = prometheus.NewRegistry()

func TestMain(m *testing.M) {
	exporter, err := promexporter.New(promexporter.WithRegisterer(measured))
	if err != nil {
		panic(err)
	}
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	goleak.VerifyTestMain(m)
}

// place is an Ebb whose network mirror comes from a folder where versions are published.
type place struct {
	published string
	url       string
	events    *heard
}

func start(t *testing.T, rabbit *system.RabbitMQ) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{published: filepath.Join(dir, "published", mirror.Plain), events: listen(t)}
	base, definitions, triggers := filepath.Join(dir, "models"), filepath.Join(dir, "definitions"), filepath.Join(dir, "triggers")
	require.NoError(t, os.MkdirAll(p.published, 0o750))
	require.NoError(t, mirror.WriteNetworks(base))
	require.NoError(t, mirror.WriteDefinitions(definitions))
	require.NoError(t, mirror.WriteTriggers(triggers))
	p.define(t, definitions)
	require.NoError(t, os.WriteFile(filepath.Join(triggers, "watcher.yaml"), fmt.Appendf(nil, watcher, p.events.url), 0o600))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	sys, err := system.Start(t.Context(), system.Config{
		Manifests: []string{definitions, triggers}, Networks: base, RabbitMQ: rabbit, Calls: measured,
		SyncInterval: 50 * time.Millisecond, Logger: log,
	})
	require.NoError(t, err)
	public := httptest.NewServer(sys)
	p.url = public.URL
	t.Cleanup(func() {
		public.Close()
		require.NoError(t, sys.Stop(context.Background(), time.Minute))
	})
	return p
}

// define gives the model a source, and a golden picture.
func (p *place) define(t *testing.T, definitions string) {
	t.Helper()
	name := mirror.DefinitionFile(definitions, mirror.Plain)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	best := 0
	values := mirror.Values(golden)
	for i, v := range values {
		if v > values[best] {
			best = i
		}
	}
	with := strings.Replace(string(text), "input:\n", fmt.Sprintf("  source: {url: 'file://%s', keep: 2}\n"+
		"  rollout: {golden: [{picture: golden.png, label: %s}], hold: 200ms, latency: 1000}\ninput:\n", p.published, mirror.Label(best)), 1)
	require.NoError(t, os.WriteFile(name, []byte(with), 0o600))
	picture, err := mirror.Picture(golden)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(name), "golden.png"), picture, 0o600))
}

// watcher is somebody who wants to know what becomes of networks.
const watcher = `apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: watcher, namespace: ebb}
spec:
  broker: ebb
  filter: {attributes: {subject: mirror}}
  subscriber: {uri: "%[1]s"}
  delivery:
    retry: 3
    backoffPolicy: exponential
    backoffDelay: PT0.2S
    timeout: PT10S
    deadLetterSink: {uri: "%[1]s"}
`

// heard are the events that were sent.
type heard struct {
	url string

	mu  sync.Mutex
	all []string // "refused 3"
}

func listen(t *testing.T) *heard {
	t.Helper()
	h := &heard{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var data events.ModelChangeData
		if err := json.NewDecoder(r.Body).Decode(&data); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		what := strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Ce-Type"), "dev.ebb.model."), ".v1")
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, fmt.Sprint(what, " ", data.Version))
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *heard) has(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if e == what {
			return true
		}
	}
	return false
}

// publish publishes a version as its maker does: all of it, with checksums, under its name at once.
func (p *place) publish(t *testing.T, version int64, network []byte, corrupt bool) {
	t.Helper()
	hidden := filepath.Join(p.published, ".new")
	require.NoError(t, os.MkdirAll(hidden, 0o750))
	sums := fmt.Sprintf("%x  model.onnx\n", sha256.Sum256(network))
	if corrupt {
		network = append(bytes.Clone(network), 0)
	}
	require.NoError(t, os.WriteFile(filepath.Join(hidden, "model.onnx"), network, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(hidden, "SHA256SUMS"), []byte(sums), 0o600))
	require.NoError(t, os.Rename(hidden, filepath.Join(p.published, strconv.FormatInt(version, 10))))
}

// file is the network of a mirror's model.
func file(t *testing.T, name string) []byte {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, mirror.WriteVersion(dir, name))
	data, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	require.NoError(t, err)
	return data
}

// load is questions without a pause.
type load struct {
	cancel context.CancelFunc
	asking sync.WaitGroup

	mu       sync.Mutex
	versions map[int64]int
	failures []string
}

// ask begins to ask, until stop.
func (p *place) ask(t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, versions: map[int64]int{}}
	// A kept connection may be closed in the moment in which it is used, which would look like what is looked for.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	for i := range askers {
		l.asking.Go(func() {
			for n := 1000 * i; ctx.Err() == nil; n++ {
				version, err := p.one(client, n)
				l.mu.Lock()
				if err != nil {
					l.failures = append(l.failures, err.Error())
				} else {
					l.versions[version]++
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// one asks about one picture, and returns the version that answered.
func (p *place) one(client *http.Client, n int) (int64, error) {
	picture, err := mirror.Picture(n)
	if err != nil {
		return 0, err
	}
	resp, err := client.Post(p.url+"/v1/infer?model="+mirror.Plain, "image/png", bytes.NewReader(picture))
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("picture %d: %s: %s", n, resp.Status, body)
	}
	var answers ask.Response
	if err := json.Unmarshal(body, &answers); err != nil || len(answers.Results) != 1 {
		return 0, fmt.Errorf("picture %d: %w: %s", n, err, body)
	}
	a := answers.Results[0]
	if a.ServedBy == nil || a.ServedBy.Version == 0 {
		return 0, fmt.Errorf("picture %d: the answer names no version", n)
	}
	return a.ServedBy.Version, mirror.Check(mirror.Plain, n, a.Top)
}

// stop ends the questions, and wants all of them answered rightly.
func (l *load) stop(t *testing.T) map[int64]int {
	t.Helper()
	l.cancel()
	l.asking.Wait()
	require.Empty(t, l.failures)
	return l.versions
}

// until waits until a version has given so many answers more.
func (l *load) until(t *testing.T, version int64, more int) {
	t.Helper()
	answered := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		require.Empty(t, l.failures)
		return l.versions[version]
	}
	for want := answered() + more; answered() < want; {
		select {
		case <-time.After(interval):
		case <-t.Context().Done():
			return
		}
	}
}

func (p *place) state(t *testing.T) rollout.State {
	t.Helper()
	resp, err := http.Get(p.url + modelsync.Path + "/" + mirror.Plain)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var s rollout.State
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&s))
	return s
}

// until waits until the state is as wanted.
func (p *place) until(t *testing.T, what string, is func(rollout.State) bool) rollout.State {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		s := p.state(t)
		if is(s) {
			return s
		}
		require.True(t, time.Now().Before(end), "%s: %+v", what, s)
		time.Sleep(interval)
	}
}

func serves(version int64) func(rollout.State) bool {
	return func(s rollout.State) bool { return s.Serving == version && s.Candidate == nil }
}

func refused(version int64) func(rollout.State) bool {
	return func(s rollout.State) bool {
		return len(s.Refused) > 0 && s.Refused[len(s.Refused)-1].Version == version && s.Candidate == nil
	}
}

// page is what the page about networks says.
func (p *place) page(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(p.url + "/home/models")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strings.ReplaceAll(string(body), "&nbsp;", "\u00a0")
}

// operate runs the operator's tool.
func (p *place) operate(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./hack/model"}, append(args, "--url", p.url)...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func TestANetworkKeepsItselfCurrentAndNoQuestionFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rabbit func(t *testing.T) *system.RabbitMQ
	}{
		{"in one process", func(*testing.T) *system.RabbitMQ { return nil }},
		{"over RabbitMQ and Knative's data plane", func(t *testing.T) *system.RabbitMQ {
			t.Helper()
			return &system.RabbitMQ{Folder: t.TempDir(), Programs: programs}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t, tc.rabbit(t))
			good := file(t, mirror.Plain)
			p.until(t, "the first look", serves(1))
			asked := p.ask(t)
			asked.until(t, 1, 10)

			p.publish(t, 2, good, false)
			p.until(t, "version 2 serves by itself", serves(2))
			asked.until(t, 2, 10)

			p.publish(t, 3, good, true)
			s := p.until(t, "a corrupt version is refused", refused(3))
			require.Contains(t, s.Refused[0].Reason, "corrupt")
			p.publish(t, 4, file(t, mirror.Negative), false)
			s = p.until(t, "a version with worse answers is refused", refused(4))
			require.Contains(t, s.Refused[1].Reason, "golden picture golden.png: version refused: the answer is ")
			p.publish(t, 5, onnxtest.Pixels().Bytes(), false)
			s = p.until(t, "a version with another signature is refused", refused(5))
			require.Contains(t, s.Refused[2].Reason, "its input \"pixels\" has the shape [-1 2 2], and the definition's is [-1 2 2 3]")
			p.publish(t, 6, []byte("not a network"), false)
			s = p.until(t, "a version that cannot be loaded is refused", refused(6))
			require.Contains(t, s.Refused[3].Reason, "the model server cannot load it")
			require.EqualValues(t, 2, s.Serving)

			shown := p.page(t)
			for _, text := range []string{"Version\u00a02</strong> serves", "Version\u00a03 refused", "it is not what SHA256SUMS says", "and v1 is known"} {
				require.Contains(t, shown, text)
			}

			out := p.operate(t, "rollback", mirror.Plain)
			require.Contains(t, out, "version 1 since")
			s = p.state(t)
			require.EqualValues(t, 1, s.Serving)
			asked.until(t, 1, 10)
			checked := s.LastCheck
			s = p.until(t, "two more looks", func(s rollout.State) bool { return s.LastCheck.After(checked.Add(150 * time.Millisecond)) })
			require.EqualValues(t, 1, s.Serving, "what was taken back stays so")

			require.Contains(t, p.operate(t, "allow", mirror.Plain, "2"), "allowed 2")
			p.until(t, "until it is allowed", serves(2))
			p.publish(t, 7, good, false)
			p.until(t, "and a newer one is welcome", serves(7))
			s = p.until(t, "older ones are removed", func(s rollout.State) bool { return len(s.Kept) == 2 })
			require.Equal(t, []int64{2, 7}, s.Kept)

			versions := asked.stop(t)
			require.Len(t, versions, 3, "1, 2 and 7 answered: %v", versions)
			for _, what := range []string{"found 2", "staged 2", "shifted 2", "serving 2", "refused 3", "refused 4", "refused 5", "refused 6", "returned 1", "allowed 2", "serving 7"} {
				require.Eventually(t, func() bool { return p.events.has(what) }, patience, interval, what)
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}
