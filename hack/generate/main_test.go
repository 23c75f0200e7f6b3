package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/models"
)

const project = "../../config"

func TestTheGeneratedManifestsAreCurrent(t *testing.T) {
	t.Parallel()
	want, err := manifests(project)
	require.NoError(t, err)
	for name, text := range want {
		is, err := os.ReadFile(filepath.Join(project, name))
		require.NoError(t, err)
		require.Equal(t, text, string(is), "config/%s is not what follows from config/models: run `make generate`", name)
	}
}

// copied is the project's manifests, to be changed.
func copied(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(project)))
	return to
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(text)
}

func put(t *testing.T, text string, path ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(path...), []byte(text), 0o600))
}

const lion = `# Somebody's own words.
apiVersion: v1
kind: ConfigMap
metadata:
  name: model-lion
  namespace: ebb
  labels:
    ebb.dev/model: lion
data:
  model.yaml: |
    name: lion
    question: Is it a lion?
    subject: a lion
    serving: {address: "savanna.ebb.svc.cluster.local:80", model: big_cats}
    input: {tensor: x, dtype: uint8, width: 9, height: 9}
    output: {tensor: y, labels: labels.txt, yes: [1]}
    batching: {size: 4, slots: 3}
  labels.txt: |
    nothing
    lion
`

func TestADefinitionIsAllThatAModelNeeds(t *testing.T) {
	t.Parallel()
	config := copied(t)
	put(t, lion, config, "models", "lion.yaml")
	require.NoError(t, write(config))

	all, err := models.ReadFolders(filepath.Join(config, "models"))
	require.NoError(t, err)
	require.Len(t, all, 4)
	file := read(t, config, "models", "lion.yaml")
	require.True(t, strings.HasPrefix(file, lion))
	require.Contains(t, file, `autoscaling.knative.dev/target: "12"`)
	triggers, err := trigger.Parse(strings.NewReader(file), "lion.yaml")
	require.NoError(t, err)
	require.Len(t, triggers, 1)
	require.Equal(t, "dispatch-lion", triggers[0].Subscriber.Name)
	require.Equal(t, "lion", triggers[0].Filter["model"])

	ingress := read(t, config, "300-ingress.yaml")
	require.Contains(t, ingress, `{key: "labels.txt", path: "lion/labels.txt"}`)
	require.Contains(t, read(t, config, "310-deadletter.yaml"), `"cat:6,dog:6,imagenet:6,lion:6"`)
	require.Contains(t, read(t, config, "overlays/base/kustomization.yaml"), "- ../../models/lion.yaml\n")
	networks := read(t, config, "400-networks.yaml")
	require.Contains(t, networks, `{name: NETWORKS, value: "big_cats"}`)
	require.Equal(t, 2, strings.Count(networks, "kind: Service"))

	// Again, nothing changes; another definition is another revision of dispatch and of ingress.
	require.NoError(t, write(config))
	require.Equal(t, file, read(t, config, "models", "lion.yaml"))
	put(t, strings.Replace(file, "yes: [1]", "yes: [0]", 1), config, "models", "lion.yaml")
	require.NoError(t, write(config))
	revision := func(text, of string) string {
		_, after, found := strings.Cut(text, of+`: "`)
		require.True(t, found)
		return after[:hashShown]
	}
	require.NotEqual(t, revision(file, "ebb.dev/definition"), revision(read(t, config, "models", "lion.yaml"), "ebb.dev/definition"))
	require.NotEqual(t, revision(ingress, "ebb.dev/models"), revision(read(t, config, "300-ingress.yaml"), "ebb.dev/models"))

	// What is edited in a generated part does not stay.
	put(t, strings.Replace(file, "retry: 5", "retry: 0", 1), config, "models", "lion.yaml")
	require.NoError(t, write(config))
	require.Contains(t, read(t, config, "models", "lion.yaml"), "retry: 5")

	// A model server elsewhere is not made.
	put(t, strings.Replace(lion, "savanna.ebb", "savanna.zoo", 1), config, "models", "lion.yaml")
	require.NoError(t, write(config))
	require.NotContains(t, read(t, config, "400-networks.yaml"), "savanna")
	require.NoError(t, os.Remove(filepath.Join(config, "models", "lion.yaml")))
	require.NoError(t, write(config))
	require.NotContains(t, read(t, config, "300-ingress.yaml"), "lion")
}

