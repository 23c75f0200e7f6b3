package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// part is a field of a form; one with a type is a file.
type part struct{ name, mediaType, data string }

func multipartForm(t *testing.T, parts ...part) (body []byte, contentType string) {
	t.Helper()
	var buf bytes.Buffer
	form := multipart.NewWriter(&buf)
	for _, p := range parts {
		header := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf("form-data; name=%q", p.name)}}
		if p.mediaType != "" {
			header.Set("Content-Disposition", header.Get("Content-Disposition")+`; filename="x.png"`)
			header.Set("Content-Type", p.mediaType)
		}
		field, err := form.CreatePart(header)
		require.NoError(t, err)
		_, err = io.WriteString(field, p.data)
		require.NoError(t, err)
	}
	require.NoError(t, form.Close())
	return buf.Bytes(), form.FormDataContentType()
}

func imageJSON(picture []byte, models ...string) []byte {
	d := map[string]any{"image": picture}
	if len(models) > 0 {
		d["models"] = models
	}
	body, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return body
}

// requireAnswers asserts each model's answer to a picture, in order.
func requireAnswers(t *testing.T, a *answer, picture []byte, models ...string) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	var got ask.Response
	a.into(t, &got)
	require.Equal(t, a.header.Get("X-Request-Id"), got.ID)
	require.Len(t, got.Results, len(models))
	for i, name := range models {
		requireAnswer(t, &got.Results[i], name, picture)
	}
}

func requireAnswer(t *testing.T, r *ask.Result, name string, picture []byte) {
	t.Helper()
	require.Nil(t, r.Error)
	require.Equal(t, name, r.Model)
	require.Equal(t, []events.Class{{Label: fingerprint(name, picture), Probability: 0.5}, {Label: "something else", Probability: 0.25}}, r.Top)
	require.Equal(t, &events.ServedBy{Model: "net-" + name, Version: 3}, r.ServedBy)
	if name == "imagenet" {
		require.Nil(t, r.Answer)
		require.Nil(t, r.Probability)
		return
	}
	yes, probability := yesTo(picture)
	require.Equal(t, yes, *r.Answer)
	require.InDelta(t, probability, *r.Probability, 0)
}

func TestInferTakesThePictureInAnyForm(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pic := portrait(10)
	form, formType := multipartForm(t, part{"model", "", "dog"}, part{"image", "image/png", string(pic)}, part{"model", "", "cat, imagenet"})
	bare, bareType := multipartForm(t, part{"image", "application/octet-stream", string(pic)})
	for name, tc := range map[string]struct {
		query, contentType string
		body               []byte
		models             []string
	}{
		"bytes":                         {"?model=cat", "", pic, []string{"cat"}},
		"bytes of a type":               {"?model=cat", "image/png", pic, []string{"cat"}},
		"bytes of a wrong type":         {"?model=cat", "image/jpeg", pic, []string{"cat"}},
		"bytes of a broken type":        {"?model=cat", "image/;;", pic, []string{"cat"}},
		"bytes as curl's --data-binary": {"?model=cat", "application/x-www-form-urlencoded", pic, []string{"cat"}},
		"repeated models":               {"?model=dog&model=imagenet&model=cat", "", pic, []string{"dog", "imagenet", "cat"}},
		"models with commas":            {"?model=dog,imagenet&model=+cat,", "", pic, []string{"dog", "imagenet", "cat"}},
		"a model twice":                 {"?model=dog,cat,dog", "", pic, []string{"dog", "cat"}},
		"other parameters":              {"?model=dog&utm=1", "", pic, []string{"dog"}},
		"a form":                        {"", formType, form, []string{"dog", "cat", "imagenet"}},
		"a form and a query":            {"?model=imagenet", formType, form, []string{"imagenet", "dog", "cat"}},
		"a form with only the picture":  {"?model=cat", bareType, bare, []string{"cat"}},
		"JSON":                          {"", "application/json", imageJSON(pic, "dog", "cat"), []string{"dog", "cat"}},
		"JSON with a charset":           {"", "application/json; charset=utf-8", imageJSON(pic, "dog"), []string{"dog"}},
		"JSON without models in it":     {"?model=cat", "application/json", imageJSON(pic), []string{"cat"}},
		"JSON, models in both places":   {"?model=cat", "application/json", imageJSON(pic, "dog"), []string{"cat", "dog"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if tc.contentType != "" {
				headers = []string{"Content-Type", tc.contentType}
			}
			requireAnswers(t, w.call(t, http.MethodPost, "/v1/infer"+tc.query, tc.body, headers...), pic, tc.models...)
			requireAnswers(t, w.stream(t, http.MethodPost, "/v1/infer"+tc.query, tc.body, headers...), pic, tc.models...)
		})
	}
}

