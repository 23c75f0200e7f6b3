package events_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func newRequest() *events.Request {
	now := time.Date(2025, 3, 4, 5, 6, 7, 8, time.UTC)
	return &events.Request{
		ID:            uuid.Must(uuid.NewV7()).String(),
		Source:        "/ebb/ingress/ingress-7c9f",
		Time:          now,
		Model:         "cat",
		ReplyTo:       "amq.gen-JzTY20BRgKO-HjmUJj0wLg",
		CorrelationID: "request-1/cat",
		Deadline:      now.Add(30 * time.Second),
		TraceParent:   traceParent,
		TraceState:    "vendor=a b,other=\"x\"",
		ContentType:   "image/jpeg",
		Data:          []byte("\xff\xd8\xff\xe0 a picture \x00\x01"),
	}
}

func TestARequestSurvivesHTTP(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*events.Request){
		"complete":              func(*events.Request) {},
		"without trace":         func(r *events.Request) { r.TraceParent, r.TraceState = "", "" },
		"without trace state":   func(r *events.Request) { r.TraceState = "" },
		"longest attributes":    func(r *events.Request) { r.Model = strings.Repeat("m", 63); r.CorrelationID = strings.Repeat("c", 128) },
		"whole seconds":         func(r *events.Request) { r.Deadline = r.Deadline.Truncate(time.Second) },
		"a picture of 2 MB":     func(r *events.Request) { r.Data = bytes.Repeat([]byte("0123456789abcdef"), 1<<17) },
		"a replay":              func(r *events.Request) { r.Replay, r.Callback = true, true },
		"other picture's types": func(r *events.Request) { r.ContentType = "image/svg+xml" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := newRequest()
			change(sent)
			got := make(chan *events.Request, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				r, err := events.ReadHTTPRequest(req, 4<<20, nil)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
				}
				got <- r
			}))
			defer server.Close()

			req, err := events.NewHTTPRequest(t.Context(), server.URL, sent)
			require.NoError(t, err)
			resp, err := server.Client().Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
			require.Equal(t, sent, <-got)
		})
	}
}

func TestARequestIsWrittenInBinaryMode(t *testing.T) {
	t.Parallel()
	r := newRequest()
	req, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", r)
	require.NoError(t, err)
	require.Equal(t, http.MethodPost, req.Method)
	require.Equal(t, http.Header{
		"Ce-Specversion":   {"1.0"},
		"Ce-Type":          {"dev.ebb.inference.requested.v1"},
		"Ce-Source":        {"/ebb/ingress/ingress-7c9f"},
		"Ce-Id":            {r.ID},
		"Ce-Time":          {"2025-03-04T05:06:07.000000008Z"},
		"Content-Type":     {"image/jpeg"},
		"Ce-Model":         {"cat"},
		"Ce-Replyto":       {r.ReplyTo},
		"Ce-Correlationid": {r.CorrelationID},
		"Ce-Deadline":      {"2025-03-04T05:06:37.000000008Z"},
		"Ce-Traceparent":   {traceParent},
		"Ce-Tracestate":    {r.TraceState},
		"Traceparent":      {traceParent}, // Knative's broker passes on only what its request has, too
		"Tracestate":       {r.TraceState},
	}, req.Header)
	require.EqualValues(t, len(r.Data), req.ContentLength)

	for range 2 { // a retry reads the same body
		body, err := req.GetBody()
		require.NoError(t, err)
		data, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, r.Data, data)
	}
}

