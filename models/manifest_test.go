package models_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

// configMap wraps a definition as a manifest does; the definition's line n is the result's line n+7.
func configMap(definition string, more ...string) string {
	indent := func(s string) string {
		return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ") + "\n"
	}
	s := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\n  labels: {ebb.dev/model: m}\ndata:\n  model.yaml: |\n" + indent(definition)
	for i := 0; i < len(more); i += 2 {
		s += "  " + more[i] + ": |\n" + indent(more[i+1])
	}
	return s
}

const service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x, labels: {ebb.dev/model: m}}\n"

func TestReadManifestReadsTheModelsOfAllDocuments(t *testing.T) {
	t.Parallel()
	text := "# models\n---\n" + configMap(cat) + "---\n" + service + "---\n---\n- just\n- a list\n---\n" +
		"kind: ConfigMap\nmetadata: {name: other}\ndata: {model.yaml: nonsense}\n---\n" +
		configMap(resnet, "labels.txt", "cat\ndog\nbird\n")
	ms, err := models.ReadManifest(files("config/models/m.yaml", text), "config/models/m.yaml")
	require.NoError(t, err)
	require.Len(t, ms, 2)
	require.Equal(t, "cat", ms[0].Name)
	require.Equal(t, "resnet-50", ms[1].Name)
	require.Equal(t, []string{"cat", "dog", "bird"}, ms[1].Labels)
}

func TestReadManifestWithoutModelsIsEmpty(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", service, "---\n---\n", "null\n"} {
		ms, err := models.ReadManifest(files("m.yaml", text), "m.yaml")
		require.NoError(t, err)
		require.Empty(t, ms)
	}
}

func TestReadManifestNamesTheManifestsLines(t *testing.T) {
	t.Parallel()
	bad := strings.Replace(cat, "width: 299", "width: 0", 1) // its line 10
	tests := []struct{ name, text, want string }{
		{"field", configMap(bad), "m.yaml:17: input.width: is 0, want a number from 1 to 2048"},
		{"missing field", configMap(strings.Replace(cat, "name: cat\n", "", 1)), "m.yaml:8: name: is missing"},
		{"leading blank line", configMap("\n" + bad), "m.yaml:18: input.width: is 0"},
		{"second document", configMap(cat) + "---\n" + configMap(bad), "m.yaml:45: input.width: is 0"},
		{"not written line by line", strings.Replace(configMap(`x`), "|\n    x", `"name: cat\nwitdh: 3"`, 1), "m.yaml:7: witdh: is not a field"},
		{"definition is not YAML", configMap("name: cat\n*\n"), "m.yaml:9: is not YAML"},
		{"empty definition", configMap("# later\n"), "m.yaml:8: is empty"},
		{"manifest is not YAML", service + "---\nkind: [\n", "m.yaml:5: is not YAML"},
		{"label file", configMap(strings.Replace(cat, "imagenet-1001", "l.txt", 1), "l.txt", "a\n\nb\n"),
			"m.yaml:26: output.labels: m.yaml:30: is empty, want one label a line"},
		{"no label file", configMap(strings.Replace(cat, "imagenet-1001", "l.txt", 1)), "m.yaml:26: output.labels: want imagenet-1001, imagenet-1000 or a file in the same folder: the ConfigMap has no key l.txt"},
		{"no definition", strings.Replace(configMap(cat), "model.yaml:", "model.yml:", 1), "m.yaml:1: data: lacks the key model.yaml, which the label ebb.dev/model promises"},
		{"key twice", configMap(cat, "model.yaml", cat), "m.yaml:28: data[model.yaml]: is given twice; give it once"},
		{"value is no text", strings.Replace(configMap("x"), "|\n    x", `{}`, 1), "m.yaml:7: data[model.yaml]: is fields (key: value), want text"},
		{"name twice", configMap(cat) + "---\n" + configMap(cat), "m.yaml:36: name: is cat, as that of the model on line 8; give each its own"},
		{"too large", configMap(cat) + "#" + strings.Repeat("x", 1<<20), "m.yaml: is larger than the 1024 KiB allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.ReadManifest(files("m.yaml", tt.text), "m.yaml")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadManifestReportsTheMistakesOfAllModels(t *testing.T) {
	t.Parallel()
	bad := strings.Replace(cat, "width: 299", "width: 0", 1)
	_, err := models.ReadManifest(files("m.yaml", configMap(bad)+"---\n"+configMap(bad)), "m.yaml")
	require.ErrorContains(t, err, "m.yaml:17: input.width")
	require.ErrorContains(t, err, "m.yaml:45: input.width")
}

func FuzzReadManifest(f *testing.F) {
	f.Add(configMap(cat) + "---\n" + service)
	f.Add(configMap(resnet, "labels.txt", "cat\ndog\nbird\n"))
	f.Add("kind: ConfigMap\nmetadata: &a {labels: {ebb.dev/model: *a}}\ndata: {model.yaml: >\n  x\n}")
	f.Fuzz(func(t *testing.T, text string) {
		ms, err := models.ReadManifest(files("m.yaml", text), "m.yaml")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "m.yaml"), "%v", err)
			require.NotContains(t, err.Error(), "m.yaml:0")
		}
		for _, m := range ms {
			require.NotEmpty(t, m.Labels)
		}
	})
}
