package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/image"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/oci/ocitest"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/registry"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are without the keys of who runs the test.
var options = oci.Options{Keychain: authn.NewMultiKeychain()}

func open(t *testing.T, at string, limits source.Limits) source.Source {
	t.Helper()
	s, err := source.Openers{registry.Scheme: registry.Opener(options)}.Open(t.Context(), at, limits)
	require.NoError(t, err)
	return s
}

// fetch fetches version 1.
func fetch(t *testing.T, at string) (source.Fetched, sourcetest.Files, error) {
	t.Helper()
	s := open(t, at, source.Limits{})
	defer s.Close()
	dir := t.TempDir()
	got, err := s.Fetch(t.Context(), 1, dir)
	files := sourcetest.Files{}
	if err == nil {
		root := os.DirFS(dir)
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			require.NoError(t, err)
			if d.IsDir() {
				return nil
			}
			name, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			content, err := root.Open(name)
			require.NoError(t, err)
			defer content.Close()
			text, err := io.ReadAll(content)
			require.NoError(t, err)
			files[name] = string(text)
			return nil
		}))
	}
	return got, files, err
}

// entry is one of a tar.
type entry struct {
	name    string
	content string
	kind    byte // a file if it is 0
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o600}
		switch e.kind {
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.content))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = e.content
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(w, e.content)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func entriesOf(prefix string, files sourcetest.Files) []entry {
	var entries []entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, entry{name: prefix + name, content: files[name]})
	}
	return entries
}

// imageOf is an image with layers, the lowest first.
func imageOf(t *testing.T, layers ...[]byte) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, content := range layers {
		var err error
		img, err = mutate.AppendLayers(img, static.NewLayer(content, types.OCILayer))
		require.NoError(t, err)
	}
	return img
}

// artifactOf is an artifact as ORAS makes it, with a layer a file.
func artifactOf(t *testing.T, files sourcetest.Files) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		img = titled(t, img, name, files[name])
	}
	return img
}

func titled(t *testing.T, img v1.Image, name, content string) v1.Image {
	t.Helper()
	img, err := mutate.Append(img, mutate.Addendum{
		Layer: static.NewLayer([]byte(content), "application/octet-stream"), Annotations: map[string]string{"org.opencontainers.image.title": name},
	})
	require.NoError(t, err)
	return img
}

// push pushes what a test made. It does nothing when there can be no such tag.
func push(t *testing.T, repo, tag string, what remote.Taggable) {
	t.Helper()
	ref, err := name.NewTag(repo + ":" + tag)
	if err != nil {
		return
	}
	require.NoError(t, remote.Push(ref, what))
}

func TestARepositoryIsASource(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		query string
		made  func(t *testing.T, tag string, files sourcetest.Files) v1.Image
		evil  func(t *testing.T, tag, name string, files sourcetest.Files) v1.Image // nil when it cannot have the name
	}{
		{
			"of artifacts", "",
			func(t *testing.T, _ string, files sourcetest.Files) v1.Image {
				t.Helper()
				return artifactOf(t, files)
			},
			func(t *testing.T, _, name string, files sourcetest.Files) v1.Image {
				t.Helper()
				if !utf8.ValidString(name) {
					return nil // in no JSON
				}
				return titled(t, artifactOf(t, files), name, "evil")
			},
		},
		{
			"of images", "?path=/srv/net/{version}",
			func(t *testing.T, tag string, files sourcetest.Files) v1.Image {
				t.Helper()
				return imageOf(t, tarOf(t, entry{name: "bin/server", content: "program"}), tarOf(t, entriesOf("srv/net/"+tag+"/", files)...))
			},
			func(t *testing.T, tag, name string, files sourcetest.Files) v1.Image {
				t.Helper()
				if name == "" || strings.ContainsRune(name, 0) {
					return nil // in no tar
				}
				in := "srv/net/" + tag + "/"
				return imageOf(t, tarOf(t, append(entriesOf(in, files), entry{name: in + name, content: "evil"})...))
			},
		},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, func(t *testing.T) *sourcetest.Place {
				t.Helper()
				reg := ocitest.New(t)
				tap := &sourcetest.Tap{Files: func(r *http.Request) bool {
					return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
				}}
				reg.Wrap(func(next http.Handler) http.Handler {
					tap.Place = next
					return tap
				})
				repo := reg.Host + "/models/net"
				at := "oci://" + repo + kind.query
				return &sourcetest.Place{
					URL: at, Verified: true,
					Open: func(t *testing.T, limits source.Limits) source.Source {
						t.Helper()
						return open(t, at, limits)
					},
					Publish: func(t *testing.T, name string, files sourcetest.Files) {
						t.Helper()
						push(t, repo, name, kind.made(t, name, files))
					},
					Half: func(t *testing.T, version int64) {
						t.Helper()
						tag := strconv.FormatInt(version, 10)
						ref, err := name.NewTag(repo + ":" + tag)
						require.NoError(t, err)
						require.NoError(t, remote.Put(ref, kind.made(t, tag, sourcetest.Files{"other": "is not pushed"})))
					},
					Corrupt: func(t *testing.T, version int64) {
						t.Helper()
						tag := strconv.FormatInt(version, 10)
						push(t, repo, tag, kind.made(t, tag, sourcetest.Files{"model": "weights"}))
						reg.Corrupt("/blobs/")
					},
					Hostile: func(t *testing.T, version int64, name string, files sourcetest.Files) bool {
						t.Helper()
						tag := strconv.FormatInt(version, 10)
						img := kind.evil(t, tag, name, files)
						if img != nil {
							push(t, repo, tag, img)
						}
						return img != nil
					},
					Break: func(t *testing.T, after int64, lost func()) {
						t.Helper()
						tap.Break(after, lost)
					},
					Away: func(t *testing.T) {
						t.Helper()
						reg.Close()
					},
				}
			})
		})
	}
}

