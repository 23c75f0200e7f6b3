package gateway

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

func TestDocumentIsValidOpenAPI(t *testing.T) {
	t.Parallel()
	require.NoError(t, document(t).Validate(t.Context()))
}

func TestDocumentDescribesEveryRouteAndNothingElse(t *testing.T) {
	t.Parallel()
	g := &gateway{Config: Config{Health: app.NewHealth(nil)}}
	served := map[string]bool{}
	for path, handlers := range g.routes() {
		for method := range handlers {
			served[method+" "+path] = true
		}
	}
	documented := map[string]bool{}
	for path, item := range document(t).Paths.Map() {
		for method := range item.Operations() {
			documented[method+" "+path] = true
		}
	}
	require.Equal(t, served, documented)
}

func TestEveryDescribedOperationIsServed(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.keep(t)
	for path, item := range w.doc.Paths.Map() {
		for method := range item.Operations() {
			a := w.call(t, method, concrete(path), []byte("{}"))
			require.NotEqual(t, http.StatusMethodNotAllowed, a.status, "%s %s", method, path)
			if a.status == http.StatusNotFound { // a handler's, not the catch-all's
				require.NotContains(t, string(a.body), "openapi.yaml", "%s %s", method, path)
			}
		}
	}
}

func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	a := w.call(t, http.MethodGet, "/openapi.yaml", nil)
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "application/yaml", a.header.Get("Content-Type"))
	require.Equal(t, openAPI, a.body)
}
