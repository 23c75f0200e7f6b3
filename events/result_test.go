package events_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

func ptr[T any](v T) *T { return &v }

func newAnswer() *events.Result {
	return &events.Result{
		ID:            "0198c0de-0000-7000-8000-000000000002",
		Source:        "/ebb/dispatch/cat/dispatch-5d4f",
		Time:          time.Date(2025, 3, 4, 5, 6, 7, 800, time.UTC),
		RequestID:     "0198c0de-0000-7000-8000-000000000001",
		CorrelationID: "request-1/cat",
		Model:         "cat",
		TraceParent:   traceParent,
		TraceState:    "vendor=1",
		Answer: &events.Answer{
			Yes: ptr(true), Probability: ptr(0.977),
			Top:       []events.Class{{Label: "tabby", Probability: 0.61}, {Label: "Egyptian cat", Probability: 0.3}},
			ServedBy:  events.ServedBy{Model: "inception_v3", Version: 1},
			Timing:    events.Timing{Queue: 3, Decode: 1.5, Batch: 0.2, Compute: 31.9},
			BatchSize: 4,
		},
	}
}

func newFailure() *events.Result {
	r := newAnswer()
	r.Answer, r.Problem = nil, problem.New("corrupt-picture", 422, "The picture is damaged", "It ends too early.")
	r.Problem.RetryAfter = 3
	return r
}

func TestAResultSurvivesItsEvent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result      *events.Result
		change      func(*events.Result)
		typ, format string
	}{
		"answer":                    {newAnswer(), func(*events.Result) {}, events.TypeCompleted, "application/json"},
		"answer without a question": {newAnswer(), func(r *events.Result) { r.Answer.Yes, r.Answer.Probability = nil, nil }, events.TypeCompleted, "application/json"},
		"a plain no":                {newAnswer(), func(r *events.Result) { r.Answer.Yes, r.Answer.Probability = ptr(false), ptr(0.0) }, events.TypeCompleted, "application/json"},
		"without trace":             {newAnswer(), func(r *events.Result) { r.TraceParent, r.TraceState = "", "" }, events.TypeCompleted, "application/json"},
		"no classes":                {newAnswer(), func(r *events.Result) { r.Answer.Top = []events.Class{} }, events.TypeCompleted, "application/json"},
		"classes left out":          {newAnswer(), func(r *events.Result) { r.Answer.Top = nil }, events.TypeCompleted, "application/json"},
		"problem":                   {newFailure(), func(*events.Result) {}, events.TypeFailed, "application/problem+json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.change(c.result)
			ev, err := c.result.Event()
			require.NoError(t, err)
			require.Equal(t, c.typ, ev.Type())
			require.Equal(t, c.format, ev.DataContentType())
			require.Equal(t, c.result.RequestID, ev.Subject())

			wire, err := ev.MarshalJSON()
			require.NoError(t, err)
			var received event.Event
			require.NoError(t, received.UnmarshalJSON(wire))
			got, err := events.ParseResult(received)
			require.NoError(t, err)
			require.Equal(t, c.result, got)
			require.Equal(t, got, c.result.Clone())
		})
	}
}

func TestACopyOfAResultIsItsReceiversOwn(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func() *events.Result{"answer": newAnswer, "problem": newFailure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, kept := of(), of()
			c := r.Clone()
			if c.Answer != nil {
				*c.Answer.Yes, *c.Answer.Probability, c.Answer.Top[0].Label, c.Answer.BatchSize = false, 0, "dog", 9
			} else {
				c.Problem.Detail = "another"
			}
			c.Model = "dog"
			require.Equal(t, kept, r)
		})
	}
}

func TestACopyOfAResultHasTheTimeThatItsEventHas(t *testing.T) {
	t.Parallel()
	r := newAnswer()
	r.Time = time.Now().In(time.FixedZone("elsewhere", 3600)) // with a monotonic clock
	ev, err := r.Event()
	require.NoError(t, err)
	parsed, err := events.ParseResult(ev)
	require.NoError(t, err)
	require.Equal(t, parsed, r.Clone())
}

