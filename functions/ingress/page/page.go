// Package page is the page at /home: a person shows it a picture, chooses questions and reads the answers.
//
// All markup is rendered here, by html/template: the whole page for a browser that asks for it or posts the form, and the
// answers alone for the page's own script, which puts them where the old ones were. So an answer looks the same with and
// without JavaScript, and no sentence a person reads is made in the browser.
//
// Where questions can be asked asynchronously nobody waits for a slow model with a request open: what is not answered at
// once has a page of its own, which shows how it goes until the last answer is there.
//
// It knows questions, pictures' bytes and problems. It must not know how a question travels, or the other ways in.
package page

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/models"
)

// DefaultMaxBytes is how large a picture may be when Config does not say.
const DefaultMaxBytes = 10 << 20

// Path is where the page lives. Its assets are below it.
const Path = "/home"

// Asker answers questions about pictures.
type Asker interface {
	// Ask returns one result a model, in the order asked, or an error that is or wraps *problem.Details.
	Ask(context.Context, ask.Question) (*ask.Response, error)
	// Models lists what can be asked, in the order in which the page offers it.
	Models() []*models.Model

	// Later says whether questions can be asked asynchronously. If so the page never calls Ask. The errors of what follows
	// are or wrap *problem.Details, those of what passes with a RetryAfter.
	Later() bool
	AskLater(context.Context, ask.Question) (*ask.Progress, error)
	Collect(ctx context.Context, id string) (*ask.Progress, error)
	Drop(ctx context.Context, id string) error
}

// Fetcher fetches the picture at an address. Its errors are or wrap *problem.Details.
type Fetcher interface {
	Fetch(ctx context.Context, url string) ([]byte, error)
}

// Config says what the page works with. Asker and Fetcher are required.
type Config struct {
	Asker        Asker
	Fetcher      Fetcher
	Networks     Networks     // whose versions come from a source; nil: there is no page about them
	MaxBytes     int64        // largest picture, in bytes; 0 is DefaultMaxBytes
	SuggestedURL string       // an example for the address field; empty offers none
	Logger       *slog.Logger // what should not have happened; nil is slog.Default()
}

// csp lets the page load its own files and show the picture that a person chose, and nothing else.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

type handler struct {
	Config
	origin *http.CrossOriginProtection
}

// New is the page's handler. It answers GET, HEAD and POST at Path, and the files below Path; below Path/requests each
// question that is asked asynchronously has an address, where GET shows how it goes and POST forgets it. With the query
// fragment=answers the answer is the section with the answers alone. The status is the one that the API has for the same
// question.
func New(c Config) http.Handler {
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	h := &handler{Config: c, origin: http.NewCrossOriginProtection()}

	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, h.show)
	mux.HandleFunc("POST "+Path, h.answer)
	mux.HandleFunc(Path, notAllowed("GET, HEAD, POST"))
	mux.Handle("GET "+Path+"/{$}", http.RedirectHandler(Path, http.StatusPermanentRedirect))
	mux.HandleFunc("GET "+requestsPath+"{id}", h.collect)
	mux.HandleFunc("POST "+requestsPath+"{id}", h.forget)
	mux.HandleFunc(requestsPath+"{id}", notAllowed("GET, HEAD, POST"))
	if c.Networks != nil {
		mux.HandleFunc("GET "+modelsPath, h.models)
		mux.HandleFunc(modelsPath, notAllowed("GET, HEAD"))
	}
	mux.HandleFunc("GET "+assetsPath+"{hash}/{name}", serveAsset)
	mux.HandleFunc("GET "+assetsPath, notFound)
	mux.HandleFunc(assetsPath, notAllowed("GET, HEAD"))
	mux.HandleFunc(Path+"/", notFound)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", csp)
		header.Set("X-Content-Type-Options", "nosniff")
		// Not no-referrer: that would make the origin of the page's own form "null", and it could not be told from a
		// stranger's.
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

