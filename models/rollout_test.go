package models_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

const sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// withSource is cat with a source and lines of its roll-out.
func withSource(source string, rollout ...string) string {
	s := "  source: {" + source + "}\n"
	if len(rollout) > 0 {
		s += "  rollout:\n    " + strings.Join(rollout, "\n    ") + "\n"
	}
	return strings.Replace(cat, "input:\n", s+"input:\n", 1)
}

func TestASourceBringsTheDefaultsOfItsRollout(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("m.yaml", withSource("url: 'gs://models/inception_v3'")), "m.yaml")
	require.NoError(t, err)
	require.Equal(t, models.Source{URL: "gs://models/inception_v3", Keep: 3}, m.Serving.Source)
	require.Equal(t, models.Rollout{
		Steps: []int{10, 50}, Hold: models.Duration(time.Minute), Errors: 0.01, Latency: 1.5,
	}, m.Serving.Rollout)
	require.Nil(t, m.Pictures)
}

func TestParseTakesEveryFieldOfARollout(t *testing.T) {
	t.Parallel()
	text := withSource("url: 'grpc://tf:8500/x', files: 's3://b/x', keep: 5",
		"golden:",
		"- {picture: cat.jpg, answer: yes, probability: 0.9}",
		"- {picture: 'https://example.com/dog.jpg', sha256: "+sha+", answer: no}",
		"- {picture: cat.jpg, label: tabby}",
		"steps: [1, 5, 99]", "hold: 1m30s", "errors: 0", "latency: 2")
	m, err := models.Parse(files("d/m.yaml", text, "d/cat.jpg", "\xff\xd8"), "d/m.yaml")
	require.NoError(t, err)
	require.Equal(t, models.Source{URL: "grpc://tf:8500/x", Files: "s3://b/x", Keep: 5}, m.Serving.Source)
	require.Equal(t, models.Rollout{
		Golden: []models.Golden{
			{Picture: "cat.jpg", Answer: "yes", Probability: 0.9},
			{Picture: "https://example.com/dog.jpg", SHA256: sha, Answer: "no"},
			{Picture: "cat.jpg", Label: "tabby"},
		},
		Steps: []int{1, 5, 99}, Hold: models.Duration(90 * time.Second), Latency: 2,
	}, m.Serving.Rollout)
	require.Equal(t, map[string][]byte{"cat.jpg": []byte("\xff\xd8")}, m.Pictures)
}

func TestGoldenPicturesOfAConfigMapAreBinaryData(t *testing.T) {
	t.Parallel()
	definition := withSource("url: 'file:/models/x'", "golden: [{picture: cat.jpg, answer: yes}]")
	text := configMap(definition) + "binaryData:\n  cat.jpg: " + base64.StdEncoding.EncodeToString([]byte("\xff\xd8\xff")) + "\n"
	ms, err := models.ReadManifest(files("m.yaml", text), "m.yaml")
	require.NoError(t, err)
	require.Equal(t, []byte("\xff\xd8\xff"), ms[0].Pictures["cat.jpg"])

	_, err = models.ReadManifest(files("m.yaml", configMap(definition)+"binaryData: {cat.jpg: '*'}\n"), "m.yaml")
	require.ErrorContains(t, err, "m.yaml:31: binaryData[cat.jpg]: is not in base64")
	_, err = models.ReadManifest(files("m.yaml", configMap(definition)+"binaryData: {model.yaml: eA==}\n"), "m.yaml")
	require.ErrorContains(t, err, "m.yaml:31: binaryData[model.yaml]: is given twice")
}

func TestGoldenPicturesThatAreNotThereAreAMistakeOnlyForWhoAsksThem(t *testing.T) {
	t.Parallel()
	definition := withSource("url: 'file:/models/x'", "golden: [{picture: cat.jpg, answer: yes}]")
	const want = "serving.rollout.golden[0].picture: want a file in the same folder, or an http: or https: URL: "

	ms, err := models.ReadManifest(files("m.yaml", configMap(definition)), "m.yaml")
	require.NoError(t, err)
	require.Empty(t, ms[0].Pictures)
	_, err = models.Networks(ms)
	require.EqualError(t, err, "m.yaml:16: "+want+"the ConfigMap has no key cat.jpg")

	_, err = models.Networks(parsed(t, definition))
	require.EqualError(t, err, "m.yaml:9: "+want+"open cat.jpg: file does not exist")

	// What a model without a source knows, versions of the network that it shares are asked as well.
	shared := renamed(strings.Replace(definition, "  source: {url: 'file:/models/x'}\n", "", 1), "dog")
	_, err = models.Networks(parsed(t, withSource("url: 'file:/x'"), shared))
	require.ErrorContains(t, err, want)
}

