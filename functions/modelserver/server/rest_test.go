package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/models/store"
)

func (fx *fixture) do(t *testing.T, method, path string, body io.Reader) (int, string, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, fx.url+path, body)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(answer), response.Header
}

func (fx *fixture) post(t *testing.T, path, body string) (int, string, http.Header) {
	t.Helper()
	return fx.do(t, http.MethodPost, path, strings.NewReader(body))
}

func TestRESTAnswersLikeTensorFlowServing(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	onnxtest.Publish(t, base, "affine", 1, onnxtest.Affine(2, 2, 1))
	onnxtest.Publish(t, base, "pixels", 3, onnxtest.Pixels())
	onnxtest.PublishFile(t, base, "broken", 1, []byte("not a network"))
	fx := start(t, base, func(c *server.Config) {
		c.Models = []store.Model{{Name: "affine", Labels: map[string]int64{"stable": 1}}, {Name: "pixels"}, {Name: "broken"}}
	})
	fx.ready(t)
	const affine, pixels = "/v1/models/affine", "/v1/models/pixels"
	const status = `{"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}`
	for _, c := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"status", "GET", affine, "", 200, status},
		{"status of a version", "GET", affine + "/versions/1", "", 200, status},
		{"status of a label", "GET", affine + "/labels/stable", "", 200, status},
		{"metadata", "GET", affine + "/versions/1/metadata", "", 200, `{
			"model_spec": {"name": "affine", "version": "1", "signature_name": ""},
			"metadata": {"signature_def": {"signature_def": {"serving_default": {
				"inputs": {"x": {"name": "x", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": false}}},
				"outputs": {"y": {"name": "y", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": false}}},
				"method_name": "tensorflow/serving/predict"}}}}}`},
		{"rows", "POST", affine + ":predict", `{"instances":[[1,2],[3,4]]}`, 200, `{"predictions":[[3,5],[7,9]]}`},
		{"named rows", "POST", affine + "/versions/1:predict", `{"signature_name":"serving_default","instances":[{"x":[1,2]}]}`, 200, `{"predictions":[[3,5]]}`},
		{"columns", "POST", affine + "/labels/stable:predict", `{"inputs":{"x":[[1,2]]}}`, 200, `{"outputs":[[3,5]]}`},
		{"rows of two outputs", "POST", pixels + ":predict", `{"instances":[[[1,2],[3,4]],[[5,6],[7,8]]]}`, 200,
			`{"predictions":[{"sum":10,"values":[[1,2],[3,4]]},{"sum":26,"values":[[5,6],[7,8]]}]}`},
		{"columns of two outputs", "POST", pixels + ":predict", `{"inputs":[[[1,2],[3,4]]]}`, 200, `{"outputs":{"sum":[10],"values":[[[1,2],[3,4]]]}}`},

		{"unknown model", "GET", "/v1/models/cow", "", 404, `{"error":"unknown model \"cow\""}`},
		{"unknown model to predict", "POST", "/v1/models/cow:predict", "{}", 404, `{"error":"unknown model \"cow\""}`},
		{"unknown version", "POST", affine + "/versions/2:predict", "{}", 404, `{"error":"unknown version 2 of model \"affine\""}`},
		{"unknown label", "POST", affine + "/labels/x:predict", "{}", 400, `{"error":"unknown version label \"x\" of model \"affine\""}`},
		{"not a version", "GET", affine + "/versions/x", "", 400, `{"error":"version \"x\" is not a positive number"}`},
		{"bad JSON", "POST", affine + ":predict", `{"instances":`, 400, `{"error":"invalid request: JSON body, byte 13: instances: must be a list, got the end of the body"}`},
		{"bad shape", "POST", affine + ":predict", `{"instances":[[1]]}`, 400, `{"error":"invalid request: input \"x\" has shape [1 1], expected [-1 2]"}`},
		{"bad signature", "POST", affine + ":predict", `{"instances":[[1,2]],"signature_name":"s"}`, 400,
			`{"error":"invalid request: there is no signature \"s\", the only one is \"serving_default\""}`},
		{"classify", "POST", affine + ":classify", `{}`, 501, `{"error":"classify is not implemented, use predict"}`},
		{"unknown verb", "POST", affine + ":x", `{}`, 404, `{"error":"there is no method \"x\", use predict"}`},
		{"method", "GET", affine + ":predict", ``, 405, `{"error":"method GET is not allowed here, use POST"}`},
		{"method of status", "DELETE", affine, ``, 405, `{"error":"method DELETE is not allowed here, use GET"}`},
		{"elsewhere", "GET", "/v2", ``, 404, `{"error":"there is nothing here; models are at /v1/models/{name}"}`},
	} {
		code, body, header := fx.do(t, c.method, c.path, strings.NewReader(c.body))
		require.Equal(t, c.code, code, "%s: %s", c.name, body)
		require.JSONEq(t, c.want, body, c.name)
		require.Equal(t, "application/json", header.Get("Content-Type"), c.name)
	}
	for _, path := range []string{"", affine + "/else", affine + "/versions", affine + "/labels/", affine + "/metadata/more", affine + "/metadata:predict"} {
		code, _, _ := fx.do(t, http.MethodGet, path, nil)
		require.GreaterOrEqual(t, code, 400, path)
	}
	code, body, _ := fx.post(t, "/v1/models/broken:predict", `{"instances":[1]}`)
	require.Equal(t, 503, code)
	require.Contains(t, body, "is not loaded")
	code, body, _ = fx.do(t, http.MethodGet, "/v1/models/broken", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, "END")
	require.Contains(t, body, "UNKNOWN")
}

func TestLargeBodiesAreRefused(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, func(c *server.Config) { c.MaxBodyBytes = 100 })
	large := strings.Repeat(" ", 101)
	for name, body := range map[string]io.Reader{
		"announced":     strings.NewReader(large),
		"not announced": io.MultiReader(strings.NewReader(large)),
	} {
		code, answer, _ := fx.do(t, http.MethodPost, "/v1/models/affine:predict", body)
		require.Equal(t, 413, code, name)
		require.Contains(t, answer, "at most 100 bytes", name)
	}
	code, _, _ := fx.post(t, "/v1/models/affine:predict", `{"instances":[[1,2]]}`+strings.Repeat(" ", 79))
	require.Equal(t, 200, code, "exactly at the limit")
}

func TestProbesFollowTheServer(t *testing.T) {
	t.Parallel()
	fx := start(t, t.TempDir(), nil)
	probe := func(path string) int {
		code, _, _ := fx.do(t, http.MethodGet, path, nil)
		return code
	}
	require.Equal(t, 200, probe("/health/liveness"))
	require.Equal(t, 503, probe("/health/readiness"))
	onnxtest.Publish(t, fx.base, "affine", 1, onnxtest.Affine(1, 1, 1))
	fx.ready(t)
	require.Equal(t, 200, probe("/health/readiness"))
	fx.Drain()
	require.Equal(t, 200, probe("/health/liveness"))
	require.Equal(t, 503, probe("/health/readiness"))
}
