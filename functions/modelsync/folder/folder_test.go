package folder_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/functions/modelsync/folder"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a model server with the network mirror, and its Target.
type place struct {
	base   string
	client *tfserving.Client
	target *folder.Target
}

func newPlace(t *testing.T, versions ...int64) *place {
	t.Helper()
	p := &place{base: t.TempDir()}
	require.NoError(t, os.MkdirAll(filepath.Join(p.base, mirror.Plain), 0o750))
	for _, v := range versions {
		require.NoError(t, mirror.WriteVersion(p.home(v), mirror.Plain))
	}
	loader := server.Networks(onnxtest.Loader(t, onnx.Options{}))
	log := slog.New(slog.DiscardHandler)
	s, err := server.New(server.Config{
		Base: p.base, Loader: loader, Models: []store.Model{{Name: mirror.Plain}}, Interval: 20 * time.Millisecond, Logger: log,
	})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.ServeGRPC(ln) }()
	p.client, err = tfserving.Dial(ln.Addr().String())
	require.NoError(t, err)
	p.target, err = folder.New(folder.Config{Base: p.base, Network: mirror.Plain, Server: p.client, Loader: loader, Logger: log})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		require.NoError(t, p.target.Close(ctx))
		require.NoError(t, p.client.Close())
		require.NoError(t, s.Stop(ctx))
		require.NoError(t, <-done)
	})
	if len(versions) > 0 {
		p.awaitServing(t, versions[len(versions)-1])
	}
	return p
}

func (p *place) home(v int64) string {
	return filepath.Join(p.base, mirror.Plain, strconv.FormatInt(v, 10))
}

func (p *place) awaitServing(t *testing.T, v int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := p.target.Serving(t.Context())
		return err == nil && s.Version == v
	}, time.Minute, time.Millisecond)
}

// fetched is a candidate whose files are here.
func (p *place) fetched(t *testing.T, v int64) rollout.Candidate {
	t.Helper()
	scratch, err := folder.Scratch(p.base)
	require.NoError(t, err)
	dir := filepath.Join(scratch, "new")
	require.NoError(t, mirror.WriteVersion(dir, mirror.Plain))
	return rollout.Candidate{Version: v, Digest: "sha256:x", Dir: dir}
}

func ask(ctx context.Context, client *tfserving.Client) (int64, error) {
	_, version, err := client.Predict(ctx, tfserving.Spec{Model: mirror.Plain}, map[string]tfserving.Tensor{
		"pixels": {DType: tfserving.Uint8, Shape: []int64{1, 2, 2, 3}, Data: make([]byte, 12)},
	}, "values")
	return version, err
}

// load asks without a pause until the test ends it, and wants every call answered.
func (p *place) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	calls := 0
	asking.Go(func() {
		for ; ctx.Err() == nil; calls++ {
			if _, err := ask(context.WithoutCancel(ctx), p.client); err != nil {
				t.Errorf("a call was not answered: %v", err)
				return
			}
		}
	})
	return func() {
		cancel()
		asking.Wait()
		require.Greater(t, calls, 10)
	}
}

func serving(t *testing.T, p *place) rollout.Serving {
	t.Helper()
	s, err := p.target.Serving(t.Context())
	require.NoError(t, err)
	return s
}

