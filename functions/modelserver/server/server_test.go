package server_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// interval is short, so that tests need not wait for the second look at a folder.
const interval = 10 * time.Millisecond

// patience is what a test waits for something that must happen.
const patience = 30 * time.Second

var reader = sdkmetric.NewManualReader()

func TestMain(m *testing.M) {
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	goleak.VerifyTestMain(m)
}

// fixture is a server on loopback over a folder of its own, and the client that the rest of Ebb uses.
type fixture struct {
	*server.Server
	base   string
	target string // gRPC
	url    string // REST
	client *tfserving.Client
}

func start(t *testing.T, base string, configure func(*server.Config)) *fixture {
	t.Helper()
	c := server.Config{
		Base: base, Loader: server.Networks(onnxtest.Loader(t, onnx.Options{})), Interval: interval,
		Logger: slog.New(slog.DiscardHandler),
	}
	if configure != nil {
		configure(&c)
	}
	s, err := server.New(c)
	require.NoError(t, err)
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.ServeGRPC(ln) }()
	rest := httptest.NewServer(s.REST())
	client, err := tfserving.Dial(ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		rest.Close()
		require.NoError(t, client.Close())
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
		require.NoError(t, <-served)
	})
	return &fixture{Server: s, base: base, target: ln.Addr().String(), url: rest.URL, client: client}
}

// ready waits until the server is.
func (fx *fixture) ready(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return fx.Ready() == nil }, patience, interval)
}

// dial returns a plain connection, for what the client does not do.
func (fx *fixture) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(fx.target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// serveAffine publishes y = x·scale + offset for rows of two, as version 1 of "affine", and waits until it is served.
func serveAffine(t *testing.T, configure func(*server.Config)) *fixture {
	t.Helper()
	base := t.TempDir()
	onnxtest.Publish(t, base, "affine", 1, onnxtest.Affine(2, 2, 1))
	fx := start(t, base, configure)
	fx.ready(t)
	return fx
}

func floats(shape []int64, values ...float32) tfserving.Tensor {
	t := tfserving.Tensor{DType: tfserving.Float32, Shape: shape}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

// fake is a network whose calls the test holds.
type fake struct {
	predict func(ctx context.Context) error
}

func (f *fake) Warm(context.Context) error { return nil }
func (f *fake) Close() error               { return nil }
func (f *fake) Signature() tfserving.Signature {
	info := map[string]tfserving.TensorInfo{"x": {Name: "x", DType: tfserving.Float32, Shape: []int64{-1}}}
	return tfserving.Signature{Method: onnx.PredictMethod, Inputs: info, Outputs: info}
}
func (f *fake) Check(string, tfserving.DType, []int64) error { return nil }
func (f *fake) Predict(ctx context.Context, in map[string]tfserving.Tensor, _ []string) (map[string]tfserving.Tensor, time.Duration, error) {
	return in, 0, f.predict(ctx)
}

// startFake serves a fake as version 1 of "fake".
func startFake(t *testing.T, predict func(ctx context.Context) error, configure func(*server.Config)) *fixture {
	t.Helper()
	base := t.TempDir()
	onnxtest.PublishFile(t, base, "fake", 1, nil)
	fx := start(t, base, func(c *server.Config) {
		c.Loader = store.LoaderFunc[server.Network](func(context.Context, string) (server.Network, error) { return &fake{predict}, nil })
		if configure != nil {
			configure(c)
		}
	})
	fx.ready(t)
	return fx
}

// askFake makes one call.
func (fx *fixture) askFake(ctx context.Context) error {
	_, _, err := fx.client.Predict(ctx, tfserving.Spec{Model: "fake"}, map[string]tfserving.Tensor{"x": floats([]int64{1}, 1)})
	return err
}

// TestAVersionIsSwappedUnderLoadWithoutAFailedCall publishes versions 2 to 6 one after the other while eight callers ask
// without a pause. Version v multiplies by v.
func TestAVersionIsSwappedUnderLoadWithoutAFailedCall(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	onnxtest.Publish(t, base, "times", 1, onnxtest.Affine(1, 1, 0))
	fx := start(t, base, nil)
	fx.ready(t)

	const last = 6
	var answered [last + 1]atomic.Int64
	failed := make(chan error, 1)
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				x := float32(caller*1000 + i%1000 + 1)
				out, version, err := fx.client.Predict(t.Context(), tfserving.Spec{Model: "times"}, map[string]tfserving.Tensor{"x": floats([]int64{1, 1}, x)})
				if err == nil {
					var y []float32
					if y, err = out["y"].Floats(); err == nil && (len(y) != 1 || y[0] != x*float32(version)) {
						err = fmt.Errorf("version %d answered %v to %v", version, y, x)
					}
				}
				if err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
				answered[version].Add(1)
			}
		})
	}
	enough := func(version int) func() bool { return func() bool { return answered[version].Load() >= 50 } }
	require.Eventually(t, enough(1), patience, interval)
	for version := 2; version <= last; version++ {
		onnxtest.Publish(t, base, "times", version, onnxtest.Affine(1, float32(version), 0))
		require.Eventually(t, enough(version), patience, interval)
	}
	close(stop)
	callers.Wait()
	close(failed)
	require.NoError(t, <-failed)
	require.Eventually(t, func() bool {
		all, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "times"})
		available := 0
		for _, v := range all {
			if v.Available() {
				available++
			}
		}
		return err == nil && available == 1
	}, patience, interval, "the old versions are dropped")
}

