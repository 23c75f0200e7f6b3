package gateway

import (
	_ "embed"
	"net/http"
)

// openAPI describes everything that routes has, in OpenAPI 3.1.
//
//go:embed openapi.yaml
var openAPI []byte

// serveDocument answers GET /openapi.yaml.
func serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(openAPI) // the client hung up: nobody is left to tell
}