func TestAResultThatIsNotValidIsNeitherWrittenNorRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*events.Result)
		want   string
	}{
		"no id":                   {func(r *events.Result) { r.ID = "" }, "attribute id"},
		"no request":              {func(r *events.Result) { r.RequestID = "" }, "attribute subject"},
		"no correlation id":       {func(r *events.Result) { r.CorrelationID = "" }, "attribute correlationid"},
		"no model":                {func(r *events.Result) { r.Model = "" }, "attribute model"},
		"no time":                 {func(r *events.Result) { r.Time = time.Time{} }, "attribute time"},
		"both":                    {func(r *events.Result) { r.Problem = newFailure().Problem }, "has both"},
		"neither":                 {func(r *events.Result) { r.Answer = nil }, "has neither"},
		"yes without probability": {func(r *events.Result) { r.Answer.Probability = nil }, "belong together"},
		"probability 3":           {func(r *events.Result) { r.Answer.Probability = ptr(3.0) }, "not between 0 and 1"},
		"probability not a number": {func(r *events.Result) { r.Answer.Top[1].Probability = math.NaN() },
			"top[1]: probability is not between 0 and 1"},
		"too many classes":   {func(r *events.Result) { r.Answer.Top = make([]events.Class, 1025) }, "1025 classes"},
		"negative time":      {func(r *events.Result) { r.Answer.Timing.Batch = -1 }, "timing_ms.batch"},
		"infinite time":      {func(r *events.Result) { r.Answer.Timing.Batch = math.Inf(1) }, "timing_ms.batch"},
		"negative batch":     {func(r *events.Result) { r.Answer.BatchSize = -1 }, "batch_size"},
		"problem of success": {func(r *events.Result) { r.Answer, r.Problem = nil, problem.New("x", 200, "x", "") }, "status 200"},
		"too large": {func(r *events.Result) { r.Answer.Top[0].Label = strings.Repeat("x", 1<<20) },
			"at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newAnswer()
			c.change(r)
			_, err := r.Event()
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestParsingRefusesWhatIsNotAResult(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*event.Event)
		is     error
		want   string
	}{
		"another type":      {func(e *event.Event) { e.SetType(events.TypeRequested) }, events.ErrMalformed, "attribute type"},
		"mismatched format": {func(e *event.Event) { e.SetDataContentType("application/problem+json") }, events.ErrMalformed, "datacontenttype"},
		"not JSON":          {func(e *event.Event) { e.DataEncoded = []byte("{") }, events.ErrMalformed, "data:"},
		"no data":           {func(e *event.Event) { e.DataEncoded = nil }, events.ErrMalformed, "data:"},
		"old version":       {func(e *event.Event) { e.SetSpecVersion("0.3") }, events.ErrMalformed, "specversion"},
		"no subject":        {func(e *event.Event) { e.SetSubject("") }, events.ErrMalformed, "attribute subject"},
		"no model":          {func(e *event.Event) { e.SetExtension("model", nil) }, events.ErrMalformed, "attribute model"},
		"model of a number": {func(e *event.Event) { e.SetExtension("model", 3) }, events.ErrMalformed, "attribute model"},
		"too large":         {func(e *event.Event) { e.DataEncoded = make([]byte, 1<<20+1) }, events.ErrTooLarge, "1048577 bytes"},
		"bad probability": {func(e *event.Event) {
			e.DataEncoded = []byte(`{"answer":true,"probability":97,"top":[]}`)
		}, events.ErrMalformed, "probability"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := newAnswer().Event()
			require.NoError(t, err)
			c.change(&ev)
			_, err = events.ParseResult(ev)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := events.ParseResult(event.Event{})
	require.ErrorIs(t, err, events.ErrMalformed, "the zero event")
}

// FuzzParseResult feeds JSON events to the parser: it must not panic, and what it takes it must be able to write again.
func FuzzParseResult(f *testing.F) {
	for _, r := range []*events.Result{newAnswer(), newFailure()} {
		ev, err := r.Event()
		require.NoError(f, err)
		wire, err := ev.MarshalJSON()
		require.NoError(f, err)
		f.Add(wire)
	}
	f.Add([]byte(`{"specversion":"1.0","type":"dev.ebb.inference.failed.v1","id":"1","source":"/","data_base64":"e30="}`))
	f.Add([]byte(`{"specversion":"0.3","type":"t","id":"1","source":"/"}`))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var ev event.Event
		if ev.UnmarshalJSON(wire) != nil {
			return
		}
		r, err := events.ParseResult(ev)
		if err != nil {
			require.Nil(t, r)
			return
		}
		again, err := r.Event()
		require.NoError(t, err)
		got, err := events.ParseResult(again)
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
}
