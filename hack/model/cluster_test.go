package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models/oci"
)

const definition = `
name: cat
question: Is it a cat?
subject: a cat
serving:
  address: inception-v3.ebb.svc.cluster.local:80
  model: inception_v3
  source: {url: "gs://models/inception_v3"}
  rollout: {golden: [{picture: cat.jpg, answer: yes}]}
input: {tensor: input, dtype: uint8, width: 299, height: 299}
output: {tensor: logits, labels: labels.txt, yes: [1]}
`

// api is an API server with a model, a state, and modelsync.
func api(t *testing.T) *inCluster {
	t.Helper()
	mux := http.NewServeMux()
	say := func(pattern string, v any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	say("GET /api/v1/namespaces/ebb/configmaps", corev1.ConfigMapList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"},
		Items: []corev1.ConfigMap{{
			ObjectMeta: metav1.ObjectMeta{Name: "model-cat", Labels: map[string]string{"ebb.dev/model": "cat"}},
			Data:       map[string]string{"model.yaml": definition, "labels.txt": "nothing\ncat\n"},
			BinaryData: map[string][]byte{"cat.jpg": []byte("\xff\xd8\xff")},
		}},
	})
	say("GET /api/v1/namespaces/ebb/configmaps/modelsync-inception-v3", corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "modelsync-inception-v3", ResourceVersion: "7"},
		Data:       map[string]string{"state.json": `{"serving": 2}`},
	})
	say("GET /apis/serving.knative.dev/v1/namespaces/ebb/services/modelsync", servingv1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "serving.knative.dev/v1", Kind: "Service"},
		Status: servingv1.ServiceStatus{ConfigurationStatusFields: servingv1.ConfigurationStatusFields{
			LatestReadyRevisionName: "modelsync-00003",
		}},
	})
	mux.HandleFunc("POST /api/v1/namespaces/knative-serving/services/http:activator-service:80/proxy/v1/networks/cat/look", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Knative-Serving-Namespace") != "ebb" || r.Header.Get("Knative-Serving-Revision") != "modelsync-00003" {
			http.Error(w, "of which revision?", http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(service.Looked{Outcome: rollout.RolledOut, State: rollout.State{Serving: 3}})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c := &inCluster{api: &rest.Config{Host: s.URL}, namespace: "ebb", registry: oci.New(oci.Options{})}
	t.Cleanup(c.close)
	return c
}

func TestAClusterIsAskedWithoutModelsync(t *testing.T) {
	t.Parallel()
	c := api(t)
	states, err := c.States(t.Context())
	require.NoError(t, err)
	require.Len(t, states, 1)
	for _, name := range []string{"cat", "inception_v3"} {
		s, err := c.State(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, states[0], s)
		require.EqualValues(t, 2, s.Serving)
		require.Equal(t, []string{"cat"}, s.Models)
	}
	_, err = c.Rollback(t.Context(), "dog", 0)
	require.ErrorContains(t, err, `no network or model "dog"`)
	_, err = c.Allow(t.Context(), "cat", 7)
	require.ErrorIs(t, err, rollout.ErrNotRefused)
}

func TestALookIsModelsyncsOwnThroughTheAPI(t *testing.T) {
	t.Parallel()
	outcome, s, err := api(t).Look(t.Context(), "cat")
	require.NoError(t, err)
	require.Equal(t, rollout.RolledOut, outcome)
	require.EqualValues(t, 3, s.Serving)
}
