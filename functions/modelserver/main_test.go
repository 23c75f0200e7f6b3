package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what a test waits for something that must happen.
const patience = 30 * time.Second

func TestTheCommandServesBothProtocolsAndDrains(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	onnxtest.Publish(t, base, "affine", 1, onnxtest.Affine(1, 2, 1))
	logs, write := io.Pipe()
	a := &app.App{
		Name: "modelserver", Version: "test", Logger: slog.New(slog.NewJSONHandler(write, nil)),
		Lookup: envconfig.MapLookuper(map[string]string{
			"HOST": "127.0.0.1", "PORT": "0", "REST_PORT": "0", "MODEL_BASE": base, "MODEL_POLL_INTERVAL": "10ms",
			"ONNXRUNTIME_LIB": os.Getenv("ONNXRUNTIME_LIB"),
		}),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, a)
		ended <- err
		_ = write.Close() // a pipe's Close never fails
	}()

	addresses := map[string]string{}
	lines := bufio.NewScanner(logs)
	for len(addresses) < 2 && lines.Scan() {
		var line struct{ Msg, Address string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		if strings.HasPrefix(line.Msg, "serving") {
			addresses[line.Msg] = line.Address
		}
	}
	require.Len(t, addresses, 2, "the command ended early")
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() { // the pipe has no memory
		}
	}()

	client, err := tfserving.Dial(addresses["serving gRPC"])
	require.NoError(t, err)
	x := tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{1, 1}, Data: binary.LittleEndian.AppendUint32(nil, math.Float32bits(4))}
	require.Eventually(t, func() bool {
		out, version, err := client.Predict(t.Context(), tfserving.Spec{Model: "affine"}, map[string]tfserving.Tensor{"x": x})
		if err != nil {
			return false
		}
		y, err := out["y"].Floats()
		return err == nil && version == 1 && len(y) == 1 && y[0] == 9
	}, patience, 10*time.Millisecond)
	require.NoError(t, client.Close())

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addresses["serving"]+"/v1/models/affine:predict", strings.NewReader(`{"instances":[[4]]}`))
	require.NoError(t, err)
	transport := &http.Transport{}
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.JSONEq(t, `{"predictions":[[9]]}`, string(body))
	transport.CloseIdleConnections()

	stop()
	require.NoError(t, <-ended)
	<-drained
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env map[string]string
		why string
	}{
		"sessions": {map[string]string{"SESSIONS": "-1"}, "must not be negative"},
		"port":     {map[string]string{"REST_PORT": "x"}, "REST_PORT"},
		"network":  {map[string]string{"NETWORKS": "a/b", "ONNXRUNTIME_LIB": os.Getenv("ONNXRUNTIME_LIB")}, "a/b"},
	} {
		a := &app.App{Name: "modelserver", Logger: slog.New(slog.DiscardHandler), Lookup: envconfig.MapLookuper(c.env)}
		require.ErrorContains(t, run(t.Context(), a), c.why, name)
	}
}

func TestWhatKoPutsIntoAnImageIsUsedUnlessSomethingElseIsNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ given, want config }{
		"an image of ko's":    {config{Data: "/ko"}, config{Data: "/ko", Base: "/ko/models", Library: "/ko/lib/" + onnx.LibraryName}},
		"a volume instead":    {config{Data: "/ko", Base: "/bucket"}, config{Data: "/ko", Base: "/bucket", Library: "/ko/lib/" + onnx.LibraryName}},
		"a library of theirs": {config{Data: "/ko", Library: "/usr/lib/x.so"}, config{Data: "/ko", Base: "/ko/models", Library: "/usr/lib/x.so"}},
		"no ko":               {config{}, config{Base: "/models"}},
	} {
		c.given.findData()
		require.Equal(t, c.want, c.given, name)
	}
}

func TestKoFindsWhatMakeModelFetched(t *testing.T) {
	t.Parallel()
	c := config{Data: "kodata"} // which ko copies into the image, following links
	c.findData()
	require.FileExists(t, c.Library)
	require.FileExists(t, filepath.Join(c.Base, "inception_v3", "1", "model.onnx"))
}