func TestValidateNamesTheAttribute(t *testing.T) {
	t.Parallel()
	require.NoError(t, newRequest().Validate())
	for name, c := range map[string]struct {
		change func(*events.Request)
		want   string
	}{
		"no id":                    {func(r *events.Request) { r.ID = "" }, "attribute id: is not a UUID"},
		"id in braces":             {func(r *events.Request) { r.ID = "{" + r.ID + "}" }, "attribute id: is not a UUID"},
		"id in capitals":           {func(r *events.Request) { r.ID = "0198C0DE-0000-7000-8000-00000000ABCD" }, "attribute id: is not a UUID"},
		"no source":                {func(r *events.Request) { r.Source = "" }, "attribute source: is missing"},
		"long source":              {func(r *events.Request) { r.Source = strings.Repeat("s", 257) }, "attribute source: has 257 bytes; at most 256"},
		"source with a line break": {func(r *events.Request) { r.Source = "/a\r\nCe-Model: dog" }, "attribute source: has a character at offset 2"},
		"source that is no URI":    {func(r *events.Request) { r.Source = "/a%zz" }, "attribute source: is not a URI reference"},
		"no time":                  {func(r *events.Request) { r.Time = time.Time{} }, "attribute time: is missing"},
		"year 1":                   {func(r *events.Request) { r.Time = time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC) }, "attribute time: is in year 1"},
		"no model":                 {func(r *events.Request) { r.Model = "" }, "attribute model: is missing"},
		"model with a dot":         {func(r *events.Request) { r.Model = "cat.v1" }, "attribute model: is not a DNS label"},
		"model ends with a hyphen": {func(r *events.Request) { r.Model = "cat-" }, "attribute model: is not a DNS label"},
		"model is a hyphen":        {func(r *events.Request) { r.Model = "-" }, "attribute model: is not a DNS label"},
		"model in capitals":        {func(r *events.Request) { r.Model = "Cat" }, "attribute model: is not a DNS label"},
		"long model":               {func(r *events.Request) { r.Model = strings.Repeat("m", 64) }, "attribute model: has 64 bytes"},
		"no reply address":         {func(r *events.Request) { r.ReplyTo = "" }, "attribute replyto: is missing"},
		"long reply address":       {func(r *events.Request) { r.ReplyTo = strings.Repeat("q", 256) }, "attribute replyto: has 256 bytes"},
		"no correlation id":        {func(r *events.Request) { r.CorrelationID = "" }, "attribute correlationid: is missing"},
		"correlation id not ASCII": {func(r *events.Request) { r.CorrelationID = "é" }, "attribute correlationid: has a character at offset 0"},
		"no deadline":              {func(r *events.Request) { r.Deadline = time.Time{} }, "attribute deadline: is missing"},
		"deadline in year 10000":   {func(r *events.Request) { r.Deadline = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "attribute deadline: is in year 10000"},
		"trace of zeros":           {func(r *events.Request) { r.TraceParent = "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01" }, "attribute traceparent"},
		"trace in capitals":        {func(r *events.Request) { r.TraceParent = strings.ToUpper(traceParent) }, "attribute traceparent"},
		"trace with a tail":        {func(r *events.Request) { r.TraceParent += "-00" }, "attribute traceparent"},
		"trace of version ff":      {func(r *events.Request) { r.TraceParent = "ff" + traceParent[2:] }, "attribute traceparent"},
		"state without parent":     {func(r *events.Request) { r.TraceParent = "" }, "attribute tracestate: is set without traceparent"},
		"state with a tab":         {func(r *events.Request) { r.TraceState = "a=\t" }, "attribute tracestate: has a character at offset 2"},
		"no content type":          {func(r *events.Request) { r.ContentType = "" }, "attribute datacontenttype: is missing"},
		"not a picture":            {func(r *events.Request) { r.ContentType = "text/html" }, "attribute datacontenttype: is not a picture's"},
		"content type parameters":  {func(r *events.Request) { r.ContentType = "image/png; a=b" }, "attribute datacontenttype: is not a picture's"},
		"no data":                  {func(r *events.Request) { r.Data = nil }, "data is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRequest()
			c.change(r)
			require.ErrorContains(t, r.Validate(), c.want)
			_, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", r)
			require.ErrorContains(t, err, c.want, "what is not valid is not written")
		})
	}
}

func TestALaterTraceContextVersionMayAppendFields(t *testing.T) {
	t.Parallel()
	r := newRequest()
	r.TraceParent = "01" + traceParent[2:] + "-more"
	require.NoError(t, r.Validate())
	r.TraceParent = "01" + traceParent[2:] + "more"
	require.Error(t, r.Validate())
}

func TestReadingRefusesWhatIsNotARequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*http.Request)
		is     error
		want   string
	}{
		"structured mode":         {func(r *http.Request) { r.Header.Set("Content-Type", "application/cloudevents+json") }, events.ErrMalformed, "structured"},
		"batched mode":            {func(r *http.Request) { r.Header.Set("Content-Type", "application/cloudevents-batch+json") }, events.ErrMalformed, "batched"},
		"no event":                {func(r *http.Request) { r.Header = http.Header{"Content-Type": {"image/png"}} }, events.ErrMalformed, "ce-specversion"},
		"old version":             {func(r *http.Request) { r.Header.Set("Ce-Specversion", "0.3") }, events.ErrMalformed, "specversion"},
		"no id":                   {func(r *http.Request) { r.Header.Del("Ce-Id") }, events.ErrMalformed, "id"},
		"no time":                 {func(r *http.Request) { r.Header.Del("Ce-Time") }, events.ErrMalformed, "attribute time: is missing"},
		"time is not one":         {func(r *http.Request) { r.Header.Set("Ce-Time", "yesterday") }, events.ErrMalformed, "time"},
		"deadline is not one":     {func(r *http.Request) { r.Header.Set("Ce-Deadline", "1741064767") }, events.ErrMalformed, "attribute deadline: is not an RFC 3339"},
		"no deadline":             {func(r *http.Request) { r.Header.Del("Ce-Deadline") }, events.ErrMalformed, "attribute deadline: is missing"},
		"another type":            {func(r *http.Request) { r.Header.Set("Ce-Type", events.TypeCompleted) }, events.ErrMalformed, "attribute type"},
		"an attribute twice":      {func(r *http.Request) { r.Header.Add("Ce-Model", "dog") }, events.ErrMalformed, "2 times"},
		"a content type twice":    {func(r *http.Request) { r.Header.Add("Content-Type", "image/png") }, events.ErrMalformed, "2 times"},
		"an attribute of no name": {func(r *http.Request) { r.Header["Ce-"] = []string{"x"} }, events.ErrMalformed, "no attribute name"},
		"a name with a hyphen":    {func(r *http.Request) { r.Header.Set("Ce-A-B", "x") }, events.ErrMalformed, ""},
		"no body":                 {func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, events.ErrMalformed, "data is empty"},
		"too much, announced":     {func(r *http.Request) { r.ContentLength = 1025 }, events.ErrTooLarge, "1025 bytes; at most 1024"},
		"too much, unannounced": {func(r *http.Request) {
			r.ContentLength = -1
			r.Body = io.NopCloser(bytes.NewReader(make([]byte, 1025)))
		}, events.ErrTooLarge, "more than 1024"},
		"cut off": {func(r *http.Request) { r.ContentLength++ }, io.ErrUnexpectedEOF, "reading the event's data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", newRequest())
			require.NoError(t, err)
			c.change(req)
			_, err = events.ReadHTTPRequest(req, 1024, nil)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDataIsReadIntoMemoryThatHasRoomForIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		length int64 // announced
		memory int
		used   bool
	}{
		"as large":         {100, 100, true},
		"larger":           {100, 5000, true},
		"too small":        {100, 99, false},
		"none":             {100, 0, false},
		"length not known": {-1, 5000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRequest()
			r.Data = bytes.Repeat([]byte("x"), 100)
			req, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", r)
			require.NoError(t, err)
			req.ContentLength = c.length
			memory := bytes.Repeat([]byte("old"), c.memory)[:c.memory:c.memory]
			got, err := events.ReadHTTPRequest(req, 1024, memory)
			require.NoError(t, err)
			require.Equal(t, r, got)
			require.Equal(t, c.used, c.memory > 0 && &got.Data[0] == &memory[0])
		})
	}
}