func TestParseNamesPlaceAndCureOfAMistakeInARollout(t *testing.T) {
	t.Parallel()
	const url = "url: 'http://example.com/x'"
	golden := func(g string) string { return withSource(url, "golden: [{"+g+"}]") }
	tests := []struct{ name, text, want string }{
		{"no URL", withSource("keep: 3"), "m.yaml:7: serving.source.url: is missing"},
		{"no scheme", withSource("url: /models"), "m.yaml:7: serving.source.url: is /models, want a URL with one of the schemes grpc, file, http, https, gs, s3, oci"},
		{"another scheme", withSource("url: 'ftp://x/y'"), "m.yaml:7: serving.source.url: is ftp://x/y, want a URL with one of"},
		{"no host", withSource("url: 'gs:///x'"), "m.yaml:7: serving.source.url: is gs:///x, want a host or a bucket after gs://"},
		{"no folder", withSource("url: 'file:'"), "m.yaml:7: serving.source.url: is file:, want a folder after file://"},
		{"password", withSource("url: 'https://u:secret@x/y'"), "m.yaml:7: serving.source.url: has a user; definitions are no place for credentials"},
		{"only a listing", withSource("url: 'grpc://tf:8500/x'"), "m.yaml:7: serving.source.files: is missing"},
		{"files that are a listing", withSource("url: 'grpc://t:1/x', files: 'grpc://t:1/x'"), "m.yaml:7: serving.source.files: is grpc://t:1/x, want a URL with one of the schemes file,"},
		{"files twice", withSource(url + ", files: 'file:/x'"), "m.yaml:7: serving.source.files: belongs to a grpc: URL"},
		{"one version kept", withSource(url + ", keep: 1"), "m.yaml:7: serving.source.keep: is 1, want a number from 2 to 100"},
		{"a version", strings.Replace(withSource(url), "input:\n", "  version: 1\ninput:\n", 1), "m.yaml:8: serving.version: keeps the version as it is, but serving.source asks for newer ones"},
		{"a label", strings.Replace(withSource(url), "input:\n", "  label: x\ninput:\n", 1), "m.yaml:8: serving.label: keeps the version"},
		{"steps without a source", strings.Replace(cat, "input:\n", "  rollout: {steps: [1]}\ninput:\n", 1), "m.yaml:7: serving.rollout.steps: belongs to serving.source, but there is none"},
		{"all of the traffic as a step", withSource(url, "steps: [10, 100]"), "m.yaml:9: serving.rollout.steps[1]: is 100, want a number from 1 to 99"},
		{"steps back", withSource(url, "steps: [10, 5]"), "m.yaml:9: serving.rollout.steps[1]: is 5 after 10, want more with each step"},
		{"hold without a unit", withSource(url, "hold: 60"), "m.yaml:9: serving.rollout.hold: is 60, want a time such as 30s or 1m30s"},
		{"hold that is a list", withSource(url, "hold: [1s]"), "m.yaml:9: serving.rollout.hold: is a list, want a time such as 30s or 1m30s"},
		{"hold for a day", withSource(url, "hold: 24h"), "m.yaml:9: serving.rollout.hold: is 24h0m0s, want a time from 0s to 1h"},
		{"errors in percent", withSource(url, "errors: 5"), "m.yaml:9: serving.rollout.errors: is 5, want a share from 0 to 1"},
		{"latency below the predecessor's", withSource(url, "latency: 0.5"), "m.yaml:9: serving.rollout.latency: is 0.5, want a factor from 1 to 1000"},
		{"golden without a picture", golden("answer: yes"), "m.yaml:9: serving.rollout.golden[0].picture: is missing"},
		{"golden in another folder", golden("picture: ../x.jpg, answer: yes"), "m.yaml:9: serving.rollout.golden[0].picture: is ../x.jpg, want the name of a file in the same folder"},
		{"golden without an answer", golden("picture: cat.jpg"), "m.yaml:9: serving.rollout.golden[0].answer: is missing, want yes or no"},
		{"golden with another answer", golden("picture: cat.jpg, answer: maybe"), "m.yaml:9: serving.rollout.golden[0].answer: is maybe, want yes or no"},
		{"golden with both", golden("picture: cat.jpg, answer: yes, label: tabby"), "m.yaml:9: serving.rollout.golden[0].label: is given besides the answer"},
		{"golden with an unknown label", golden("picture: cat.jpg, label: kitty"), "m.yaml:9: serving.rollout.golden[0].label: is kitty, which is none of the labels (imagenet-1001)"},
		{"golden with 3 of 1", golden("picture: cat.jpg, answer: no, probability: 3"), "m.yaml:9: serving.rollout.golden[0].probability: is 3, want a probability from 0 to 1"},
		{"URL without a checksum", golden("picture: 'https://x/y.jpg', answer: yes"), "m.yaml:9: serving.rollout.golden[0].sha256: is missing"},
		{"URL with half a checksum", golden("picture: 'https://x/y.jpg', sha256: abcd, answer: yes"), "m.yaml:9: serving.rollout.golden[0].sha256: is abcd, want 64 digits"},
		{"file with a checksum", golden("picture: cat.jpg, sha256: " + sha + ", answer: yes"), "m.yaml:9: serving.rollout.golden[0].sha256: belongs to a picture by URL"},
		{"too many", withSource(url, "golden: ["+strings.Repeat("{picture: cat.jpg, answer: yes}, ", 33)+"]"), "m.yaml:9: serving.rollout.golden: has 33 pictures, want at most 32"},
		{"answer without a question", strings.Replace(golden("picture: cat.jpg, answer: yes"), "question: Is it a cat?\nsubject: a cat\n", "", 1), "m.yaml:7: serving.rollout.golden[0].answer: belongs to a question"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Parse(files("m.yaml", tt.text, "cat.jpg", "x"), "m.yaml")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// parsed reads definitions.
func parsed(t *testing.T, texts ...string) []*models.Model {
	t.Helper()
	all := make([]*models.Model, len(texts))
	for i, text := range texts {
		m, err := models.Parse(files("m.yaml", text), "m.yaml")
		require.NoError(t, err)
		all[i] = m
	}
	return all
}

func renamed(text, name string) string {
	return strings.Replace(text, "name: cat\n", "name: "+name+"\n", 1)
}

func TestModelsThatShareANetworkAreRolledOutTogether(t *testing.T) {
	t.Parallel()
	elsewhere := strings.Replace(renamed(cat, "elsewhere"), "localhost:8500", "localhost:8501", 1)
	networks, err := models.Networks(parsed(t,
		renamed(cat, "dog"), withSource("url: 'file:/x'", "golden: []"), renamed(withSource("url: 'file:/x'"), "bird"), elsewhere))
	require.NoError(t, err)
	require.Len(t, networks, 1)
	require.Equal(t, "inception_v3", networks[0].Name)
	require.Equal(t, "localhost:8500", networks[0].Address)
	require.Equal(t, "file:/x", networks[0].Source.URL)
	require.Equal(t, []string{"dog", "cat", "bird"}, names(networks[0].Models))
}

func TestModelsThatShareANetworkAgreeOnIt(t *testing.T) {
	t.Parallel()
	first := withSource("url: 'file:/x'")
	for _, tc := range []struct{ name, other, want string }{
		{"source", withSource("url: 'file:/y'"), "model dog: serving.source differs from that of model cat"},
		{"steps", withSource("url: 'file:/x'", "steps: [1]"), "model dog: serving.rollout differs from that of model cat"},
		{"address", strings.Replace(first, "8500", "8501", 1), "model dog: serving.model is inception_v3, as model cat has it at another address, localhost:8500"},
		{"version", strings.Replace(cat, "input:\n", "  version: 3\ninput:\n", 1), "model dog: serving keeps a version of the network inception_v3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Networks(parsed(t, first, renamed(tc.other, "dog")))
			require.ErrorContains(t, err, tc.want)
		})
	}
}