func TestWhereTheFilesAreInALayer(t *testing.T) {
	t.Parallel()
	want := sourcetest.Files{"saved_model.pb": "graph", "variables/index": "index"}
	in := func(folder string) []byte {
		return tarOf(t, append([]entry{{name: folder, kind: tar.TypeDir}}, entriesOf(folder, want)...)...)
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	with := func(content []byte, mediaType types.MediaType, annotations map[string]string) v1.Image {
		img, err := mutate.Append(artifact, mutate.Addendum{Layer: static.NewLayer(content, mediaType), Annotations: annotations})
		require.NoError(t, err)
		return img
	}
	modelcar := imageOf(t, in("models/"))
	platforms := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageOf(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
		mutate.IndexAddendum{Add: modelcar, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	for _, tc := range []struct {
		name  string
		query string
		what  remote.Taggable
	}{
		{"a modelcar", "", modelcar},
		{"a modelcar for several platforms", "", platforms},
		{"compressed", "", imageOf(t, gzipped(t, in("models/")))},
		{"names from ./ on", "", imageOf(t, in("./models/"))},
		{"names from / on", "", imageOf(t, in("/models/"))},
		{"where the URL says", "?path=/opt/net", imageOf(t, in("opt/net/"))},
		{"the whole image", "?path=/", imageOf(t, in(""))},
		{"the version's folder", "?path=/models/net/{version}", imageOf(t, in("models/net/1/"), in("models/net/2/"))},
		{"a tar.gz without a title", "", with(gzipped(t, in("")), "application/vnd.cncf.flux.content.v1.tar+gzip", nil)},
		{"a folder as ORAS packs it", "?path=/{version}", with(gzipped(t, in("1/")), types.OCILayer, map[string]string{
			"org.opencontainers.image.title": "1", "io.deis.oras.content.unpack": "true"})},
		{"files beside others", "?path=/model", titled(t, titled(t, titled(t, artifact, "README.md", "words"),
			"model/saved_model.pb", "graph"), "model/variables/index", "index")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.New(t)
			push(t, reg.Host+"/net", "1", tc.what)
			got, files, err := fetch(t, "oci://"+reg.Host+"/net"+tc.query)
			require.NoError(t, err)
			require.Equal(t, want, files)
			require.True(t, got.Verified)
		})
	}
}

func TestWhatAModelsImageSaysItHasIsBrought(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	repo := reg.Host + "/models/net"
	want := sourcetest.Files{"saved_model.pb": "graph", "variables/index": "index", "empty": ""}
	push(t, repo, "1", artifactOf(t, want))
	dir := t.TempDir()
	s := open(t, "oci://"+repo, source.Limits{})
	defer s.Close()
	fetched, err := s.Fetch(t.Context(), 1, dir)
	require.NoError(t, err)
	server, err := random.Image(100_000, 2)
	require.NoError(t, err)
	push(t, reg.Host+"/server", "1", server)
	client := oci.New(options)
	defer client.Close()
	model := image.Model{Name: "net", Version: 1, Dir: dir, Digest: fetched.Digest}
	made, err := image.New(client).Build(t.Context(), reg.Host+"/server:1", model, reg.Host+"/built")
	require.NoError(t, err)

	as := func(repo string, what v1.Image) string {
		push(t, reg.Host+"/"+repo, "1", what)
		return "oci://" + reg.Host + "/" + repo
	}
	ref, err := name.ParseReference(made.Ref)
	require.NoError(t, err)
	img, err := remote.Image(ref)
	require.NoError(t, err)
	reg.Forget()
	got, files, err := fetch(t, as("published", img))
	require.NoError(t, err)
	require.Equal(t, want, files)
	require.Equal(t, fetched, got)
	layers, err := server.Layers()
	require.NoError(t, err)
	for _, layer := range layers {
		digest, err := layer.Digest()
		require.NoError(t, err)
		require.Zero(t, reg.Took(http.MethodGet, "/published/blobs/"+digest.String()), "the server is not brought")
	}

	// A layer on top, as of somebody's Dockerfile, is not the model's.
	img, err = mutate.AppendLayers(img, static.NewLayer(tarOf(t, entry{name: "models/net/1/more", content: "?"}), types.DockerLayer))
	require.NoError(t, err)
	_, files, err = fetch(t, as("more", img))
	require.NoError(t, err)
	require.Equal(t, want, files)

	model.Digest = "sha256:" + strings.Repeat("0", 64)
	made, err = image.New(client).Build(t.Context(), reg.Host+"/server:1", model, reg.Host+"/built")
	require.NoError(t, err)
	ref, err = name.ParseReference(made.Ref)
	require.NoError(t, err)
	img, err = remote.Image(ref)
	require.NoError(t, err)
	_, _, err = fetch(t, as("lies", img))
	require.ErrorIs(t, err, source.ErrCorrupt)
}

func TestLayersAreReadAsAContainerSeesThem(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   sourcetest.Files
	}{
		{"a file above another", [][]entry{{{name: "models/a", content: "old"}, {name: "models/b", content: "b"}}, {{name: "models/a", content: "new"}}},
			sourcetest.Files{"a": "new", "b": "b"}},
		{"a file taken away", [][]entry{{{name: "models/a"}, {name: "models/b"}}, {{name: "models/.wh.a"}}}, sourcetest.Files{"b": ""}},
		{"a file taken away and put back", [][]entry{{{name: "models/a", content: "old"}}, {{name: "models/.wh.a"}}, {{name: "models/a", content: "new"}}},
			sourcetest.Files{"a": "new"}},
		{"the folder taken away", [][]entry{{{name: "models/a"}}, {{name: ".wh.models"}}, {{name: "models/b"}}}, sourcetest.Files{"b": ""}},
		{"the folder made anew, in any order", [][]entry{{{name: "models/a"}}, {{name: "models/b"}, {name: "models/.wh..wh..opq"}}}, sourcetest.Files{"b": ""}},
		{"all of the image taken away", [][]entry{{{name: "models/a"}}, {{name: ".wh..wh..opq"}, {name: "models/b"}}}, sourcetest.Files{"b": ""}},
		{"a file where a folder was", [][]entry{{{name: "models/a/b"}}, {{name: "models/a", content: "file"}}}, sourcetest.Files{"a": "file"}},
		{"a folder where a file was", [][]entry{{{name: "models/a"}}, {{name: "models/a/b", content: "file"}}}, sourcetest.Files{"a/b": "file"}},
		{"a link that is taken away", [][]entry{{{name: "models/a", content: "/etc", kind: tar.TypeSymlink}}, {{name: "models/a", content: "file"}}},
			sourcetest.Files{"a": "file"}},
		{"links elsewhere", [][]entry{{{name: "bin/sh", content: "busybox", kind: tar.TypeSymlink}, {name: "models/a"}, {name: "bin/.wh.a"}}},
			sourcetest.Files{"a": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.New(t)
			var layers [][]byte
			for _, entries := range tc.layers {
				layers = append(layers, tarOf(t, entries...))
			}
			push(t, reg.Host+"/net", "1", imageOf(t, layers...))
			_, files, err := fetch(t, "oci://"+reg.Host+"/net")
			require.NoError(t, err)
			require.Equal(t, tc.want, files)
		})
	}
}

func TestWhatIsNoVersionIsRefused(t *testing.T) {
	t.Parallel()
	good := tarOf(t, entry{name: "models/a", content: strings.Repeat("a", 5000)})
	twice := tarOf(t, entry{name: "models/a"}, entry{name: "models/a"})
	for _, tc := range []struct {
		name string
		what remote.Taggable
		is   error
		says string
	}{
		{"a symbolic link", imageOf(t, tarOf(t, entry{name: "models/a", content: "/etc/passwd", kind: tar.TypeSymlink})), source.ErrCorrupt, "neither"},
		{"a hard link", imageOf(t, tarOf(t, entry{name: "models/a", content: "etc/passwd", kind: tar.TypeLink})), source.ErrCorrupt, "neither"},
		{"a device", imageOf(t, tarOf(t, entry{name: "models/a", kind: tar.TypeChar})), source.ErrCorrupt, "neither"},
		{"the folder is a file", imageOf(t, tarOf(t, entry{name: "models"})), source.ErrCorrupt, "not a folder"},
		{"the folder is a link", imageOf(t, tarOf(t, entry{name: "models", content: "/data", kind: tar.TypeSymlink})), source.ErrCorrupt, "neither"},
		{"two files of one name", imageOf(t, twice), source.ErrCorrupt, "two things"},
		{"a tar that breaks off", imageOf(t, good[:2000]), source.ErrCorrupt, "tar"},
		{"compression that breaks off", imageOf(t, gzipped(t, good)[:40]), source.ErrCorrupt, "tar"},
		{"a layer that is no tar", imageOf(t, bytes.Repeat([]byte("x"), 5000)), source.ErrCorrupt, "tar"},
		{"no files in the folder", imageOf(t, tarOf(t, entry{name: "net/a"})), source.ErrIncomplete, "?path="},
		{"an index of nothing", empty.Index, source.ErrCorrupt, "index"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.New(t)
			push(t, reg.Host+"/net", "1", tc.what)
			_, _, err := fetch(t, "oci://"+reg.Host+"/net")
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.says)
		})
	}
}