// show answers GET: the page with nothing asked yet. The query may fill in the form: url, and any number of model.
func (h *handler) show(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	s := submission{url: query.Get("url"), models: query["model"]}
	if len(s.url) > maxURL {
		s.url = ""
	}
	h.write(w, http.StatusOK, "page", h.page(s, h.empty()))
}

// answer answers POST: the form was sent.
func (h *handler) answer(w http.ResponseWriter, r *http.Request) {
	s, status, answers := h.ask(w, r)
	if answers.State == stateWaiting && !asksFragment(r) {
		http.Redirect(w, r, answers.Address+"#answers", http.StatusSeeOther)
		return
	}
	if s.url != "" && asksFragment(r) { // a file's preview is in the browser already
		answers.Seen = preview(s.picture)
	}
	h.reply(w, r, s, status, answers)
	if answers.spent != "" {
		_ = http.NewResponseController(w).Flush() // nobody waits for what comes now; without it they do
		h.drop(r.Context(), answers.spent)
	}
}

// ask reads the form, gets the picture and asks. It returns what was sent as far as it was read, the status, and the
// answers or the problem to show.
func (h *handler) ask(w http.ResponseWriter, r *http.Request) (submission, int, section) {
	s, err := h.read(w, r)
	if err != nil {
		return s, err.Status, h.failed(err)
	}
	if s.url != "" {
		picture, err := h.Fetcher.Fetch(r.Context(), s.url)
		if err != nil {
			d := h.explain(r.Context(), "fetching", err)
			return s, d.Status, h.failed(d)
		}
		s.picture = picture
	}
	way := h.askNow
	if h.Asker.Later() {
		way = h.askLater
	}
	status, answers, askErr := way(r.Context(), ask.Question{ID: requestID(w), Picture: s.picture, Models: s.models})
	if askErr != nil {
		d := h.explain(r.Context(), "asking", askErr)
		return s, d.Status, h.failed(d)
	}
	return s, status, answers
}

// askNow asks and waits for all answers.
func (h *handler) askNow(ctx context.Context, q ask.Question) (int, section, error) {
	response, err := h.Asker.Ask(ctx, q)
	if err != nil {
		return 0, section{}, err //nolint:wrapcheck // explain says what it means
	}
	return ask.Status(response), h.answered(response), nil
}

// asksFragment says whether it is the page's script that asks.
func asksFragment(r *http.Request) bool { return r.URL.Query().Get("fragment") == "answers" }

// reply answers with the section, or with the whole page around it.
func (h *handler) reply(w http.ResponseWriter, r *http.Request, s submission, status int, answers section) {
	if answers.Request == "" {
		answers.Request = requestID(w)
	}
	if seconds := answers.RetryAfter(); seconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	}
	if asksFragment(r) {
		h.write(w, status, "answers", answers)
		return
	}
	// Without the script a file must be chosen anew for every question, so a button that sends the form again is of
	// use only with an address.
	answers.Retry = answers.Retry && s.url != ""
	h.write(w, status, "page", h.page(s, answers))
}

// explain makes a problem of err. The text of an error that is none stays in the log.
func (h *handler) explain(ctx context.Context, while string, err error) *problem.Details {
	d := problem.From(err)
	if d.Status >= http.StatusInternalServerError && ctx.Err() == nil {
		h.Logger.ErrorContext(ctx, "the page has no answer", "while", while, "error", err)
	}
	return d
}

// write renders a template and answers with it. Nothing of it may be kept: it has a person's picture and answers in it.
func (h *handler) write(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name, data); err != nil {
		h.Logger.Error("rendering the page failed", "template", name, "error", err)
		problem.Write(w, problem.From(err))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = body.WriteTo(w) // the browser is gone; nobody is left to tell
}

// requestID is the id that whoever called this handler gave to the request, and promised to the client; empty: none. The
// client's own header is not trusted.
func requestID(w http.ResponseWriter) string { return w.Header().Get("X-Request-Id") }

func notAllowed(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", methods)
		problem.Write(w, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed",
			"The methods here are "+methods+"."))
	}
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	problem.Write(w, problem.New("no-such-path", http.StatusNotFound, "There is nothing here",
		"The page is at "+Path+"."))
}