func TestASourceIsAllThatANetworkNeedsToBeLookedAfter(t *testing.T) {
	t.Parallel()
	config := copied(t)
	put(t, lion, config, "models", "lion.yaml")
	require.NoError(t, write(config))
	require.NotContains(t, read(t, config, "600-modelsync.yaml"), "kind: Role", "nobody has rights without a use for them")
	require.NotContains(t, read(t, config, "600-modelsync.yaml"), "kind: PingSource")

	put(t, strings.Replace(lion, "model: big_cats}", "model: big_cats, source: {url: 'https://zoo.example/big_cats'}}", 1), config, "models", "lion.yaml")
	require.NoError(t, write(config))
	modelsync := read(t, config, "600-modelsync.yaml")
	require.Contains(t, modelsync, "resourceNames: [savanna]")
	require.Contains(t, modelsync, "resourceNames: [modelsync-savanna]")
	require.Contains(t, modelsync, "kind: PingSource")
	require.Contains(t, modelsync, `{key: "labels.txt", path: "lion/labels.txt"}`)
	require.NotContains(t, modelsync, "inception")
}

func TestWhatWouldNotFitTogetherIsRefusedAndNothingIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want string }{
		"another file's name":             {"tiger.yaml", lion, "call it lion.yaml"},
		"another ConfigMap's name":        {"lion.yaml", strings.Replace(lion, "name: model-lion", "name: lion", 1), "the Services look for model-lion"},
		"another namespace":               {"lion.yaml", strings.Replace(lion, "namespace: ebb", "namespace: zoo", 1), `metadata.namespace is "zoo"`},
		"a second object":                 {"lion.yaml", lion + "---\nkind: ConfigMap\n", "has to be one ConfigMap"},
		"no ConfigMap":                    {"lion.yaml", strings.Replace(lion, "ConfigMap", "Secret", 1), "has to be one ConfigMap"},
		"no label":                        {"lion.yaml", strings.Replace(lion, "ebb.dev/model", "ebb.dev/mod", 1), "has 0 models"},
		"a definition with a typo":        {"lion.yaml", strings.Replace(lion, "subject:", "subjct:", 1), "did you mean subject?"},
		"a file outside the volume":       {"lion.yaml", strings.ReplaceAll(lion, "labels.txt", "../labels.txt"), "cannot be a key of a ConfigMap"},
		"no YAML":                         {"lion.yaml", "{", "lion.yaml"},
		"a source for a server elsewhere": {"lion.yaml", strings.NewReplacer("savanna.ebb", "savanna.zoo", "model: big_cats}", "model: big_cats, source: {url: 'gs://zoo/cats'}}").Replace(lion), "serving.source is of no use at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := copied(t)
			put(t, c.text, config, "models", c.file)
			require.ErrorContains(t, write(config), c.want)
			require.Equal(t, read(t, project, "300-ingress.yaml"), read(t, config, "300-ingress.yaml"))
			require.Equal(t, c.text, read(t, config, "models", c.file))
		})
	}
	require.ErrorContains(t, write(t.TempDir()), "no model in")
}

func TestAGeneratedPartIsBetweenItsMarks(t *testing.T) {
	t.Parallel()
	const text = "a\n  # made by make generate\n  old\n  # end\nb\n"
	got, err := fill(text, "x: 1\ny: 2\n")
	require.NoError(t, err)
	require.Equal(t, "a\n  # made by make generate\n  x: 1\n  y: 2\n  # end\nb\n", got)
	for name, bad := range map[string]string{
		"no mark":     "a\n",
		"no end":      "# made by make generate\n",
		"twice":       text + text,
		"one in one":  "# made by make generate\n# made by make generate\n# end\n",
		"end at once": "# end\n",
	} {
		_, err := fill(bad, "x\n")
		require.Error(t, err, name)
	}
}

func TestGoldenPicturesOfAModelAreMountedWithIt(t *testing.T) {
	t.Parallel()
	config := copied(t)
	text := read(t, config, "models", "cat.yaml")
	definition, _, _ := strings.Cut(text, madeBelow)
	definition = strings.Replace(definition, "      model: inception_v3\n", "      model: inception_v3\n      source: {url: \"gs://models/inception_v3\"}\n"+
		"      rollout: {golden: [{picture: cat.jpg, answer: yes}]}\n", 1)
	put(t, definition+"binaryData:\n  cat.jpg: /9j/\n", config, "models", "cat.yaml")
	made, err := manifests(config)
	require.NoError(t, err)
	require.Contains(t, made["300-ingress.yaml"], `- {key: "cat.jpg", path: "cat/cat.jpg"}`)
}

func TestModelsThatShareANetworkHaveToAgree(t *testing.T) {
	t.Parallel()
	config := copied(t)
	for name, bucket := range map[string]string{"cat": "one", "dog": "two"} {
		text := read(t, config, "models", name+".yaml")
		put(t, strings.Replace(text, "      model: inception_v3\n",
			"      model: inception_v3\n      source: {url: \"gs://"+bucket+"/x\"}\n", 1), config, "models", name+".yaml")
	}
	_, err := manifests(config)
	require.ErrorContains(t, err, "model dog: serving.source differs from that of model cat")
}