func TestInferAnswersInTheDocumentedShape(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pic := portrait(11)
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat&model=imagenet", pic).json(t)
	results := a["results"].([]any)
	for _, r := range results {
		timing := r.(map[string]any)["timing_ms"].(map[string]any)
		require.Positive(t, timing["total"])
		delete(timing, "total")
	}
	yes, probability := yesTo(pic)
	got, err := json.Marshal(results)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`[
		{"model":"cat","question":"Is it a cat?","answer":%v,"probability":%v,
		 "top":[{"label":%q,"probability":0.5},{"label":"something else","probability":0.25}],
		 "served_by":{"model":"net-cat","version":3},"timing_ms":{"queue":1,"decode":2,"batch":3,"compute":4},"batch_size":2},
		{"model":"imagenet",
		 "top":[{"label":%q,"probability":0.5},{"label":"something else","probability":0.25}],
		 "served_by":{"model":"net-imagenet","version":3},"timing_ms":{"queue":1,"decode":2,"batch":3,"compute":4},"batch_size":2}]`,
		yes, probability, fingerprint("cat", pic), fingerprint("imagenet", pic)), string(got))
}

func TestInferFetchesThePictureAtAnAddress(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pic := portrait(12)
	var fetched atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		switch r.URL.Path {
		case "/cat.png":
			_, _ = w.Write(pic)
		case "/page":
			_, _ = io.WriteString(w, "<html>")
		case "/big":
			_, _ = w.Write(make([]byte, 1001))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(web.Close)
	ask := func(address string) *answer {
		body, err := json.Marshal(map[string]any{"url": address, "models": []string{"cat", "imagenet"}})
		require.NoError(t, err)
		return w.call(t, http.MethodPost, "/v1/infer", body, "Content-Type", "application/json")
	}
	requireAnswers(t, ask(web.URL+"/cat.png"), pic, "cat", "imagenet")
	ask(web.URL+"/page").requireProblem(t, "not-a-picture", 415, "")
	ask(web.URL+"/big").requireProblem(t, "too-large", 413, "1000 bytes")
	ask(web.URL+"/missing").requireProblem(t, "address-without-picture", 422, "404")
	ask("ftp://example.com/").requireProblem(t, "bad-address", 400, "http")
	ask("http://169.254.169.254/").requireProblem(t, "address-not-allowed", 422, "private")

	before := fetched.Load()
	w.call(t, http.MethodPost, "/v1/infer?model=cta", []byte(`{"url":"`+web.URL+`/cat.png"}`), "Content-Type", "application/json").
		requireProblem(t, "unknown-model", 404, "cat, dog, imagenet")
	require.Equal(t, before, fetched.Load(), "nothing is fetched for a question that cannot be asked")
}

func TestInferRefusesAddressesWhenItDoesNotFetch(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.Fetcher = nil })
	w.call(t, http.MethodPost, "/v1/infer", []byte(`{"url":"http://example.com","models":["cat"]}`), "Content-Type", "application/json").
		requireProblem(t, codeNoFetching, 422, "Send the picture itself")
}

