package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/image"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/oci/ocitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var digestOfFiles = "sha256:" + strings.Repeat("ab", 32)

// anonymous is a keychain without keys, so that no test reads those of who runs it.
var anonymous = authn.NewMultiKeychain()

func registries(t *testing.T, o oci.Options) *image.Registries {
	t.Helper()
	if o.Keychain == nil {
		o.Keychain = anonymous
	}
	client := oci.New(o)
	t.Cleanup(client.Close)
	return image.New(client)
}

// files are the files of a version that needs a tar's long names, more than one block of what is pushed, and an empty file.
func files(t *testing.T) map[string][]byte {
	t.Helper()
	weights := make([]byte, 200_000)
	_, err := rand.NewChaCha8([32]byte{1}).Read(weights)
	require.NoError(t, err)
	return map[string][]byte{
		"saved_model.pb": []byte("graph"),
		"variables/variables.data-00000-of-00001": weights,
		"variables/variables.index":               nil,
		"assets/" + strings.Repeat("long", 50):    []byte("a"),
		"assets/größe.txt":                        []byte("b"),
		"assets.extra/tf_serving_warmup_requests": bytes.Repeat([]byte{7}, 512),
	}
}

func write(t *testing.T, dir string, files map[string][]byte) string {
	t.Helper()
	for name, content := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, content, 0o644))
	}
	return dir
}

func model(t *testing.T) image.Model {
	t.Helper()
	return image.Model{Name: "inception_v3", Version: 3, Dir: write(t, t.TempDir(), files(t)), Digest: digestOfFiles, Source: "gs://models/inception_v3"}
}

// server is a model server's image of Docker's types, as TensorFlow Serving's, or of OCI's, as ko's.
func server(t *testing.T, oci bool, env ...string) v1.Image {
	t.Helper()
	img := empty.Image
	layerType := types.DockerLayer
	if oci {
		img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
		layerType = types.OCILayer
	}
	layer, err := random.Layer(1000, layerType)
	require.NoError(t, err)
	img, err = mutate.AppendLayers(img, layer)
	require.NoError(t, err)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = v1.Config{Env: env, Labels: map[string]string{"org.opencontainers.image.title": "server"}, User: "65532"}
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	return img
}

func push(t *testing.T, to string, what remote.Taggable) {
	t.Helper()
	ref, err := name.ParseReference(to)
	require.NoError(t, err)
	require.NoError(t, remote.Push(ref, what))
}

func pull(t *testing.T, ref string) v1.Image {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	require.NoError(t, err)
	img, err := remote.Image(parsed)
	require.NoError(t, err)
	require.NoError(t, validate.Image(img))
	return img
}

func digestOf(t *testing.T, what interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := what.Digest()
	require.NoError(t, err)
	return h.String()
}

// contents reads a layer as a container's file system gets it.
func contents(t *testing.T, img v1.Image) map[string]*tar.Header {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	r, err := layers[len(layers)-1].Uncompressed()
	require.NoError(t, err)
	defer r.Close()
	found := make(map[string]*tar.Header)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		content, err := io.ReadAll(tr)
		require.NoError(t, err)
		h.Linkname = string(content)
		found[h.Name] = h
	}
}

func TestAnImageIsTheServersWithTheModelWhereItLooks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		oci    bool
		env    []string
		root   string
		folder string
	}{
		{"TensorFlow Serving", false, []string{"MODEL_BASE_PATH=/models"}, "", "/models"},
		{"made by ko", true, []string{"PATH=/bin", "KO_DATA_PATH=/var/run/ko"}, "", "/var/run/ko/models"},
		{"told by its container", true, []string{"KO_DATA_PATH=/var/run/ko"}, "/srv/networks", "/srv/networks"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.New(t)
			base := server(t, tc.oci, tc.env...)
			push(t, reg.Host+"/server:1", base)
			m := model(t)
			m.Root = tc.root

			made, err := registries(t, oci.Options{}).Build(t.Context(), reg.Host+"/server:1", m, reg.Host+"/models/inception")
			require.NoError(t, err)

			folder := tc.folder + "/inception_v3/3"
			require.Equal(t, image.Image{
				Ref: made.Ref, Base: reg.Host + "/server@" + digestOf(t, base), Name: "inception_v3", Version: 3,
				Digest: digestOfFiles, Source: "gs://models/inception_v3", Folder: folder, Layer: made.Layer,
			}, made)
			require.True(t, strings.HasPrefix(made.Ref, reg.Host+"/models/inception@sha256:"), made.Ref)
			img := pull(t, made.Ref)
			found := contents(t, img)
			for file, content := range files(t) {
				at := strings.TrimPrefix(folder, "/") + "/" + file
				require.Contains(t, found, at)
				require.Equal(t, string(content), found[at].Linkname)
			}
			require.NotContains(t, found, "var/run/", "what may be a link in the base is not replaced")
			for _, dir := range []string{tc.folder, tc.folder + "/inception_v3", folder, folder + "/variables"} {
				require.Contains(t, found, strings.TrimPrefix(dir, "/")+"/")
			}
			for at, h := range found {
				mode := int64(0o644)
				if strings.HasSuffix(at, "/") {
					mode = 0o755
				}
				require.Equal(t, []int64{mode, 0, 0, 0}, []int64{h.Mode, int64(h.Uid), int64(h.Gid), h.ModTime.Unix()}, at)
			}

			config, err := img.ConfigFile()
			require.NoError(t, err)
			require.Equal(t, "65532", config.Config.User)
			require.Equal(t, tc.env, config.Config.Env)
			require.Equal(t, "server", config.Config.Labels["org.opencontainers.image.title"])
			require.Equal(t, reg.Host+"/server:1", config.Config.Labels["org.opencontainers.image.base.name"])
			manifest, err := img.Manifest()
			require.NoError(t, err)
			mediaType, err := base.MediaType()
			require.NoError(t, err)
			require.Equal(t, mediaType, manifest.MediaType)
			before, err := base.Layers()
			require.NoError(t, err)
			beforeType, err := before[0].MediaType()
			require.NoError(t, err)
			require.Equal(t, beforeType, manifest.Layers[1].MediaType)
			require.Equal(t, tc.oci, manifest.Annotations["dev.ebb.model.version"] == "3", "annotations are OCI's only")
		})
	}
}