func TestAVersionThatCannotBeLoadedLeavesTheOldOneAndSaysWhy(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, nil)
	whole := onnxtest.Affine(2, 3, 0).Bytes()
	onnxtest.PublishFile(t, fx.base, "affine", 2, whole[:len(whole)-10])
	status := func() []tfserving.VersionStatus {
		all, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "affine"})
		require.NoError(t, err)
		return all
	}
	require.Eventually(t, func() bool { return status()[0].Version == 2 && status()[0].Err != nil }, patience, interval)
	require.ErrorContains(t, status()[0].Err, "model.onnx")
	_, version, err := fx.client.Predict(t.Context(), tfserving.Spec{Model: "affine"}, map[string]tfserving.Tensor{"x": floats([]int64{1, 2}, 1, 2)})
	require.NoError(t, err)
	require.EqualValues(t, 1, version)

	require.NoError(t, os.WriteFile(filepath.Join(fx.base, "affine", "2", "model.onnx"), whole, 0o600))
	require.Eventually(t, func() bool { return status()[0].Version == 2 && status()[0].Available() }, patience, interval)
}

func TestThatEverythingIsLoadedIsSaidOnce(t *testing.T) {
	t.Parallel()
	loaded := make(chan struct{}, 8)
	fx := serveAffine(t, func(c *server.Config) { c.Loaded = func() { loaded <- struct{}{} } })
	<-loaded
	require.NoError(t, fx.Ready())
	onnxtest.Publish(t, fx.base, "affine", 2, onnxtest.Affine(2, 3, 0))
	require.Eventually(t, func() bool {
		all, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "affine"})
		return err == nil && all[0].Version == 2 && all[0].Available()
	}, patience, interval)
	require.NoError(t, fx.Stop(t.Context())) // nobody watches any more
	require.Empty(t, loaded)
}

func TestStopFinishesCallsUnderWay(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	fx := startFake(t, func(context.Context) error {
		close(entered)
		<-release
		return nil
	}, nil)
	answered := make(chan error, 1)
	go func() { answered <- fx.askFake(t.Context()) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- fx.Stop(context.WithoutCancel(t.Context())) }()
	require.Eventually(t, func() bool { return fx.Ready() != nil }, patience, interval)
	close(release)
	require.NoError(t, <-answered)
	require.NoError(t, <-stopped)
	require.NoError(t, fx.Stop(t.Context()), "a second stop does nothing")
}

func TestStopCutsCallsOffWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	fx := startFake(t, func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}, nil)
	answered := make(chan error, 1)
	go func() { answered <- fx.askFake(t.Context()) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, fx.Stop(ctx), "cut off")
	require.Error(t, <-answered)
}

func TestTooManyCallsAreUnavailable(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	fx := startFake(t, func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}, func(c *server.Config) { c.MaxCalls = 1 })
	first := make(chan error, 1)
	go func() { first <- fx.askFake(t.Context()) }()
	<-entered
	require.ErrorIs(t, fx.askFake(t.Context()), tfserving.ErrUnavailable)
	code, body, header := fx.post(t, "/v1/models/fake:predict", `{"instances":[1]}`)
	require.Equal(t, 503, code)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Contains(t, body, "1 predictions are under way")
	close(release)
	require.NoError(t, <-first)
}

func TestAPredictionHasATimeLimit(t *testing.T) {
	t.Parallel()
	fx := startFake(t, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}, func(c *server.Config) { c.Timeout = time.Millisecond })
	require.ErrorIs(t, fx.askFake(t.Context()), context.DeadlineExceeded)
	code, _, _ := fx.post(t, "/v1/models/fake:predict", `{"instances":[1]}`)
	require.Equal(t, 504, code)
}