func TestInferSaysWhatIsWrongWithARequest(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes = 1000 })
	pic := string(portrait(13))
	large := string(portrait(13)) + strings.Repeat("x", 1000)
	const js, png = "application/json", "image/png"
	type request struct {
		query, contentType, body string
		more                     []string
	}
	form := func(parts ...part) request {
		body, contentType := multipartForm(t, parts...)
		return request{query: "?model=cat", contentType: contentType, body: string(body)}
	}
	picture := part{"image", png, pic}
	cutForm := form(picture)
	cutForm.body = cutForm.body[:len(cutForm.body)-20]
	for name, tc := range map[string]struct {
		request request
		code    string
		status  int
		detail  string
	}{
		"no model":                {request{body: pic}, "no-model", 400, "cat, dog, imagenet"},
		"only commas":             {request{query: "?model=,,", body: pic}, "no-model", 400, "cat, dog, imagenet"},
		"unknown model":           {request{query: "?model=cta", body: pic}, "unknown-model", 404, "cat, dog, imagenet"},
		"broken query":            {request{query: "?model=%zz", body: pic}, codeRequest, 400, "?model=cat&model=dog"},
		"nothing":                 {request{query: "?model=cat"}, "no-picture", 400, "Send the picture's bytes"},
		"not a picture":           {request{query: "?model=cat", body: "hello"}, "not-a-picture", 415, "JPEG"},
		"too large":               {request{query: "?model=cat", body: large}, codeTooLarge, 413, "1000 bytes"},
		"compressed":              {request{query: "?model=cat", body: pic, more: []string{"Content-Encoding", "gzip"}}, codeEncoding, 415, "compressed"},
		"another multipart":       {request{query: "?model=cat", contentType: "multipart/mixed; boundary=x", body: pic}, codeEncoding, 415, "multipart/form-data"},
		"form without boundary":   {request{query: "?model=cat", contentType: "multipart/form-data", body: pic}, codeRequest, 400, "boundary"},
		"form that is none":       {request{query: "?model=cat", contentType: "multipart/form-data; boundary=x", body: pic}, codeRequest, 400, "boundary"},
		"form that is cut":        {cutForm, codeIncomplete, 400, "ended"},
		"form without picture":    {form(part{"model", "", "cat"}), codeRequest, 400, `no field "image"`},
		"form, empty picture":     {form(part{"image", png, ""}), "no-picture", 400, ""},
		"form with two pictures":  {form(picture, picture), codeRequest, 400, "one picture a request"},
		"form, another field":     {form(part{"file", png, pic}), codeRequest, 400, `"file"`},
		"form, large picture":     {form(part{"image", png, large}), codeTooLarge, 413, "1000 bytes"},
		"form, large model":       {form(part{"model", "", strings.Repeat("x", 5000)}), codeTooLarge, 413, `A field "model" may have 4096 bytes`},
		"form, too large":         {form(part{"image", png, strings.Repeat("x", 70000)}), codeTooLarge, 413, ""},
		"form, too many fields":   {form(manyModels(65)...), codeRequest, 400, "more than 64 fields"},
		"JSON, nothing":           {request{contentType: js}, codeRequest, 400, "ends too early"},
		"JSON, cut":               {request{contentType: js, body: `{"url":"x"`}, codeRequest, 400, "ends too early"},
		"JSON, broken":            {request{contentType: js, body: `{"url":}`}, codeRequest, 400, "after 8 bytes"},
		"JSON, a list":            {request{contentType: js, body: `[]`}, codeRequest, 400, "has to be an object"},
		"JSON, data URL":          {request{contentType: js, body: `{"image":"data:image/png;base64,AAAA","models":["cat"]}`}, codeRequest, 400, "data:"},
		"JSON, wrong type":        {request{contentType: js, body: `{"models":"cat"}`}, codeRequest, 400, `"models" cannot be of the type string`},
		"JSON, unknown member":    {request{contentType: js, body: `{"model":"cat"}`}, codeRequest, 400, `"model"`},
		"JSON, not base64":        {request{contentType: js, body: `{"image":"cat!","models":["cat"]}`}, codeRequest, 400, "base64"},
		"JSON, neither":           {request{contentType: js, body: `{"models":["cat"]}`}, codeRequest, 400, `either "url"`},
		"JSON, both":              {request{contentType: js, body: `{"url":"http://x","image":"AA==","models":["cat"]}`}, codeRequest, 400, `either "url"`},
		"JSON, twice":             {request{contentType: js, body: string(imageJSON(dot(), "cat")) + "{}"}, codeRequest, 400, "after its end"},
		"JSON, picture too large": {request{contentType: js, body: string(imageJSON([]byte(large), "cat"))}, codeTooLarge, 413, "1000 bytes"},
		"JSON, too large":         {request{contentType: js, body: strings.Repeat(" ", 70000)}, codeTooLarge, 413, ""},
		"problem+json is JSON":    {request{contentType: "application/x+json", body: `{}`}, codeRequest, 400, `either "url"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			headers := tc.request.more
			if tc.request.contentType != "" {
				headers = append(headers, "Content-Type", tc.request.contentType)
			}
			for _, send := range []func(*testing.T, string, string, []byte, ...string) *answer{w.call, w.stream} {
				send(t, http.MethodPost, "/v1/infer"+tc.request.query, []byte(tc.request.body), headers...).
					requireProblem(t, tc.code, tc.status, tc.detail)
			}
		})
	}
	t.Cleanup(func() { require.Empty(t, w.delivered(), "nothing was queued") })
}

func manyModels(n int) []part {
	parts := make([]part, n)
	for i := range parts {
		parts[i] = part{"model", "", "cat"}
	}
	return parts
}

func TestInferKeepsOneModelsFailureToThatModel(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) {
		s.subscribe = func(_ *world, r *events.Request) *events.Result {
			if r.Model == "cat" {
				p := problem.New("model-down", 503, "The model is down", "Try again later.")
				p.RetryAfter = 9
				return failureOf(r, p)
			}
			return answerTo(r)
		}
	})
	pic := portrait(14)
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat,dog", pic)
	require.Equal(t, 200, a.status)
	require.Empty(t, a.header.Get("Retry-After"))
	var got ask.Response
	a.into(t, &got)
	require.Equal(t, "urn:ebb:problem:model-down", got.Results[0].Error.Type)
	require.Nil(t, got.Results[0].Top)
	requireAnswer(t, &got.Results[1], "dog", pic)

	a = w.call(t, http.MethodPost, "/v1/infer?model=cat", pic)
	require.Equal(t, 503, a.status)
	require.Equal(t, "9", a.header.Get("Retry-After"))
	require.Equal(t, "application/json", a.header.Get("Content-Type"), "the shape of answers, with the error in it")
	got = ask.Response{}
	a.into(t, &got)
	require.Equal(t, "Try again later.", got.Results[0].Error.Detail)
}

func TestInferPassesAFullBrokerOn(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) {
		s.broker = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "4")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	})
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(15))
	require.Equal(t, 503, a.status)
	require.Equal(t, "4", a.header.Get("Retry-After"))
	a = w.call(t, http.MethodPost, "/v1/models/cat:predict", v1Body(portrait(15)))
	a.requireError(t, 503, "queue is full")
	require.Equal(t, "4", a.header.Get("Retry-After"))
}

// badly is a body that breaks off with an error of its own.
type badly struct{ read atomic.Bool }

func (b *badly) Read(p []byte) (int, error) {
	if b.read.Swap(true) {
		return 0, errors.New("the disk is gone")
	}
	return copy(p, dot()), nil
}

func TestInferDoesNotBlameItselfForABodyThatBreaks(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v1/infer?model=cat", &badly{})
	require.NoError(t, err)
	const id = "0198c2a4-5f0e-7abc-8def-0011223344ff"
	req.Header.Set("X-Request-Id", id)
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	transport.CloseIdleConnections()
	status := w.log.of(t, "request", id)["status"].(float64)
	require.Contains(t, []float64{400, 499}, status)
}

func v1Body(pictures ...[]byte) []byte {
	instances := make([]map[string][]byte, len(pictures))
	for i, p := range pictures {
		instances[i] = map[string][]byte{"b64": p}
	}
	body, err := json.Marshal(map[string]any{"instances": instances})
	if err != nil {
		panic(err)
	}
	return body
}

func v2Body(pictures ...[]byte) []byte {
	data := make([]string, len(pictures))
	for i, p := range pictures {
		data[i] = base64.StdEncoding.EncodeToString(p)
	}
	body, err := json.Marshal(map[string]any{
		"id":     "mine",
		"inputs": []any{map[string]any{"name": "image", "shape": []int{len(pictures)}, "datatype": "BYTES", "data": data}},
	})
	if err != nil {
		panic(err)
	}
	return body
}
