package tfs_test

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
	"github.com/ebb-inference/ebb/models/source/tfs"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	available = serving.ModelVersionStatus_AVAILABLE
	loading   = serving.ModelVersionStatus_LOADING
	end       = serving.ModelVersionStatus_END
)

// modelServer answers GetModelStatus as TensorFlow Serving does.
type modelServer struct {
	serving.UnimplementedModelServiceServer

	mu       sync.Mutex
	versions map[int64]serving.ModelVersionStatus_State
}

func (m *modelServer) set(version int64, state serving.ModelVersionStatus_State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.versions[version] = state
}

func (m *modelServer) GetModelStatus(_ context.Context, r *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.GetModelSpec().GetName() != "resnet" {
		return nil, status.Error(codes.NotFound, "Could not find any versions of model")
	}
	want := r.GetModelSpec().GetVersion().GetValue()
	answer := &serving.GetModelStatusResponse{}
	for version, state := range m.versions {
		if want != 0 && version != want {
			continue
		}
		answer.ModelVersionStatus = append(answer.ModelVersionStatus, &serving.ModelVersionStatus{
			Version: version, State: state,
		})
	}
	if len(answer.GetModelVersionStatus()) == 0 {
		return nil, status.Error(codes.NotFound, "Could not find version of model")
	}
	return answer, nil
}

// start starts a model server, and returns its address and what ends it.
func start(t *testing.T) (*modelServer, string, func()) {
	t.Helper()
	m := &modelServer{versions: make(map[int64]serving.ModelVersionStatus_State)}
	server := grpc.NewServer()
	serving.RegisterModelServiceServer(server, m)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Stop
	}()
	stop := func() {
		server.Stop()
		<-done
	}
	t.Cleanup(stop)
	return m, "grpc://" + listener.Addr().String(), stop
}

func open(t *testing.T, at, dir string, limits source.Limits) source.Source {
	t.Helper()
	files, err := source.Openers{folder.Scheme: folder.Opener(folder.Options{Settle: time.Microsecond})}.Open(
		t.Context(), (&url.URL{Scheme: folder.Scheme, Path: dir}).String(), limits)
	require.NoError(t, err)
	s, err := source.Openers{tfs.Scheme: tfs.Opener(files)}.Open(t.Context(), at, limits)
	require.NoError(t, err)
	return s
}

func TestAModelServersVersionsAreASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Place {
		t.Helper()
		dir := t.TempDir()
		m, at, stop := start(t)
		at += "/resnet"
		publish := func(t *testing.T, name string, files sourcetest.Files, state serving.ModelVersionStatus_State) {
			t.Helper()
			require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			for file, content := range files {
				path := filepath.Join(dir, name, filepath.FromSlash(file))
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
			}
			if version, ok := source.ParseVersion(name); ok {
				m.set(version, state)
			}
		}
		return &sourcetest.Place{
			URL: at,
			Open: func(t *testing.T, limits source.Limits) source.Source {
				t.Helper()
				return open(t, at, dir, limits)
			},
			Publish: func(t *testing.T, name string, files sourcetest.Files) {
				t.Helper()
				publish(t, name, files, available)
			},
			Half: func(t *testing.T, version int64) {
				t.Helper()
				publish(t, strconv.FormatInt(version, 10), sourcetest.Files{"saved_model.pb": "graph"}, loading)
			},
			Away: func(*testing.T) { stop() },
		}
	})
}

func TestOnlyWhatTheServerHasAvailableIsAVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"1", "2", "3", "4"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, version, "model"), []byte(version), 0o644))
	}
	m, at, _ := start(t)
	m.set(1, end)
	m.set(2, available)
	m.set(3, loading)
	s := open(t, at+"/resnet", dir, source.Limits{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{2}, versions)
	for version, want := range map[int64]error{1: source.ErrGone, 3: source.ErrIncomplete, 4: source.ErrGone} {
		_, err := s.Fetch(t.Context(), version, t.TempDir())
		require.ErrorIs(t, err, want, version)
	}
	_, err = s.Fetch(t.Context(), 2, t.TempDir())
	require.NoError(t, err)
}

func TestAServerThatDoesNotKnowTheModelHasNoVersions(t *testing.T) {
	t.Parallel()
	_, at, _ := start(t)
	s := open(t, at+"/other", t.TempDir(), source.Limits{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Empty(t, versions)
}

func TestURLsOfModelServers(t *testing.T) {
	t.Parallel()
	files, err := folder.Opener(folder.Options{})(t.Context(), &url.URL{Path: "/models"}, source.Limits{})
	require.NoError(t, err)
	for _, at := range []string{
		"grpc://host/model", "grpc://:8500/model", "grpc://host:8500", "grpc://host:8500/", "grpc://host:0/model", "grpc://host:99999/model",
		"grpc://host:8500/a/b", "grpc://host:8500/model?token=secret", "grpc://us:secret@host:8500/model",
	} {
		_, err := source.Openers{tfs.Scheme: tfs.Opener(files)}.Open(t.Context(), at, source.Limits{})
		require.ErrorIs(t, err, source.ErrURL, at)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err = source.Openers{tfs.Scheme: tfs.Opener(nil)}.Open(t.Context(), "grpc://host:8500/model", source.Limits{})
	require.ErrorIs(t, err, source.ErrURL)
	require.ErrorContains(t, err, "say where they are")
}