func TestAVersionComesAndGoesWhileEveryCallIsAnswered(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	stop := p.load(t)
	require.Equal(t, rollout.Serving{Version: 1, Kept: []int64{1}}, serving(t, p))

	c := p.fetched(t, 2)
	address, err := p.target.Stage(t.Context(), c)
	require.NoError(t, err)
	c.Dir = ""
	again, err := p.target.Stage(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, address, again)
	candidate, err := tfserving.Dial(address)
	require.NoError(t, err)
	version, err := ask(t.Context(), candidate)
	require.NoError(t, err)
	require.NoError(t, candidate.Close())
	require.EqualValues(t, 2, version)
	require.Equal(t, rollout.Serving{Version: 1, Kept: []int64{1}}, serving(t, p), "it has no traffic")

	for range 2 { // what is done already changes nothing
		require.NoError(t, p.target.Shift(t.Context(), c, 100))
		require.Equal(t, rollout.Serving{Version: 2, Kept: []int64{1, 2}}, serving(t, p))
	}
	for range 2 {
		require.NoError(t, p.target.Return(t.Context(), 1))
		require.Equal(t, rollout.Serving{Version: 1, Kept: []int64{1, 2}}, serving(t, p))
	}
	require.NoError(t, p.target.Return(t.Context(), 2))
	require.EqualValues(t, 2, serving(t, p).Version)
	require.ErrorIs(t, p.target.Return(t.Context(), 7), rollout.ErrGone)

	third := p.fetched(t, 3)
	_, err = p.target.Stage(t.Context(), third)
	require.NoError(t, err)
	require.NoError(t, p.target.Shift(t.Context(), third, 100))
	for range 2 {
		require.NoError(t, p.target.Abandon(t.Context(), third))
		require.Equal(t, rollout.Serving{Version: 2, Kept: []int64{1, 2}}, serving(t, p))
	}
	stop()
}

func TestACandidateThatCannotBeLoadedIsRefusedWithTheServersReason(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	c := p.fetched(t, 2)
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir, "model.onnx"), []byte("not a network"), 0o600))
	_, err := p.target.Stage(t.Context(), c)
	require.ErrorIs(t, err, rollout.ErrRefused)
	require.ErrorContains(t, err, "load")
	require.NoError(t, p.target.Abandon(t.Context(), c))
	require.NoDirExists(t, filepath.Join(p.base, ".candidates", mirror.Plain, "2"))
}

func TestAVersionPutThereByHandServes(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	require.NoError(t, mirror.WriteVersion(p.home(5), mirror.Plain))
	p.awaitServing(t, 5)
	require.Equal(t, []int64{1, 5}, serving(t, p).Kept)
}

func TestPruningLeavesWhatIsNamedAndWhatServes(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1, 2, 3, 4)
	require.NoError(t, p.target.Return(t.Context(), 3))
	require.NoError(t, p.target.Prune(t.Context(), []int64{2}))
	require.Equal(t, rollout.Serving{Version: 3, Kept: []int64{2, 3}}, serving(t, p))
	entries, err := os.ReadDir(filepath.Join(p.base, mirror.Plain))
	require.NoError(t, err)
	require.Len(t, entries, 3, "2, 3 and an empty .aside")
}

func TestAFolderHasNoPartOfTheTraffic(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	require.ErrorContains(t, p.target.Shift(t.Context(), rollout.Candidate{Version: 2}, 10), "not 10 %")
}

func TestANameThatLeadsOutIsNoNetworks(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, name := range []string{"", "..", "a/b", ".hidden"} {
		_, err := folder.New(folder.Config{Base: p.base, Network: name, Server: p.client, Loader: server.Networks(onnxtest.Loader(t, onnx.Options{}))})
		require.ErrorContains(t, err, "cannot be the name of a network's folder")
	}
}

func TestRecordsKeepWhatOnlyOneMayChange(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	r := folder.NewRecords(base, "net")
	s, none, err := r.Load(t.Context())
	require.NoError(t, err)
	require.Zero(t, s)
	require.Empty(t, none)

	first, err := r.Save(t.Context(), rollout.State{Network: "net", Serving: 1}, none)
	require.NoError(t, err)
	_, err = r.Save(t.Context(), rollout.State{}, none)
	require.ErrorIs(t, err, rollout.ErrConflict)
	second, err := r.Save(t.Context(), rollout.State{Network: "net", Serving: 2}, first)
	require.NoError(t, err)
	_, err = r.Save(t.Context(), rollout.State{}, first)
	require.ErrorIs(t, err, rollout.ErrConflict)

	s, revision, err := folder.NewRecords(base, "net").Load(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Serving)
	require.Equal(t, second, revision)

	require.NoError(t, os.WriteFile(filepath.Join(base, ".rollouts", "net.json"), []byte("{"), 0o600))
	_, _, err = r.Load(t.Context())
	require.ErrorContains(t, err, "remove it to begin anew")
}
