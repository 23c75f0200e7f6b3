package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/models"
)

// card is one question and its answer.
type card struct {
	Model    string
	Question string
	Kind     string // "yes", "no", "class", "error", "waiting": how it looks
	Verdict  verdict
	Level    string // how far the water of the tide glass is from its top, 0 to 100
	Problem  *notice
	Top      []bar
	Time     *split
	ServedBy string
	Batch    int    // items in the call that answered; 0: not known
	Elapsed  string // for how long it has been waiting
}

// verdict is an answer in words: "Yes, a cat: 97 %, tabby".
type verdict struct{ Words, Probability, Label string }

func (v verdict) String() string {
	s := v.Words
	if v.Probability != "" {
		s += ": " + v.Probability
	}
	if v.Label != "" {
		s += ", " + v.Label
	}
	return s
}

// bar is one class. Width is an SVG length.
type bar struct{ Label, Probability, Width string }

// split is where a request's time went.
type split struct {
	Total    string
	Segments []segment
}

// segment is one stretch of the time bar. X and Width are SVG lengths.
type segment struct{ Class, Name, Meaning, Time, X, Width string }

// newCard makes r readable. The model is nil when it is not known here any more.
func newCard(r *ask.Result, m *models.Model) card {
	c := card{Model: r.Model, Question: question(r.Question)}
	if r.Error != nil {
		c.Kind = "error"
		c.Problem = newNotice(r.Error)
		c.Verdict = verdict{Words: r.Error.Title}
		return c
	}
	c.Kind, c.Verdict = judge(r, m)
	c.Level = strconv.FormatFloat(waterline(r), 'f', 1, 64)
	for _, class := range r.Top {
		c.Top = append(c.Top, bar{Label: class.Label, Probability: percent(class.Probability), Width: share(class.Probability)})
	}
	if r.ServedBy != nil {
		c.ServedBy = r.ServedBy.Model + ", version " + strconv.FormatInt(r.ServedBy.Version, 10)
	}
	if r.Timing != nil {
		c.Time = newSplit(*r.Timing)
	}
	c.Batch = r.BatchSize
	return c
}

// waitingCard is the card of a model that has not answered.
func waitingCard(model, question string, elapsed time.Duration) card {
	return card{Model: model, Question: question, Kind: "waiting", Level: "50", Elapsed: clock(elapsed)}
}

func judge(r *ask.Result, m *models.Model) (string, verdict) {
	if r.Answer == nil {
		if len(r.Top) == 0 {
			return "class", verdict{Words: "The model named nothing"}
		}
		return "class", verdict{Words: "Looks like " + r.Top[0].Label, Probability: percent(r.Top[0].Probability)}
	}
	var v verdict
	if r.Probability != nil {
		v.Probability = percent(*r.Probability)
	}
	subject := ""
	if m != nil {
		subject = m.Subject
	}
	if !*r.Answer {
		v.Words = "No"
		if subject != "" {
			v.Words += ", not " + subject
		}
		return "no", v
	}
	v.Words = "Yes"
	if subject != "" {
		v.Words += ", " + subject
	}
	if m != nil {
		v.Label = kind(r.Top, m)
	}
	return "yes", v
}

// kind is the most probable of the classes that mean yes: a picture can be a cat all in all, while the one most probable
// class is a box. It is empty when none is among the top.
func kind(top []events.Class, m *models.Model) string {
	for _, class := range top {
		for _, yes := range m.Output.Yes {
			for i := max(yes.From, 0); i <= yes.To && i < len(m.Labels); i++ {
				if m.Labels[i] == class.Label {
					return class.Label
				}
			}
		}
	}
	return ""
}

// waterline is how far the water is from the glass's top: the more probable, the fuller.
func waterline(r *ask.Result) float64 {
	p := 0.0
	switch {
	case r.Probability != nil:
		p = *r.Probability
	case len(r.Top) > 0:
		p = r.Top[0].Probability
	}
	return 94 - 90*unit(p)
}