func TestTheSameModelIsTheSameImageWhoeverMakesIt(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	here := model(t)
	there := here
	there.Dir = filepath.Join(t.TempDir(), "elsewhere")
	write(t, there.Dir, files(t))
	require.NoError(t, filepath.WalkDir(there.Dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		mode := os.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		require.NoError(t, os.Chmod(path, mode))
		return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))
	}))
	r := registries(t, oci.Options{})
	first, err := r.Build(t.Context(), reg.Host+"/server:1", here, reg.Host+"/models")
	require.NoError(t, err)
	reg.Forget()
	second, err := r.Build(t.Context(), reg.Host+"/server:1", there, reg.Host+"/models")
	require.NoError(t, err)
	require.Equal(t, first, second)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
		require.Zero(t, reg.Took(method, "/"), "what is there is not pushed again")
	}

	require.NoError(t, os.WriteFile(filepath.Join(there.Dir, "saved_model.pb"), []byte("other"), 0o600))
	third, err := r.Build(t.Context(), reg.Host+"/server:1", there, reg.Host+"/models")
	require.NoError(t, err)
	require.NotEqual(t, first.Ref, third.Ref)
	require.Equal(t, 2, reg.Took(http.MethodPatch, "/"), "the layer and the configuration")
}

// The digests of everything that was ever built depend on these bytes.
func TestTheLayersBytesAreWhatTheyWere(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	made, err := registries(t, oci.Options{}).Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
	require.NoError(t, err)
	require.Equal(t, "sha256:71faaccacffcc3e7f198314b386699800718c2393d6fbc133dab9b83626e6bfc", made.Layer)
}

func TestABaseForSeveralPlatformsMakesAnImageForAll(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []types.MediaType{types.OCIImageIndex, types.DockerManifestList} {
		t.Run(string(mediaType), func(t *testing.T) {
			t.Parallel()
			isOCI := mediaType == types.OCIImageIndex
			reg := ocitest.New(t)
			platforms := []string{"amd64", "arm64"}
			index := mutate.IndexMediaType(empty.Index, mediaType)
			for _, platform := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "unknown", Architecture: "unknown"}} {
				one := server(t, isOCI)
				config, err := one.ConfigFile()
				require.NoError(t, err)
				config = config.DeepCopy()
				config.OS, config.Architecture = platform.OS, platform.Architecture
				one, err = mutate.ConfigFile(one, config)
				require.NoError(t, err)
				index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &platform}})
			}
			push(t, reg.Host+"/server:1", index)
			r := registries(t, oci.Options{})
			made, err := r.Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
			require.NoError(t, err)
			require.Equal(t, reg.Host+"/server@"+digestOf(t, index), made.Base)

			ref, err := name.ParseReference(made.Ref)
			require.NoError(t, err)
			got, err := remote.Index(ref)
			require.NoError(t, err)
			require.NoError(t, validate.Index(got))
			manifest, err := got.IndexManifest()
			require.NoError(t, err)
			require.Equal(t, mediaType, manifest.MediaType)
			require.Len(t, manifest.Manifests, len(platforms))
			for i, d := range manifest.Manifests {
				require.Equal(t, platforms[i], d.Platform.Architecture)
				one, err := r.Describe(t.Context(), reg.Host+"/models@"+d.Digest.String())
				require.NoError(t, err)
				require.Equal(t, made.Base, one.Base)
			}
			described, err := r.Describe(t.Context(), made.Ref)
			require.NoError(t, err)
			require.Equal(t, made, described)

			require.NoError(t, r.Remove(t.Context(), made.Ref))
			for _, d := range manifest.Manifests {
				_, err := r.Describe(t.Context(), reg.Host+"/models@"+d.Digest.String())
				require.ErrorIs(t, err, image.ErrGone)
			}
		})
	}
}

