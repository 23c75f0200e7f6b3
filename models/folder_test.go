package models_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

// named is the definition cat under another name.
func named(name string) string { return strings.Replace(cat, "name: cat\n", "name: "+name+"\n", 1) }

// folder writes files, and links where the content is an arrow and a target, and returns where.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			require.NoError(t, os.Symlink(target, name))
			continue
		}
		require.NoError(t, os.WriteFile(name, []byte(files[i+1]), 0o600))
	}
	return dir
}

func names(ms []*models.Model) []string {
	list := make([]string, len(ms))
	for i, m := range ms {
		list[i] = m.Name
	}
	return list
}

func TestReadFoldersReadsManifestsAndMountedConfigMaps(t *testing.T) {
	t.Parallel()
	withLabels := strings.Replace(named("labelled"), "imagenet-1001", "labels.txt", 1)
	withLabels = strings.Replace(withLabels, "yes: [282-286]", "yes: [0]", 1)
	for _, tc := range []struct {
		name  string
		files []string
		want  []string
	}{
		{"manifests in the order of their names", []string{"b.yaml", configMap(named("one")), "a.yaml", configMap(named("two"))}, []string{"two", "one"}},
		{"a ConfigMap's volume", []string{
			"..1/model.yaml", cat, "..data", "-> ..1", "model.yaml", "-> ..data/model.yaml",
		}, []string{"cat"}},
		{"volumes in a folder", []string{
			"cat/..1/model.yaml", cat, "cat/..data", "-> ..1", "cat/model.yaml", "-> ..data/model.yaml",
			"labelled/model.yaml", withLabels, "labelled/labels.txt", "a\nb\n",
		}, []string{"cat", "labelled"}},
		{"nothing", nil, []string{}},
		{"what is no model", []string{"service.yaml", service, "README.md", "cat", "deeper/still/model.yaml", cat}, []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ms, err := models.ReadFolders(folder(t, tc.files...))
			require.NoError(t, err)
			require.Equal(t, tc.want, names(ms))
		})
	}
}

func TestALaterFolderReplacesAModelInItsPlace(t *testing.T) {
	t.Parallel()
	other := strings.Replace(cat, "Is it a cat?", "A cat?", 1)
	ms, err := models.ReadFolders(
		folder(t, "1.yaml", configMap(cat), "2.yaml", configMap(named("dog"))),
		folder(t, "model.yaml", other))
	require.NoError(t, err)
	require.Equal(t, []string{"cat", "dog"}, names(ms))
	require.Equal(t, "A cat?", ms[0].Question)
}

func TestAModelThatCannotBeReadIsNamedWithItsFolder(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	bad := folder(t, "m/model.yaml", "name: x\n")
	outside := folder(t, "model.yaml", "-> "+filepath.Join(bad, "m", "model.yaml"))
	for _, tc := range []struct {
		name string
		read func() error
		want string
	}{
		{"no folder", func() error { _, err := models.ReadFolders(missing); return err }, missing},
		{"a mistake", func() error { _, err := models.ReadFolders(bad); return err }, "in " + bad + ": m/model.yaml:1: "},
		{"a link that leads out", func() error { _, err := models.ReadFolders(outside); return err }, "in " + outside},
		{"no file", func() error { _, err := models.ReadFile(filepath.Join(bad, "model.yaml")); return err }, "in " + bad},
		{"no folder of a file", func() error { _, err := models.ReadFile(filepath.Join(missing, "model.yaml")); return err }, missing},
		{"a mistake in a file", func() error { _, err := models.ReadFile(filepath.Join(bad, "m", "model.yaml")); return err }, "model.yaml:1: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			require.ErrorContains(t, tc.read(), tc.want)
		})
	}
}

func TestReadFileReadsADefinitionAndTheLabelsBesideIt(t *testing.T) {
	t.Parallel()
	text := strings.Replace(strings.Replace(cat, "imagenet-1001", "l.txt", 1), "yes: [282-286]", "yes: [0]", 1)
	m, err := models.ReadFile(filepath.Join(folder(t, "any.yaml", text, "l.txt", "a\nb\n"), "any.yaml"))
	require.NoError(t, err)
	require.Equal(t, "cat", m.Name)
	require.Equal(t, []string{"a", "b"}, m.Labels)
}