// newSplit divides the total. What no part accounts for (the ways there and back) is the rest. Clocks of two machines
// may disagree, so the parts can exceed the total; the bar then shows their proportions.
func newSplit(t ask.Timing) *split {
	parts := []segment{
		{Class: "queue", Name: "queue", Meaning: "until a worker took it"},
		{Class: "decode", Name: "decode", Meaning: "from picture to tensor"},
		{Class: "batch", Name: "batch", Meaning: "waiting for a free slot"},
		{Class: "compute", Name: "compute", Meaning: "the network itself"},
		{Class: "rest", Name: "rest", Meaning: "there and back"},
	}
	times := []float64{t.Queue, t.Decode, t.Batch, t.Compute, 0}
	sum := 0.0
	for i := range times {
		times[i] = finite(times[i])
		sum += times[i]
	}
	total := finite(t.Total)
	times[len(times)-1] = max(total-sum, 0)
	longest := max(total, sum)
	x := 0.0
	for i := range parts {
		part := 0.0
		if longest > 0 {
			part = times[i] / longest
		}
		parts[i].Time = duration(times[i])
		parts[i].X = share(x)
		parts[i].Width = share(part)
		x += part
	}
	return &split{Total: duration(total), Segments: parts}
}

// finite makes a measurement of anything: no less than nothing, and a number.
func finite(ms float64) float64 {
	if math.IsNaN(ms) || math.IsInf(ms, 0) {
		return 0
	}
	return max(ms, 0)
}

// unit brings p between 0 and 1.
func unit(p float64) float64 { return min(finite(p), 1) }

// nbsp keeps a number and its unit on one line.
const nbsp = "\u00a0"

// percent is a probability in words. What is not quite certain does not read as if it were.
func percent(p float64) string {
	p = unit(p)
	rounded := math.Round(p * 100)
	switch {
	case rounded == 100 && p < 1:
		return ">" + nbsp + "99" + nbsp + "%"
	case rounded == 0 && p > 0:
		return "<" + nbsp + "1" + nbsp + "%"
	default:
		return strconv.Itoa(int(rounded)) + nbsp + "%"
	}
}

// share is a part of one as an SVG length.
func share(p float64) string { return strconv.FormatFloat(unit(p)*100, 'f', 2, 64) + "%" }

// duration is a time in milliseconds in words, with two digits that matter.
func duration(ms float64) string {
	switch {
	case ms == 0:
		return "0" + nbsp + "ms"
	case ms < 0.05:
		return "<" + nbsp + "0.1" + nbsp + "ms"
	case ms < 9.95:
		return strconv.FormatFloat(ms, 'f', 1, 64) + nbsp + "ms"
	case ms < 999.5:
		return strconv.FormatFloat(ms, 'f', 0, 64) + nbsp + "ms"
	case ms < 9950:
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + nbsp + "s"
	default:
		return strconv.FormatFloat(ms/1000, 'f', 0, 64) + nbsp + "s"
	}
}

// clock is a time that a person watches as it passes.
func clock(d time.Duration) string {
	seconds := int(max(d, 0) / time.Second)
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// minutes is a time that is over before anybody counts its seconds.
func minutes(d time.Duration) string {
	switch n := int(d / time.Minute); {
	case n < 1:
		return "less than a minute"
	case n == 1:
		return "1" + nbsp + "minute"
	case n < 120:
		return strconv.Itoa(n) + nbsp + "minutes"
	default:
		return strconv.Itoa(n/60) + nbsp + "hours"
	}
}

// size is a number of bytes in words.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return trim(float64(n)/(1<<20)) + nbsp + "MB"
	case n >= 1<<10:
		return trim(float64(n)/(1<<10)) + nbsp + "kB"
	default:
		return fmt.Sprintf("%d%sbytes", n, nbsp)
	}
}

// trim writes a number with one decimal, if that says anything. It rounds down: a limit must not read larger than it is.
func trim(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(math.Floor(f*10)/10, 'f', 1, 64), ".0")
}
