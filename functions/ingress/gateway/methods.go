package gateway

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// byMethod picks a path's handler by the request's method. HEAD is GET without the body, which net/http leaves out.
func byMethod(handlers methods) http.HandlerFunc {
	known := slices.Collect(maps.Keys(handlers))
	if handlers[http.MethodGet] != nil {
		known = append(known, http.MethodHead)
	}
	known = append(known, http.MethodOptions)
	slices.Sort(known)
	allow := strings.Join(known, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		switch h := handlers[method]; {
		case h != nil:
			h(w, r)
		case method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Allow", allow)
			fail(w, r, wrongMethod(r, allow))
		}
	}
}

// cutVerb takes ":verb" from the end of a path's last segment, as TensorFlow Serving writes actions.
func cutVerb(segment, verb string) (name string, ok bool) {
	return strings.CutSuffix(segment, ":"+verb)
}