func TestWhatANetworkBreaksIsMadeWholeByTheNextBuild(t *testing.T) {
	t.Parallel()
	from, to := ocitest.New(t), ocitest.New(t)
	base := server(t, true, "KO_DATA_PATH=/ko")
	push(t, from.Host+"/server:1", base)
	m := model(t)
	want := ""
	for n := 0; ; n++ {
		require.Less(t, n, 100)
		breaker := &ocitest.Breaker{At: n}
		repository := to.Host + "/models"
		_, err := registries(t, oci.Options{Transport: breaker}).Build(t.Context(), from.Host+"/server:1", m, repository)
		if !breaker.Broke() {
			require.NoError(t, err)
			require.Positive(t, n)
			break
		}
		require.Error(t, err, "at request %d", n)
		require.NotContains(t, err.Error(), "?", "no query of a URL")
		made, err := registries(t, oci.Options{}).Build(t.Context(), from.Host+"/server:1", m, repository)
		require.NoError(t, err, "after request %d", n)
		pull(t, made.Ref)
		if want == "" {
			want = made.Ref
		}
		require.Equal(t, want, made.Ref)
		require.NoError(t, registries(t, oci.Options{}).Remove(t.Context(), made.Ref))
	}
}

func TestADescriptionLeadsBackToTheServer(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	r := registries(t, oci.Options{})
	made, err := r.Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
	require.NoError(t, err)

	_, err = r.Build(t.Context(), made.Ref, model(t), reg.Host+"/models")
	require.ErrorIs(t, err, image.ErrStacked)
	again, err := r.Describe(t.Context(), made.Ref)
	require.NoError(t, err)
	require.Equal(t, made, again)
	_, err = r.Describe(t.Context(), again.Base)
	require.ErrorIs(t, err, image.ErrNotModel)
	_, err = r.Describe(t.Context(), reg.Host+"/models:none")
	require.ErrorIs(t, err, image.ErrGone)

	next := model(t)
	next.Version = 4
	fourth, err := r.Build(t.Context(), again.Base, next, reg.Host+"/models")
	require.NoError(t, err)
	require.Equal(t, made.Base, fourth.Base)
}

func TestRemoveTakesAwayWhatWasMadeHereAndNothingElse(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	r := registries(t, oci.Options{})
	made, err := r.Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
	require.NoError(t, err)

	require.ErrorIs(t, r.Remove(t.Context(), reg.Host+"/server:1"), image.ErrNotModel)
	require.NoError(t, r.Remove(t.Context(), made.Ref))
	require.NoError(t, r.Remove(t.Context(), made.Ref), "what is gone is removed")
	_, err = r.Describe(t.Context(), made.Ref)
	require.ErrorIs(t, err, image.ErrGone)
	repo, err := name.NewRepository(reg.Host + "/models")
	require.NoError(t, err)
	tags, err := remote.List(repo)
	require.NoError(t, err)
	require.Empty(t, tags)
	pull(t, reg.Host+"/server:1")

	made, err = r.Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
	require.NoError(t, err, "what was removed can be made again")
	pull(t, made.Ref)
	reg.Answer(http.MethodDelete, "/manifests/", http.StatusMethodNotAllowed, "UNSUPPORTED")
	require.ErrorIs(t, r.Remove(t.Context(), made.Ref), image.ErrUnsupported)
	pull(t, made.Ref)
}

type login struct{ user, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.user, Password: l.password}, nil
}

