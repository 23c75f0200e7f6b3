package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/networks"
)

// modelsPath is the page that shows how networks keep themselves current.
const modelsPath = Path + "/models"

// Networks says how the networks do whose versions come from a source; *networks.Client asks modelsync.
type Networks interface {
	Networks(ctx context.Context) ([]networks.Network, error)
}

const (
	// The page loads itself anew, so that it is current while somebody looks: sooner while something is going on.
	refreshIdle  = 20
	refreshBusy  = 4
	shownEntries = 12 // of what happened
)

// overview is the page.
type overview struct {
	Networks []networkCard
	Away     bool // modelsync does not answer
	Refresh  int  // seconds
}

// networkCard is one network.
type networkCard struct {
	Name, Models, Source string
	Serving              int64
	Since                moment
	Previous             int64
	Candidate            *candidateView
	Checked              moment
	Failure              string
	Failed               moment
	Refused              []refusalView
	History              []entryView
}

type candidateView struct {
	Version int64
	Doing   string
	Percent int
	Began   moment
}

type refusalView struct {
	What, Reason string
	When         moment
}

type entryView struct {
	What string
	When moment
}

// moment is a point in time for people and for programs; empty: never.
type moment struct{ Ago, At string }

func newMoment(t time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	return moment{Ago: minutes(max(time.Since(t), 0)) + " ago", At: t.UTC().Format(time.RFC3339)}
}

// models answers with how the networks do.
func (h *handler) models(w http.ResponseWriter, r *http.Request) {
	all, err := h.Networks.Networks(r.Context())
	if err != nil {
		if !errors.Is(err, networks.ErrAway) && r.Context().Err() != nil {
			return // the browser is gone; nobody is left to tell
		}
		h.Logger.WarnContext(r.Context(), "the page cannot say how networks do", "error", err)
		h.write(w, http.StatusServiceUnavailable, "models", overview{Away: true, Refresh: refreshIdle})
		return
	}
	o := overview{Refresh: refreshIdle, Networks: make([]networkCard, len(all))}
	for i, n := range all {
		o.Networks[i] = newNetworkCard(n)
		if n.Candidate != nil {
			o.Refresh = refreshBusy
		}
	}
	h.write(w, http.StatusOK, "models", o)
}

func newNetworkCard(n networks.Network) networkCard {
	c := networkCard{
		Name: n.Name, Models: list(n.Models), Source: n.Source, Serving: n.Serving, Since: newMoment(n.Since),
		Previous: n.Previous, Checked: newMoment(n.LastCheck),
	}
	if v := n.Candidate; v != nil {
		c.Candidate = &candidateView{Version: v.Version, Doing: doing(*v), Percent: v.Percent, Began: newMoment(v.Began)}
	}
	if f := n.LastFailure; f != nil {
		c.Failure, c.Failed = f.Reason, newMoment(f.Time)
	}
	for _, r := range slices.Backward(n.Refused) {
		c.Refused = append(c.Refused, refusalView{What: refusal(r), Reason: r.Reason, When: newMoment(r.Time)})
	}
	for _, e := range slices.Backward(n.History[max(0, len(n.History)-shownEntries):]) {
		c.History = append(c.History, entryView{What: happened(e), When: newMoment(e.Time)})
	}
	return c
}

// list names several things.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// doing says what is done with a candidate.
func doing(c networks.Candidate) string {
	switch c.Phase {
	case "fetch":
		return "is being fetched"
	case "stage":
		return "is being started, without traffic"
	case "check":
		return "is being asked pictures whose answers are known"
	case "shift":
		return fmt.Sprintf("is being watched with %d%s%% of the traffic", c.Percent, nbsp)
	case "settle":
		return "is being watched with all of the traffic"
	default:
		return "is on its way"
	}
}

// refusal says which versions are refused, and who did so.
func refusal(r networks.Refusal) string {
	versions := "Version" + nbsp + strconv.FormatInt(r.Version, 10)
	if r.From != 0 && r.From != r.Version {
		versions = fmt.Sprintf("Versions%s%d to%s%d", nbsp, r.From, nbsp, r.Version)
	}
	switch r.By {
	case "operator":
		return versions + " taken back"
	case "watch":
		return versions + " refused, by how it did with traffic"
	default:
		return versions + " refused, before it had any traffic"
	}
}

// happened says what an entry of the history is about.
func happened(e networks.Entry) string {
	version := "Version" + nbsp + strconv.FormatInt(e.Version, 10)
	switch e.Event {
	case "found":
		return version + " was found"
	case "staged":
		return version + " was started, without traffic"
	case "shifted":
		return fmt.Sprintf("%s got %d%s%% of the traffic", version, e.Percent, nbsp)
	case "serving":
		return version + " serves"
	case "refused":
		return version + " was refused"
	case "returned":
		return version + " serves again"
	case "allowed":
		return version + " was allowed"
	default:
		return version + ": " + e.Event
	}
}
