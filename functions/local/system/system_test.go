package system_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/local/system"
)

// What the tests share: a whole Ebb on the real network, where it listens, and a browser.
var (
	base    string
	browser *pagetest.Browser
)

const (
	root     = "../../.."
	networks = root + "/.ebb/models"
	pictures = root + "/.ebb/pictures"
	programs = root + "/.ebb/bin"
)

func TestMain(m *testing.M) {
	// Every test of the shared system runs over each broker, the others once.
	code, err := withSystem(nil, m.Run)
	if err == nil && code == 0 && flag.Lookup("test.list").Value.String() == "" {
		err = flag.Set("test.skip", "^TestStart|^TestWhenRabbitMQ")
	}
	if err == nil && code == 0 {
		code, err = withRabbitMQ(m.Run)
	}
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// withRabbitMQ runs the tests with everything over a private RabbitMQ.
func withRabbitMQ(tests func() int) (code int, err error) {
	folder, err := os.MkdirTemp("", "system")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	fmt.Println("over RabbitMQ and Knative's data plane:")
	return withSystem(&system.RabbitMQ{Folder: folder, Programs: programs}, tests)
}

// withSystem runs the tests with everything up, and takes it down again.
func withSystem(rabbit *system.RabbitMQ, tests func() int) (code int, err error) {
	for _, needed := range []string{networks, pictures} {
		if _, err := os.Stat(needed); err != nil {
			return 1, fmt.Errorf("%w: `make model pictures` fetches it", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sys, err := system.Start(ctx, system.Config{
		Manifests: []string{root + "/config", root + "/config/models"}, Networks: networks, RabbitMQ: rabbit,
		FetchAllow: []string{"127.0.0.0/8"}, CallbackAllow: []string{"127.0.0.0/8"},
		Timeout: 90 * time.Second, // for a busy machine
		Logger:  slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return 1, err
	}
	ln, err := app.Listen(ctx, "127.0.0.1", 0)
	if err != nil {
		return 1, errors.Join(err, sys.Stop(ctx, time.Minute))
	}
	base = "http://" + ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- app.Serve(ctx, ln, sys, app.ServeOptions{OnDrain: sys.Drain}) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		err = errors.Join(err, <-served, sys.Stop(context.Background(), time.Minute))
	}()
	if browser, err = pagetest.Start(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, browser.Stop()) }()
	return tests(), nil
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(pictures, name))
	require.NoError(t, err)
	return data
}

// send makes a request and returns the status and the body of its answer.
func send(t *testing.T, method, path, contentType string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, bytes.NewReader(body))
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, answer
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal(data, &v), "%s", data)
	return v
}

// answers asks about a picture by POST and returns one result a model.
func answers(t *testing.T, path, contentType string, body []byte) []ask.Result {
	t.Helper()
	status, data := send(t, http.MethodPost, path, contentType, body)
	require.Equal(t, http.StatusOK, status, "%s", data)
	return decode[ask.Response](t, data).Results
}

// pictureCases are the pictures of the tests and what the network must say of them.
var pictureCases = []struct {
	file     string
	cat, dog bool
	top      string // part of the first label
}{
	{"chelsea.png", true, false, "cat"},
	{"dog.jpg", false, true, ""},
	{"coffee.png", false, false, "espresso"},
}

// requireSure checks an answer and that the network is sure of it: P ≥ 0.9 for yes, P ≤ 0.1 for no.
func requireSure(t *testing.T, r ask.Result, model string, yes bool) {
	t.Helper()
	require.Equal(t, model, r.Model)
	require.Nil(t, r.Error)
	require.NotNil(t, r.Answer)
	require.Equal(t, yes, *r.Answer)
	if yes {
		require.GreaterOrEqual(t, *r.Probability, 0.9)
	} else {
		require.LessOrEqual(t, *r.Probability, 0.1)
	}
	require.Equal(t, "inception_v3", r.ServedBy.Model)
	require.Equal(t, int64(1), r.ServedBy.Version)
	require.Len(t, r.Top, 5)
	require.Positive(t, r.Timing.Compute)
	require.GreaterOrEqual(t, r.Timing.Total, r.Timing.Queue+r.Timing.Decode+r.Timing.Batch+r.Timing.Compute)
	require.Positive(t, r.BatchSize)
}

