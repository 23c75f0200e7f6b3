package page

import (
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/models"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").
	Funcs(template.FuncMap{"asset": assetURL}).
	ParseFS(templateFiles, "templates/*.html"))

// accept lists what a picture may be, for file choosers. It names the types one by one: an iPhone then hands over a
// photograph as JPEG, and as HEIC if it said image/*.
const accept = "image/jpeg,image/png,image/gif,image/webp,image/bmp,image/tiff"

// maxPreview is the largest picture that is sent back within the page, in bytes.
const maxPreview = 2 << 20

// whole is the page.
type whole struct {
	Accept       string
	MaxBytes     int64
	MaxSize      string
	SuggestedURL string
	URL          string
	Models       string // the address of the page about networks; empty: there is none
	Choices      []choice
	Picture      template.URL // the picture that was sent; empty: none
	Answers      section      // what the page shows first
	Sections     []section    // what its script may show instead, by Name
}

// choice is one question that can be asked.
type choice struct {
	Model    string
	Question string
	Chosen   bool
}

// The states of the section with the answers.
const (
	stateEmpty    = "empty"    // nothing to ask about yet
	stateReady    = "ready"    // there is a picture or an address
	stateWorking  = "working"  // being asked
	stateWaiting  = "waiting"  // asked, and at least one model has not answered
	stateUnknown  = "unknown"  // asked, and it cannot be said just now how it goes
	stateAnswered = "answered" // at least one question has an answer
	stateFailed   = "failed"   // none has
)

const headingWorking = "Working on it"

// section is what the page shows beside the form.
type section struct {
	Name    string // by which the page's script finds it
	State   string
	Heading string
	Step    string // where in its course the question is
	Cards   []card
	Problem *notice
	Retry   bool   // asking again may help
	Request string // the request's id
	Seen    template.URL

	// Of a question that was asked asynchronously:
	Address string        // where its answers are to be found
	Kept    string        // for how long
	Elapsed int           // whole seconds since it was asked
	Cold    bool          // it waits for longer than a warm model would need
	Again   time.Duration // until it is worth looking again; 0: there is nothing more to come
	spent   string        // its id, when it need not be kept for anybody who has read this
}

// Title is the title of a page that shows s.
func (s section) Title() string {
	switch {
	case s.Problem != nil:
		return s.Problem.Title + " · Ebb"
	case s.State == stateWaiting:
		return s.Heading + " · Ebb"
	case len(s.Cards) > 0 && s.State != stateWorking:
		return s.Cards[0].Verdict.String() + " · Ebb"
	default:
		return "Ebb · Ask a picture"
	}
}

// RetryAfter is in how many seconds a program may look, or ask, again; 0 says nothing.
func (s section) RetryAfter() int {
	if s.Again == 0 && s.Problem != nil {
		return s.Problem.RetryAfter
	}
	return int(math.Ceil(s.Again.Seconds()))
}

// Refresh is after how many seconds, which leave time to read, a browser without the script loads the page again, and
// where; empty: not. A browser takes the address that it is at for a mere jump to the answers, so it is another each time.
func (s section) Refresh() string {
	if s.Again == 0 {
		return ""
	}
	return fmt.Sprintf("%d; url=%s?look=%d#answers", max(2, s.RetryAfter()), s.Address, time.Now().Unix())
}

// notice is a problem in plain words.
type notice struct {
	Title, Detail string
	RetryAfter    int  // seconds; 0 says nothing
	Shrink        bool // the browser can make the picture small enough
}

func (h *handler) page(s submission, answers section) whole {
	p := whole{
		Accept:       accept,
		MaxBytes:     h.MaxBytes,
		MaxSize:      size(h.MaxBytes),
		SuggestedURL: h.SuggestedURL,
		URL:          s.url,
		Choices:      h.choices(s.models),
		Picture:      preview(s.picture),
		Answers:      answers,
	}
	if h.Networks != nil {
		p.Models = modelsPath
	}
	p.Sections = h.sections(p.Choices)
	return p
}

// sections are all that the page's script may show by itself.
func (h *handler) sections(choices []choice) []section {
	waiting := make([]card, len(choices))
	for i, c := range choices {
		waiting[i] = waitingCard(c.Model, c.Question, 0)
	}
	large := h.refused(problemTooLarge, tooLarge(h.MaxBytes))
	large.Problem.Shrink = true
	return []section{
		h.empty(),
		{Name: stateReady, State: stateReady, Heading: "Ready when you are"},
		{Name: stateWorking, State: stateWorking, Heading: headingWorking, Step: "Sending the picture …", Cards: waiting},
		large,
		h.refused(problemNotPicture, notPicture()),
		h.refused(problemOffline, offline()),
		h.refused(problemStrange, strange()),
	}
}

// refused is a problem that only the page's script can see, under the name by which it asks for it.
func (h *handler) refused(name string, d *problem.Details) section {
	s := h.failed(d)
	s.Name = name
	return s
}

func (*handler) empty() section {
	return section{Name: stateEmpty, State: stateEmpty, Heading: "Answers surface here"}
}

// choices are the questions, with those of the named models chosen, or the first when none is named.
func (h *handler) choices(named []string) []choice {
	known := h.Asker.Models()
	list := make([]choice, len(known))
	for i, m := range known {
		list[i] = choice{
			Model:    m.Name,
			Question: question(m.Question),
			Chosen:   slices.Contains(named, m.Name) || (len(named) == 0 && i == 0),
		}
	}
	return list
}

// question is how a model's question reads. A model without one says what it sees.
func question(q string) string {
	if q == "" {
		return "What is it?"
	}
	return q
}

func (*handler) failed(d *problem.Details) section {
	return section{
		State:   stateFailed,
		Heading: "No answer",
		Problem: newNotice(d),
		Retry:   worthRetrying(d),
		Request: d.RequestID(),
	}
}

func (h *handler) answered(r *ask.Response) section {
	s := section{State: stateFailed, Heading: "Answers", Request: r.ID}
	for i := range r.Results {
		result := &r.Results[i]
		s.Cards = append(s.Cards, newCard(result, h.model(result.Model)))
		if result.Error == nil {
			s.State = stateAnswered
		} else if worthRetrying(result.Error) {
			s.Retry = true
		}
	}
	if len(s.Cards) == 1 {
		s.Heading = "Answer"
	}
	return s
}

// model is the model of a name, or nil when it is not known here any more.
func (h *handler) model(name string) *models.Model {
	known := h.Asker.Models()
	if at := slices.IndexFunc(known, func(m *models.Model) bool { return m.Name == name }); at >= 0 {
		return known[at]
	}
	return nil
}

func newNotice(d *problem.Details) *notice {
	return &notice{Title: d.Title, Detail: d.Detail, RetryAfter: d.RetryAfter}
}

// worthRetrying tells whether the same question may be answered another time.
func worthRetrying(d *problem.Details) bool {
	return d.Status >= http.StatusInternalServerError || d.Status == http.StatusTooManyRequests ||
		d.Status == http.StatusRequestTimeout
}

// preview is a picture as an address that is the picture itself, or empty when browsers cannot show it or it is large.
func preview(picture []byte) template.URL {
	if len(picture) == 0 || len(picture) > maxPreview {
		return ""
	}
	switch mediaType := http.DetectContentType(picture); mediaType {
	case "image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp":
		// Nothing of it is anybody's text: a type from this list, and base64.
		return template.URL("data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(picture)) //nolint:gosec // see above
	default:
		return ""
	}
}