func TestARegistryThatAsksWhoWeAre(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	reg.Protect("ebb", "right-secret")
	for _, tc := range []struct {
		name string
		keys authn.Keychain
		says string
	}{
		{"who knows the password", login{"ebb", "right-secret"}, ""},
		{"who knows another", login{"ebb", "wrong-secret"}, "credentials"},
		{"nobody", anonymous, "credentials"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := registries(t, oci.Options{Keychain: tc.keys}).Build(t.Context(), reg.Host+"/server:1", model(t), reg.Host+"/models")
			if tc.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.says)
			require.ErrorContains(t, err, "401")
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestAModelThatChangesWhileItIsPushedIsNoImage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change string
	}{
		{"shorter", "g"},
		{"longer", "graph and more"},
		{"other", "GRAPH"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.New(t)
			push(t, reg.Host+"/server:1", server(t, true))
			m := model(t)
			change := sync.OnceValue(func() error {
				return os.WriteFile(filepath.Join(m.Dir, "saved_model.pb"), []byte(tc.change), 0o600)
			})
			reg.Wrap(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					// Before the first upload, and so before any file is read for one.
					if req.Method == http.MethodPost && change() != nil {
						panic("the file cannot be changed")
					}
					next.ServeHTTP(w, req)
				})
			})
			r := registries(t, oci.Options{})
			first, err := r.Build(t.Context(), reg.Host+"/server:1", m, reg.Host+"/models")
			if tc.name == "longer" {
				require.NoError(t, err, "what came later is not in it")
				pull(t, first.Ref)
				return
			}
			require.Error(t, err)
			require.Zero(t, reg.Took(http.MethodPut, "/models/manifests/"), "nothing is named that is not whole")
			second, err := r.Build(t.Context(), reg.Host+"/server:1", m, reg.Host+"/models")
			require.NoError(t, err)
			pull(t, second.Ref)
		})
	}
}

func TestABuildEndsWithItsContext(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	arrived := make(chan struct{}, 1)
	reg.Wrap(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method != http.MethodPatch {
				next.ServeHTTP(w, req)
				return
			}
			select {
			case arrived <- struct{}{}:
			default:
			}
			_, _ = io.Copy(io.Discard, req.Body)
			<-req.Context().Done()
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := registries(t, oci.Options{}).Build(ctx, reg.Host+"/server:1", model(t), reg.Host+"/models")
	require.ErrorIs(t, err, ctx.Err())
}

func TestWhatIsNoModelIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	t.Parallel()
	ok := model(t)
	linked := model(t)
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(linked.Dir, "saved_model.pbtxt")))
	with := func(change func(*image.Model)) image.Model {
		m := ok
		change(&m)
		return m
	}
	reg := ocitest.New(t)
	push(t, reg.Host+"/server:1", server(t, true))
	push(t, reg.Host+"/odd:1", server(t, true, "KO_DATA_PATH=../up"))
	artifact, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json"),
		static.NewLayer([]byte("x"), "text/plain"))
	require.NoError(t, err)
	push(t, reg.Host+"/artifact:1", artifact)
	base, to := reg.Host+"/server:1", reg.Host+"/models"
	for _, tc := range []struct {
		name  string
		base  string
		model image.Model
		to    string
		is    error
		says  string
	}{
		{"a name that leads out", base, with(func(m *image.Model) { m.Name = ".." }), to, image.ErrModel, "name"},
		{"a name with a slash", base, with(func(m *image.Model) { m.Name = "a/b" }), to, image.ErrModel, "name"},
		{"no version", base, with(func(m *image.Model) { m.Version = 0 }), to, image.ErrModel, "version 0"},
		{"no digest", base, with(func(m *image.Model) { m.Digest = "sha256:12" }), to, image.ErrModel, "digest"},
		{"a password in the source", base, with(func(m *image.Model) { m.Source = "https://me:secret@host/" }), to, image.ErrModel, "user"},
		{"a relative folder", base, with(func(m *image.Model) { m.Root = "models" }), to, image.ErrModel, "absolute"},
		{"a folder that leads out", base, with(func(m *image.Model) { m.Root = "/a/../.." }), to, image.ErrModel, "absolute"},
		{"the whole file system", base, with(func(m *image.Model) { m.Root = "/" }), to, image.ErrModel, "absolute"},
		{"a base that is no name", "UPPER CASE", ok, to, oci.ErrName, "registry/repository:tag"},
		{"a base with a password", "me:secret@" + base, ok, to, oci.ErrName, "credentials"},
		{"a repository with a tag", base, ok, to + ":tag", oci.ErrName, "without tag"},
		{"a repository without registry", base, ok, "models", oci.ErrName, "registry/repository"},
		{"a base that says nonsense", reg.Host + "/odd:1", ok, to, image.ErrBase, "KO_DATA_PATH"},
		{"a base that does not run", reg.Host + "/artifact:1", ok, to, image.ErrBase, "run"},
		{"a base that is not there", reg.Host + "/server:2", ok, to, nil, "404"},
		{"a folder that is not there", base, with(func(m *image.Model) { m.Dir += "/none" }), to, os.ErrNotExist, "folder"},
		{"an empty folder", base, with(func(m *image.Model) { m.Dir = t.TempDir() }), to, nil, "no files"},
		{"a link", base, linked, to, nil, "neither a file nor a folder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := registries(t, oci.Options{}).Build(t.Context(), tc.base, tc.model, tc.to)
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), "secret")
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
		})
	}
	require.Zero(t, reg.Took(http.MethodPost, "/models/"))
}