func TestEachPictureIsAnsweredRightlyByEachModel(t *testing.T) {
	t.Parallel()
	for _, tc := range pictureCases {
		t.Run(tc.file, func(t *testing.T) {
			t.Parallel()
			got := answers(t, "/v1/infer?model=cat&model=dog&model=imagenet", "application/octet-stream", read(t, tc.file))
			require.Len(t, got, 3)
			requireSure(t, got[0], "cat", tc.cat)
			requireSure(t, got[1], "dog", tc.dog)
			require.Equal(t, "imagenet", got[2].Model)
			require.Nil(t, got[2].Answer)
			require.Nil(t, got[2].Probability)
			require.Len(t, got[2].Top, 5)
			require.Contains(t, got[2].Top[0].Label, tc.top)
		})
	}
}

func TestEveryWayInAnswersAlike(t *testing.T) {
	t.Parallel()
	picture := read(t, "chelsea.png")
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(picture) }))
	t.Cleanup(files.Close)

	t.Run("multipart form", func(t *testing.T) {
		t.Parallel()
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="image"; filename="cat.png"`}, "Content-Type": {"image/png"}})
		require.NoError(t, err)
		_, err = part.Write(picture)
		require.NoError(t, err)
		require.NoError(t, w.WriteField("model", "dog"))
		require.NoError(t, w.WriteField("model", "cat"))
		require.NoError(t, w.Close())
		got := answers(t, "/v1/infer", w.FormDataContentType(), body.Bytes())
		require.Len(t, got, 2)
		requireSure(t, got[0], "dog", false)
		requireSure(t, got[1], "cat", true)
	})
	t.Run("JSON with an address", func(t *testing.T) {
		t.Parallel()
		body, err := json.Marshal(map[string]any{"url": files.URL + "/cat.png", "models": []string{"cat"}})
		require.NoError(t, err)
		got := answers(t, "/v1/infer", "application/json", body)
		require.Len(t, got, 1)
		requireSure(t, got[0], "cat", true)
	})
	t.Run("TensorFlow Serving's REST, several instances", func(t *testing.T) {
		t.Parallel()
		b64 := func(name string) map[string]string {
			return map[string]string{"b64": base64.StdEncoding.EncodeToString(read(t, name))}
		}
		body, err := json.Marshal(map[string]any{"instances": []any{b64("dog.jpg"), b64("chelsea.png"), b64("coffee.png")}})
		require.NoError(t, err)
		status, data := send(t, http.MethodPost, "/v1/models/cat:predict", "application/json", body)
		require.Equal(t, http.StatusOK, status, "%s", data)
		got := decode[struct{ Predictions []ask.Result }](t, data).Predictions
		require.Len(t, got, 3)
		for i, yes := range []bool{false, true, false} {
			require.NotNil(t, got[i].Answer, "instance %d", i)
			require.Equal(t, yes, *got[i].Answer, "instance %d", i)
		}
	})
	t.Run("Open Inference Protocol with binary tensors", func(t *testing.T) {
		t.Parallel()
		var tensor []byte
		for _, name := range []string{"coffee.png", "chelsea.png"} {
			data := read(t, name)
			tensor = append(binary.LittleEndian.AppendUint32(tensor, uint32(len(data))), data...)
		}
		header, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{
			"name": "image", "datatype": "BYTES", "shape": []int{2}, "parameters": map[string]any{"binary_data_size": len(tensor)},
		}}})
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v2/models/cat/infer", bytes.NewReader(append(header, tensor...)))
		require.NoError(t, err)
		req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(header)))
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", data)
		got := decode[struct {
			Outputs []struct {
				Name string
				Data []any
			}
		}](t, data)
		values := map[string][]any{}
		for _, o := range got.Outputs {
			values[o.Name] = o.Data
		}
		require.Equal(t, []any{false, true}, values["answer"])
		require.Len(t, values["label"], 10)
	})
}

func TestABurstIsAnsweredItemByItem(t *testing.T) {
	t.Parallel()
	const each = 12
	var wg sync.WaitGroup
	for _, tc := range pictureCases {
		picture := read(t, tc.file)
		for range each {
			wg.Go(func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/infer?model=cat", bytes.NewReader(picture))
				if !assertNoError(t, err) {
					return
				}
				resp, err := http.DefaultClient.Do(req)
				if !assertNoError(t, err) {
					return
				}
				defer resp.Body.Close()
				var got ask.Response
				if !assertNoError(t, json.NewDecoder(resp.Body).Decode(&got)) || len(got.Results) != 1 || got.Results[0].Answer == nil {
					t.Errorf("%s: %s: %+v", tc.file, resp.Status, got)
					return
				}
				if *got.Results[0].Answer != tc.cat {
					t.Errorf("%s: answered %v", tc.file, *got.Results[0].Answer)
				}
				if size := got.Results[0].BatchSize; size < 1 || size > 8 {
					t.Errorf("%s: in a batch of %d", tc.file, size)
				}
			})
		}
	}
	wg.Wait()
}

func assertNoError(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

func TestWhatIsWrongIsRefusedInPlainWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, path string
		body       []byte
		status     int
	}{
		{"text instead of a picture", "/v1/infer?model=cat", []byte("hello, I am no picture"), http.StatusUnsupportedMediaType},
		{"nothing at all", "/v1/infer?model=cat", nil, http.StatusBadRequest},
		{"a model that there is not", "/v1/infer?model=unicorn", read(t, "chelsea.png"), http.StatusNotFound},
		{"no model", "/v1/infer", read(t, "chelsea.png"), http.StatusBadRequest},
		{"half a picture", "/v1/infer?model=cat", read(t, "dog.jpg")[:8000], http.StatusUnprocessableEntity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, data := send(t, http.MethodPost, tc.path, "application/octet-stream", tc.body)
			require.Equal(t, tc.status, status, "%s", data)
		})
	}
}

func TestThePageAnswersInABrowser(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		file       string
		cat, dog   string
		screenshot string
	}{
		{"chelsea.png", "Yes, a cat", "No, not a dog", "real-cat"},
		{"dog.jpg", "No, not a cat", "Yes, a dog", "real-dog"},
		{"coffee.png", "No, not a cat", "No, not a dog", "real-coffee"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			t.Parallel()
			tab := browser.Tab(t)
			tab.Open(base + "/")
			path, err := filepath.Abs(filepath.Join(pictures, tc.file))
			require.NoError(t, err)
			tab.Upload("#image", path)
			tab.Until(`document.querySelector('#preview').naturalWidth > 0`)
			tab.Until(`(document.querySelectorAll('input[name=model]').forEach(b => b.checked = b.value !== 'imagenet'), true)`)
			tab.Click("#go")
			tab.Until(`document.querySelector('#answers').dataset.state === 'answered'`)
			said := tab.Text("#answers")
			require.Contains(t, said, tc.cat)
			require.Contains(t, said, tc.dog)
			require.Contains(t, said, "inception_v3, version 1")
			tab.Screenshot(tc.screenshot)
		})
	}
}

func TestHealthIsServed(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/health/liveness", "/health/readiness", "/v2/models/cat/ready"} {
		status, data := send(t, http.MethodGet, path, "", nil)
		require.Equal(t, http.StatusOK, status, "%s: %s", path, data)
	}
}

func TestStartSaysWhatIsWrongWithTheModels(t *testing.T) {
	t.Parallel()
	cat, err := os.ReadFile(root + "/config/models/cat.yaml")
	require.NoError(t, err)
	manifest := string(cat)
	definition, _, _ := strings.Cut(manifest, "---")
	for _, tc := range []struct{ name, yaml, says string }{
		{"no model at all", "", "no model in"},
		{"a model without a Trigger", definition, `no Trigger in`},
		{"a Trigger for another model", strings.ReplaceAll(manifest, "      model: cat\n", "      model: lion\n"), `"lion"`},
		{"a subscriber that is not here", strings.ReplaceAll(manifest, "name: dispatch-cat", "name: elsewhere"), `"elsewhere"`},
		{"a network that was not fetched", strings.ReplaceAll(manifest, "model: inception_v3", "model: resnet18"), "make model MODEL=resnet18"},
		{"a field that there is not", strings.ReplaceAll(manifest, "      top: 5\n", "      tap: 5\n"), "cat.yaml:33"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(folder, "cat.yaml"), []byte(tc.yaml), 0o600))
			sys, err := system.Start(t.Context(), system.Config{Manifests: []string{folder}, Networks: networks, Logger: slog.New(slog.DiscardHandler)})
			require.Nil(t, sys)
			require.ErrorContains(t, err, tc.says)
		})
	}
}

// lines is a log that a test can wait for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestStartSaysForWhichModelServerItWaits(t *testing.T) {
	t.Parallel()
	ln, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	require.NoError(t, ln.Close()) // nobody answers there
	ctx, cancel := context.WithCancel(t.Context())
	log := make(lines, 100)
	failed := make(chan error, 1)
	go func() {
		_, err := system.Start(ctx, system.Config{
			Manifests: []string{root + "/config", root + "/config/models"}, Serving: ln.Addr().String(), Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		failed <- err
	}()
	line := <-log
	cancel()
	require.Contains(t, line, "waiting until everything is ready")
	require.Contains(t, line, "model server "+ln.Addr().String())
	require.ErrorContains(t, <-failed, "not ready")
}