func TestABombIsNotUnpacked(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/net", "1", imageOf(t, gzipped(t, tarOf(t, entry{name: "models/a", content: strings.Repeat("0", 100_000)}))))
	s := open(t, "oci://"+reg.Host+"/net", source.Limits{Bytes: 1000})
	defer s.Close()
	dir := t.TempDir()
	_, err := s.Fetch(t.Context(), 1, dir)
	require.ErrorIs(t, err, source.ErrLimit)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestAURLThatIsNoRepositorySaysWhatToWrite(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ url, says string }{
		{"oci://host.example/net:3", "without a tag"},
		{"oci://host/net", "a dot or a port"},
		{"oci://host/net@sha256:" + strings.Repeat("0", 64), "without a tag"},
		{"oci://host/", "oci://registry/repository"},
		{"oci:///net", "oci://registry/repository"},
		{"oci://host.example/Net", "lower case"},
		{"oci://host.example/net?path=models", "absolute"},
		{"oci://host.example/net?path=/a/../b", "absolute"},
		{"oci://host.example/net?path=/a&path=/b", "one path"},
		{"oci://host.example/net?tag=3", "one path"},
		{"oci://me:secret@host/net", "user"},
	} {
		t.Run(tc.url, func(t *testing.T) {
			t.Parallel()
			_, err := source.Openers{registry.Scheme: registry.Opener(options)}.Open(t.Context(), tc.url, source.Limits{})
			require.ErrorIs(t, err, source.ErrURL)
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

type login struct{ user, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.user, Password: l.password}, nil
}

func TestARegistryThatAsksWhoWeAre(t *testing.T) {
	t.Parallel()
	reg := ocitest.New(t)
	push(t, reg.Host+"/net", "1", artifactOf(t, sourcetest.Files{"model": "weights"}))
	reg.Protect("ebb", "right-secret")
	with := func(password string) source.Source {
		openers := source.Openers{registry.Scheme: registry.Opener(oci.Options{Keychain: login{"ebb", password}})}
		s, err := openers.Open(t.Context(), "oci://"+reg.Host+"/net", source.Limits{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	_, err := with("right-secret").Fetch(t.Context(), 1, t.TempDir())
	require.NoError(t, err)
	_, err = with("wrong-secret").Versions(t.Context())
	require.ErrorContains(t, err, "credentials")
	require.NotContains(t, err.Error(), "wrong-secret")
	_, err = with("wrong-secret").Fetch(t.Context(), 1, t.TempDir())
	require.ErrorContains(t, err, "credentials")
	require.NotErrorIs(t, err, source.ErrGone)
}
