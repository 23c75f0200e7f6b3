// Package gateway is every way in over HTTP but the page: Ebb's own API, TensorFlow Serving's REST API (V1), the Open
// Inference Protocol (V2), health and the OpenAPI document. It turns requests into questions and answers into the form
// that each protocol's clients know.
//
// It knows HTTP and those forms. It does not know events, brokers or queues; what a question goes through is ask's.
package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/internal/app"
)

// The defaults of Config.
const (
	DefaultMaxBytes     = 10 << 20
	DefaultMaxBodyBytes = 32 << 20
	DefaultMemory       = 256 << 20
	DefaultMaxInstances = 64
	DefaultConcurrency  = 16
)

// Fetcher gets a picture from an address. Its errors are *problem.Details.
type Fetcher interface {
	Fetch(ctx context.Context, url string) ([]byte, error)
}

// Config is what a gateway is made of. Service is required.
type Config struct {
	Service *ask.Service
	Fetcher Fetcher // nil: pictures by address are refused
	// Callbacks takes the events that say that a callback is due; nil: there are none.
	Callbacks http.Handler
	Page      http.Handler // mounted at /home and /home/; nil: there is no page
	Health    *app.Health  // default: ready when Service is
	Version   string       // of this program, for V2's server metadata

	MaxBytes     int64 // of one picture, default DefaultMaxBytes
	MaxBodyBytes int64 // of one V1 or V2 request with several pictures, default DefaultMaxBodyBytes
	// Memory is what the bodies of all requests under way may take together, in bytes, default DefaultMemory. Requests
	// beyond it are answered 503.
	Memory       int64
	MaxInstances int // pictures in one V1 or V2 request, default DefaultMaxInstances
	Concurrency  int // of those, how many are asked at once, default DefaultConcurrency

	// CORSOrigins are the origins whose pages may call the API from a browser, as "https://example.com", or "*" for all.
	// None by default.
	CORSOrigins []string
	Logger      *slog.Logger // default slog.Default()
}

func (c Config) withDefaults() Config {
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, DefaultMaxBodyBytes)
	c.Memory = cmp.Or(c.Memory, DefaultMemory)
	c.MaxInstances = cmp.Or(c.MaxInstances, DefaultMaxInstances)
	c.Concurrency = cmp.Or(c.Concurrency, DefaultConcurrency)
	c.Version = cmp.Or(c.Version, "devel")
	if c.Health == nil {
		c.Health = app.NewHealth(c.Service.Ready)
	}
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

type gateway struct {
	Config
	memory *memory
	models map[string]*model
}

// New makes the handler of everything that ingress serves. It has no goroutine and needs no stopping; stop the Service.
func New(config Config) http.Handler {
	c := config.withDefaults()
	g := &gateway{Config: c, memory: newMemory(c.Memory), models: map[string]*model{}}
	for _, m := range c.Service.Models() {
		g.models[m.Name] = newModel(m)
	}
	var h http.Handler = g.mux()
	h = g.cors(h)
	h = securityHeaders(h)
	h = g.observe(h)
	return otelhttp.NewHandler(h, "ingress", otelhttp.WithFilter(func(r *http.Request) bool { return !isProbe(r) }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			if r.Pattern == "" {
				return r.Method
			}
			return r.Method + " " + r.Pattern
		}))
}

// methods are the handlers of one path.
type methods map[string]http.HandlerFunc

// routes is every path that the API has; the OpenAPI document describes exactly these. The page is not among them.
func (g *gateway) routes() map[string]methods {
	return map[string]methods{
		"/v1/infer":                             {http.MethodPost: g.infer},
		"/v1/requests/{id}":                     {http.MethodGet: g.collect, http.MethodDelete: g.drop},
		"/callbacks":                            {http.MethodPost: g.callbacks},
		"/v1/models":                            {http.MethodGet: g.listModels},
		"/v1/models/{model}":                    {http.MethodGet: g.v1Status},
		"/v1/models/{model}:predict":            {http.MethodPost: g.v1Predict},
		"/v2":                                   {http.MethodGet: g.v2Server},
		"/v2/health/live":                       {http.MethodGet: g.v2Live},
		"/v2/health/ready":                      {http.MethodGet: g.v2Ready},
		"/v2/models/{model}":                    {http.MethodGet: g.v2Model},
		"/v2/models/{model}/ready":              {http.MethodGet: g.v2ModelReady},
		"/v2/models/{model}/infer":              {http.MethodPost: g.v2Infer},
		"/v2/models/{model}/versions/{version}": {http.MethodGet: g.v2Model},
		"/v2/models/{model}/versions/{version}/ready": {http.MethodGet: g.v2ModelReady},
		"/v2/models/{model}/versions/{version}/infer": {http.MethodPost: g.v2Infer},
		"/health/liveness":                            {http.MethodGet: g.Health.ServeHTTP},
		"/health/readiness":                           {http.MethodGet: g.Health.ServeHTTP},
		"/openapi.yaml":                               {http.MethodGet: serveDocument},
	}
}

func (g *gateway) mux() *http.ServeMux {
	mux := http.NewServeMux()
	routes := g.routes()
	// A pattern's wildcard is a whole segment, so what comes after a model's name and a colon is told apart here.
	const modelPath, predictPath = "/v1/models/{model}", "/v1/models/{model}:predict"
	status, predict := byMethod(routes[modelPath]), byMethod(routes[predictPath])
	delete(routes, predictPath)
	delete(routes, modelPath)
	mux.HandleFunc(modelPath, func(w http.ResponseWriter, r *http.Request) {
		if name, ok := cutVerb(r.PathValue("model"), "predict"); ok {
			r.SetPathValue("model", name)
			r.Pattern = predictPath
			predict(w, r)
			return
		}
		status(w, r)
	})
	for path, handlers := range routes {
		mux.HandleFunc(path, byMethod(handlers))
	}
	if g.Page != nil {
		page := g.bounded(g.Page)
		mux.Handle("/home", page)
		mux.Handle("/home/", page)
		mux.HandleFunc("/{$}", byMethod(methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/home", http.StatusSeeOther)
		}}))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fail(w, r, noSuchPath(r)) })
	return mux
}