func TestReadingTakesAsMuchAsItIsAllowed(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int64{"announced": 1024, "unannounced": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRequest()
			r.Data = bytes.Repeat([]byte("x"), 1024)
			req, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", r)
			require.NoError(t, err)
			req.ContentLength = length
			got, err := events.ReadHTTPRequest(req, 1024, nil)
			require.NoError(t, err)
			require.Equal(t, r, got)
		})
	}
}

// FuzzReadHTTPRequest feeds raw HTTP to the reader: it must not panic, and what it takes it must be able to write again.
func FuzzReadHTTPRequest(f *testing.F) {
	raw := func(r *events.Request) []byte {
		req, err := events.NewHTTPRequest(context.Background(), "http://broker.invalid/", r)
		require.NoError(f, err)
		var b bytes.Buffer
		require.NoError(f, req.Write(&b))
		return b.Bytes()
	}
	whole := raw(newRequest())
	f.Add(whole)
	bare := newRequest()
	bare.TraceParent, bare.TraceState = "", ""
	f.Add(raw(bare))
	f.Add(bytes.Replace(whole, []byte("Ce-Model: cat"), []byte("Ce-: cat"), 1))
	f.Add(bytes.Replace(whole, []byte("Ce-Model: cat"), []byte("Ce-Model: cat\r\nce-model: dog"), 1))
	f.Add(bytes.Replace(whole, []byte("Content-Length"), []byte("Transfer-Encoding: chunked\r\nX"), 1))
	f.Add(bytes.Replace(whole, []byte("2025-03-04"), []byte("0000-03-04"), 1))
	f.Add(bytes.Replace(whole, []byte("image/jpeg"), []byte("application/cloudevents+json"), 1))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nCe-Specversion: 1.0\r\n\r\n"))

	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		r, err := events.ReadHTTPRequest(req, 1<<16, nil)
		if err != nil {
			require.Nil(t, r)
			return
		}
		require.LessOrEqual(t, len(r.Data), 1<<16)
		again, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", r)
		require.NoError(t, err)
		got, err := events.ReadHTTPRequest(again, 1<<16, nil)
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
}

func TestARequestThatWasKeptIsReadAsItCame(t *testing.T) {
	t.Parallel()
	sent := newRequest()
	sent.Callback = true
	req, err := events.NewHTTPRequest(t.Context(), "http://broker.invalid/", sent)
	require.NoError(t, err)
	ev, err := events.ReadHTTPAttributes(req.Header)
	require.NoError(t, err)
	require.False(t, events.IsReplay(ev))
	_, err = events.ParseRequest(ev)
	require.ErrorIs(t, err, events.ErrMalformed, "without its data")
	ev.DataEncoded = sent.Data
	got, err := events.ParseRequest(ev)
	require.NoError(t, err)
	require.Equal(t, sent, got)

	ev.SetExtension(events.ExtReplay, "true")
	require.True(t, events.IsReplay(ev))
	ev.SetExtension(events.ExtReplay, "perhaps")
	require.False(t, events.IsReplay(ev))
	_, err = events.ParseRequest(ev)
	require.ErrorContains(t, err, "attribute replay")
	ev.SetExtension(events.ExtReplay, nil)
	ev.SetType(events.TypeCompleted)
	_, err = events.ParseRequest(ev)
	require.ErrorIs(t, err, events.ErrMalformed)
}
