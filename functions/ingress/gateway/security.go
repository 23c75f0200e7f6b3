package gateway

import (
	"net/http"
	"slices"
)

// securityHeaders sets on every answer what keeps browsers from doing more with it than they should. The page replaces
// the policy with its own.
func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// corsMaxAge is for how many seconds a browser may remember that it may.
const corsMaxAge = "600"

// cors lets the pages of the configured origins call the API. Without any, browsers' own rules stay as they are. There
// are no cookies here, so credentials are never allowed.
func (g *gateway) cors(next http.Handler) http.Handler {
	if len(g.CORSOrigins) == 0 {
		return next
	}
	anyone := slices.Contains(g.CORSOrigins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if !anyone {
			h.Add("Vary", "Origin")
		}
		origin := r.Header.Get("Origin")
		if origin == "" || (!anyone && !slices.Contains(g.CORSOrigins, origin)) {
			next.ServeHTTP(w, r)
			return
		}
		if anyone {
			origin = "*"
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("Access-Control-Expose-Headers", headerRequestID+", Retry-After, Location, "+headerPreferenceApplied+", Inference-Header-Content-Length")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			h.Set("Access-Control-Allow-Headers", "Content-Type, Prefer, "+headerIdempotencyKey+", Traceparent, Tracestate, Inference-Header-Content-Length, "+headerRequestID)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
