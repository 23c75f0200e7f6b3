package page_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/models"
)

// field is one part of a form. A file has a name.
type field struct {
	name, file string
	data       []byte
}

func upload(data []byte) field   { return field{name: "image", file: "cat.png", data: data} }
func text(name, is string) field { return field{name: name, data: []byte(is)} }
func choose(names ...string) []field {
	var list []field
	for _, name := range names {
		list = append(list, text("model", name))
	}
	return list
}

func form(t *testing.T, fields ...field) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	for _, f := range fields {
		var part io.Writer
		var err error
		if f.file != "" {
			part, err = w.CreateFormFile(f.name, f.file)
		} else {
			part, err = w.CreateFormField(f.name)
		}
		require.NoError(t, err)
		_, err = part.Write(f.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return body, w.FormDataContentType()
}

// reply is what came back.
type reply struct {
	*http.Response
	body string
	doc  *html.Node
}

func do(t *testing.T, r *http.Request) reply {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(r) // does not follow redirects
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	doc, err := html.Parse(bytes.NewReader(body))
	require.NoError(t, err)
	return reply{Response: response, body: string(body), doc: doc}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return r
}

func get(t *testing.T, url string) reply {
	t.Helper()
	return do(t, request(t, http.MethodGet, url, nil))
}

func post(t *testing.T, url string, fields ...field) reply {
	t.Helper()
	body, contentType := form(t, fields...)
	r := request(t, http.MethodPost, url, body)
	r.Header.Set("Content-Type", contentType)
	return do(t, r)
}

// all are the elements below n for which yes holds. What is in a <template> is not in the page.
func all(n *html.Node, yes func(*html.Node) bool) []*html.Node {
	var list []*html.Node
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		if c.Data == "template" {
			continue
		}
		if c.Type == html.ElementNode && yes(c) {
			list = append(list, c)
		}
		list = append(list, all(c, yes)...)
	}
	return list
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(name, value string) func(*html.Node) bool {
	return func(n *html.Node) bool {
		for _, a := range n.Attr {
			if a.Key == name && (value == "" || a.Val == value) {
				return true
			}
		}
		return false
	}
}

func tag(name string) func(*html.Node) bool { return func(n *html.Node) bool { return n.Data == name } }

// read is the text in n, with single plain spaces.
func read(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

func reads(nodes []*html.Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = read(n)
	}
	return list
}

func (r reply) answers(t *testing.T) *html.Node {
	t.Helper()
	found := all(r.doc, has("id", "answers"))
	require.Len(t, found, 1, "the section with the answers")
	return found[0]
}

func (r reply) said(t *testing.T) []string {
	t.Helper()
	return reads(all(r.answers(t), has("data-say", "")))
}

func TestThePageOffersEveryModelAndTheExample(t *testing.T) {
	t.Parallel()
	r := get(t, serve(t, nil).url)
	require.Equal(t, http.StatusOK, r.StatusCode)
	boxes := all(r.doc, has("name", "model"))
	require.Len(t, boxes, 3)
	require.Equal(t, []string{"Is it a cat? cat", "Is it a dog? dog", "What is it? imagenet"}, reads(all(r.doc, has("class", "question"))))
	require.True(t, has("checked", "")(boxes[0]), "the first question is chosen")
	require.False(t, has("checked", "")(boxes[1]))
	address := all(r.doc, has("id", "url"))[0]
	require.Equal(t, example, attr(address, "placeholder"))
	require.Empty(t, attr(address, "value"))
	require.Equal(t, "empty", attr(r.answers(t), "data-state"))
	require.Contains(t, r.body, "up to 1\u00a0MB")
	file := all(r.doc, has("id", "image"))[0]
	require.NotContains(t, attr(file, "accept"), "*", "with a wildcard an iPhone sends HEIC")
	require.NotContains(t, attr(file, "accept"), "heic")
}

func TestTheQueryFillsInTheForm(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	r := get(t, s.url+"?url=https%3A%2F%2Fexample.org%2Fa.jpg&model=dog&model=imagenet")
	require.Equal(t, "https://example.org/a.jpg", attr(all(r.doc, has("id", "url"))[0], "value"))
	var chosen []string
	for _, box := range all(r.doc, has("checked", "")) {
		chosen = append(chosen, attr(box, "value"))
	}
	require.Equal(t, []string{"dog", "imagenet"}, chosen)
	require.Empty(t, s.questions(), "a link asks nothing")

	r = get(t, s.url+"?url="+strings.Repeat("a", 3000))
	require.Empty(t, attr(all(r.doc, has("id", "url"))[0], "value"))
}

func TestAFormWithoutScriptIsAnsweredWithAPage(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	sent := picture(t)
	r := post(t, s.url, append(choose("dog", "cat", "imagenet"), upload(sent), text("url", ""))...)
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, "text/html; charset=utf-8", r.Header.Get("Content-Type"))
	require.Equal(t, []string{"No, not a dog: 1 %", "Yes, a cat: 97 %, tabby", "Looks like tabby: 61 %"}, r.said(t))
	require.Equal(t, []string{"Is it a dog?", "Is it a cat?", "What is it?"}, reads(all(r.answers(t), tag("h3"))))

	cards := all(r.answers(t), tag("article"))
	require.Len(t, cards, 3)
	for _, card := range cards {
		require.Equal(t, []string{"tabby 61 %", "tiger cat 24 %", "Egyptian cat 12 %", "lynx 1 %", "quilt < 1 %"}, reads(all(card, tag("li"))))
		require.Equal(t, []string{"queue 3.0 ms", "decode 6.2 ms", "batch 0.2 ms", "compute 32 ms", "rest 6.8 ms"},
			reads(all(all(card, has("class", "times"))[0], tag("div"))))
		require.Equal(t, []string{"Answered by inception_v3, version 1 · batch of 4"}, reads(all(card, has("class", "source"))))
		require.Equal(t, []string{"Most likely", "Where the 48 ms went"}, reads(all(card, tag("h4"))))
	}

	asked := s.questions()
	require.Len(t, asked, 1)
	require.Equal(t, []string{"dog", "cat", "imagenet"}, asked[0].Models)
	require.Equal(t, sent, asked[0].Picture)

	preview := all(r.doc, has("id", "preview"))[0]
	require.True(t, strings.HasPrefix(attr(preview, "src"), "data:image/png;base64,iVBOR"), "the picture is shown")
	require.Len(t, all(r.doc, has("checked", "")), 3, "the questions stay chosen")
	require.Equal(t, "No, not a dog: 1 % · Ebb", read(all(r.doc, tag("title"))[0]))
}

func TestAnAddressIsFetchedAndStaysInTheForm(t *testing.T) {
	t.Parallel()
	var fetched string
	s := serve(t, func(c *page.Config, _ *asker) {
		c.Fetcher = fetcher(func(_ context.Context, url string) ([]byte, error) {
			fetched = url
			return picture(t), nil
		})
	})
	r := post(t, s.url, text("url", " "+example+" "), text("model", "cat"), field{name: "image", file: ""})
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, example, fetched)
	require.Equal(t, picture(t), s.questions()[0].Picture)
	require.Equal(t, example, attr(all(r.doc, has("id", "url"))[0], "value"))
}

func TestTheScriptGetsTheAnswersAlone(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	r := post(t, s.url+"?fragment=answers", upload(picture(t)), text("model", "cat"))
	require.True(t, strings.HasPrefix(r.body, `<section id="answers"`), r.body)
	require.Equal(t, []string{"Yes, a cat: 97 %, tabby"}, r.said(t))
	require.Empty(t, all(r.doc, tag("form")))
	require.NotContains(t, r.body, "data:image", "the browser has the file")

	r = post(t, s.url+"?fragment=answers", text("url", example), text("model", "cat"))
	require.Len(t, all(r.answers(t), has("data-seen", "")), 1, "the browser has not seen what is at the address")

	whole := post(t, s.url, upload(picture(t)), text("model", "cat"))
	require.Equal(t, render(t, r, "article"), render(t, whole, "article"), "both have the same card")
}

func render(t *testing.T, r reply, name string) string {
	t.Helper()
	var b strings.Builder
	for _, n := range all(r.answers(t), tag(name)) {
		require.NoError(t, html.Render(&b, n))
	}
	require.NotEmpty(t, b.String())
	return b.String()
}

func TestProblemsAreShownInPlainWordsWithTheirStatus(t *testing.T) {
	t.Parallel()
	overloaded := &problem.Details{Title: "Too many requests are waiting", Status: 503, Detail: "Come back soon.", RetryAfter: 7, Instance: "urn:uuid:0198"}
	refuses := func(err error) func(*page.Config, *asker) {
		return func(c *page.Config, a *asker) {
			a.answer = func(context.Context, ask.Question) (*ask.Response, error) { return nil, err }
			c.Fetcher = fetcher(func(context.Context, string) ([]byte, error) { return nil, err })
		}
	}
	cat := text("model", "cat")
	for name, test := range map[string]struct {
		change func(*page.Config, *asker)
		fields []field
		status int
		said   string
		retry  bool
	}{
		"nothing chosen":          {nil, []field{cat, {name: "image"}, text("url", "")}, 400, "No picture yet. Choose a picture or give its address, then ask again.", false},
		"no question":             {nil, []field{upload(picture(t))}, 400, "No question yet. Tick at least one question, then ask again.", false},
		"a picture too large":     {nil, []field{cat, upload(make([]byte, 1<<20+1))}, 413, "The picture is too large. A picture may have 1 MB at most. Choose a smaller version of it.", false},
		"a picture far too large": {nil, []field{cat, upload(make([]byte, 9<<20))}, 413, "The picture is too large. A picture may have 1 MB at most. Choose a smaller version of it.", false},
		"two pictures":            {nil, []field{cat, upload(picture(t)), upload(picture(t))}, 400, "The form could not be read. It has more than one picture. Send one at a time.", false},
		"two addresses":           {nil, []field{cat, text("url", example), text("url", example)}, 400, "The form could not be read. It has more than one address. Send one at a time.", false},
		"a picture, an address":   {nil, []field{cat, upload(picture(t)), text("url", example)}, 400, "The form could not be read. It has a picture and an address. Remove one of them, so that it is clear which picture you mean.", false},
		"an address too long":     {nil, []field{cat, text("url", strings.Repeat("a", 2049))}, 400, "The form could not be read. The address is too long. Save the picture and choose the file instead.", false},
		"a name too long":         {nil, []field{text("model", strings.Repeat("a", 254))}, 400, "The form could not be read. The name of a model is too long.", false},
		"too many fields":         {nil, append(choose(strings.Fields(strings.Repeat("cat ", 100))...), upload(nil)), 400, "The form could not be read. It has too many fields.", false},
		"an unknown model":        {nil, []field{upload(picture(t)), text("model", "owl")}, 404, "Unknown model. There is no such model.", false},
		"an overloaded service":   {refuses(overloaded), []field{cat, upload(picture(t))}, 503, "Too many requests are waiting. Come back soon. Try again in 7 seconds.", false},
		"overload at an address":  {refuses(overloaded), []field{cat, text("url", example)}, 503, "Too many requests are waiting. Come back soon. Try again in 7 seconds.", true},
		"a failure of the server": {refuses(errors.New("secret: disk 3")), []field{cat, upload(picture(t))}, 500, "Internal error. Something failed that should not have. Try again; if it stays, tell the operator the time and the request's id.", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, test.change)
			r := post(t, s.url, test.fields...)
			require.Equal(t, test.status, r.StatusCode)
			require.Equal(t, []string{test.said}, r.said(t))
			require.Equal(t, "failed", attr(r.answers(t), "data-state"))
			require.NotContains(t, r.body, "secret")
			require.Equal(t, test.retry, len(all(r.answers(t), has("data-do", "retry"))) == 1, "without a script only an address can be tried again")
			require.NotEmpty(t, all(r.doc, has("id", "ask")), "the form is still there")
			if test.status == 503 {
				require.Equal(t, "7", r.Header.Get("Retry-After"))
				require.Equal(t, []string{"0198"}, reads(all(r.answers(t), tag("code"))))
			}
		})
	}
}

func TestAModelThatFailsDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	broken := func(ctx context.Context, q ask.Question) (*ask.Response, error) {
		r, err := answerAll(ctx, q)
		r.Results[0] = ask.Result{Model: "cat", Question: "Is it a cat?", Error: problem.New("no-answer-in-time", 504, "No answer in time", "It is safe to ask again.")}
		return r, err
	}
	s := serve(t, func(_ *page.Config, a *asker) { a.answer = broken })
	r := post(t, s.url+"?fragment=answers", append(choose("cat", "dog"), upload(picture(t)))...)
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, "answered", attr(r.answers(t), "data-state"))
	require.Equal(t, []string{"No answer in time. It is safe to ask again.", "No, not a dog: 1 %"}, r.said(t))
	require.Len(t, all(r.answers(t), has("data-do", "retry")), 1)

	r = post(t, s.url+"?fragment=answers", upload(picture(t)), text("model", "cat"))
	require.Equal(t, http.StatusGatewayTimeout, r.StatusCode)
	require.Equal(t, "failed", attr(r.answers(t), "data-state"))
}

func TestFormsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	whole, contentType := form(t, upload(picture(t)), text("model", "cat"))
	cut := whole.Bytes()[:whole.Len()-40]
	for name, test := range map[string]struct {
		contentType string
		body        []byte
		status      int
	}{
		"no type":           {"", []byte("x"), 415},
		"a plain form":      {"application/x-www-form-urlencoded", []byte("url=x"), 415},
		"a picture":         {"image/png", picture(t), 415},
		"no boundary":       {"multipart/form-data", []byte("x"), 415},
		"cut off":           {contentType, cut, 400},
		"another boundary":  {"multipart/form-data; boundary=other", whole.Bytes(), 400},
		"no body":           {contentType, nil, 400},
		"an endless header": {"multipart/form-data; boundary=b", []byte("--b\r\n" + strings.Repeat("A: b\r\n", 20000)), 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(t, http.MethodPost, s.url, bytes.NewReader(test.body))
			r.Header.Set("Content-Type", test.contentType)
			got := do(t, r)
			require.Equal(t, test.status, got.StatusCode)
			require.Len(t, got.said(t), 1)
		})
	}
	require.Empty(t, s.questions())
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	host := strings.TrimSuffix(s.url, page.Path)
	for name, test := range map[string]struct {
		header map[string]string
		status int
	}{
		"the page itself":              {map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": host}, 200},
		"typed by hand":                {map[string]string{"Sec-Fetch-Site": "none"}, 200},
		"a program":                    {nil, 200},
		"an old browser":               {map[string]string{"Origin": host}, 200},
		"another site":                 {map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		"a sibling":                    {map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"another site, an old browser": {map[string]string{"Origin": "https://evil.example"}, 403},
		"a sandbox, in an old browser": {map[string]string{"Origin": "null"}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, contentType := form(t, upload(picture(t)), text("model", "cat"))
			r := request(t, http.MethodPost, s.url, body)
			r.Header.Set("Content-Type", contentType)
			for k, v := range test.header {
				r.Header.Set(k, v)
			}
			got := do(t, r)
			require.Equal(t, test.status, got.StatusCode)
			if test.status == 403 {
				require.Contains(t, got.said(t)[0], "This form came from another site")
			}
		})
	}
}

func TestHostileTextStaysText(t *testing.T) {
	t.Parallel()
	const evil = `</p><script>alert(1)</script><img src=x onerror="alert(1)">"'` + "`{{.}}\u202e"
	s := serve(t, func(c *page.Config, a *asker) {
		c.SuggestedURL = `javascript:alert(1)//"><script>alert(2)</script>`
		a.models = []*models.Model{{Definition: models.Definition{Name: evil, Question: evil, Subject: evil}}}
		a.answer = func(context.Context, ask.Question) (*ask.Response, error) {
			return &ask.Response{ID: evil, Results: []ask.Result{
				{
					Model: evil, Question: evil, Answer: ptr(true), Probability: ptr(0.5),
					Top:      []events.Class{{Label: evil, Probability: 0.5}},
					ServedBy: &events.ServedBy{Model: evil, Version: -1},
				},
				{Model: evil, Question: evil, Error: problem.New("x", 500, evil, evil)},
				{Model: evil, Top: []events.Class{{Label: evil, Probability: 0.5}}},
			}}, nil
		}
	})
	for name, r := range map[string]reply{
		"an answer":   post(t, s.url, field{name: "image", file: evil, data: picture(t)}, text("model", evil)),
		"an address":  post(t, s.url, text("url", evil), text("model", evil)),
		"a query":     get(t, s.url+"?model=%3Cscript%3E&url=%22%3E%3Cscript%3Ealert(3)%3C/script%3E"),
		"a fragment":  post(t, s.url+"?fragment=answers", text("url", evil), text("model", evil)),
		"other words": post(t, s.url+"?fragment=%3Cscript%3E", upload([]byte(evil)), text("model", evil)),
	} {
		scripts := all(r.doc, tag("script"))
		for _, script := range scripts {
			require.True(t, strings.HasPrefix(attr(script, "src"), "/home/assets/"), name)
			require.Nil(t, script.FirstChild, name)
		}
		for _, n := range all(r.doc, func(*html.Node) bool { return true }) {
			for _, a := range n.Attr {
				require.False(t, strings.HasPrefix(a.Key, "on"), "%s: %s has %s", name, n.Data, a.Key)
				require.NotEqual(t, "style", a.Key, name)
				if a.Key == "href" || a.Key == "src" || a.Key == "action" {
					require.Regexp(t, `^(/|#|data:image/png;base64,)`, a.Val, name)
				}
			}
		}
	}
}

func TestSectionsForTheScriptAreAllThere(t *testing.T) {
	t.Parallel()
	r := get(t, serve(t, nil).url)
	have := map[string]bool{}
	for _, m := range regexp.MustCompile(`<template data-(?:section|note)="([^"]+)"`).FindAllStringSubmatch(r.body, -1) {
		have[m[1]] = true
	}
	script := get(t, strings.TrimSuffix(serve(t, nil).url, page.Path)+attr(all(r.doc, tag("script"))[0], "src")).body
	wanted := regexp.MustCompile(`(?:clone|note|tell)\('([^']+)'\)|return '([^']+)';|\? '(ready)' : '(empty)'`).FindAllStringSubmatch(script, -1)
	require.NotEmpty(t, wanted)
	for _, names := range wanted {
		for _, name := range names[1:] {
			if name != "" {
				require.True(t, have[name], "the script shows %q", name)
			}
		}
	}
}

func TestEverythingIsSentWithAStrictPolicy(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	first := get(t, s.url)
	asset := strings.TrimSuffix(s.url, page.Path) + attr(all(first.doc, tag("script"))[0], "src")
	for name, r := range map[string]reply{
		"page": first, "asset": get(t, asset), "answer": post(t, s.url, upload(picture(t)), text("model", "cat")),
		"problem": post(t, s.url), "nothing": get(t, s.url+"/nothing"),
	} {
		require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'", r.Header.Get("Content-Security-Policy"), name)
		require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"), name)
		require.Equal(t, "same-origin", r.Header.Get("Referrer-Policy"), name)
		if name != "asset" {
			require.Equal(t, "no-store", r.Header.Get("Cache-Control"), name)
		}
	}
	require.NotContains(t, first.body, "style=")
	require.Empty(t, all(first.doc, tag("style")))
}

func TestAssetsAreCachedUnderTheirHashOnly(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	host := strings.TrimSuffix(s.url, page.Path)
	r := get(t, s.url)
	paths := map[string]string{
		attr(all(r.doc, tag("script"))[0], "src"):             "text/javascript; charset=utf-8",
		attr(all(r.doc, has("rel", "stylesheet"))[0], "href"): "text/css; charset=utf-8",
		attr(all(r.doc, has("rel", "icon"))[0], "href"):       "image/svg+xml",
	}
	require.Len(t, paths, 3)
	for path, contentType := range paths {
		require.Regexp(t, `^/home/assets/[0-9a-f]{16}/[a-z.]+$`, path)
		got := get(t, host+path)
		require.Equal(t, http.StatusOK, got.StatusCode)
		require.Equal(t, contentType, got.Header.Get("Content-Type"))
		require.Equal(t, "public, max-age=31536000, immutable", got.Header.Get("Cache-Control"))

		other := get(t, host+regexp.MustCompile(`[0-9a-f]{16}`).ReplaceAllString(path, "0123456789abcdef"))
		require.Equal(t, got.body, other.body, "a page of another revision works too")
		require.Equal(t, "no-store", other.Header.Get("Cache-Control"), "but nobody keeps it under a wrong name")

		head := do(t, request(t, http.MethodHead, host+path, nil))
		require.Equal(t, http.StatusOK, head.StatusCode)
		require.Empty(t, head.body)
	}
	require.Equal(t, http.StatusNotFound, get(t, host+"/home/assets/0123456789abcdef/none.js").StatusCode)
	require.Equal(t, http.StatusNotFound, get(t, host+"/home/assets/0123456789abcdef/..%2fpage.go").StatusCode)
	require.Equal(t, http.StatusNotFound, get(t, host+"/home/assets/").StatusCode)
}

func TestOtherMethodsAndPathsAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	head := do(t, request(t, http.MethodHead, s.url, nil))
	require.Equal(t, http.StatusOK, head.StatusCode)
	require.Empty(t, head.body)

	slash := get(t, s.url+"/")
	require.Equal(t, http.StatusPermanentRedirect, slash.StatusCode)
	require.Equal(t, page.Path, slash.Header.Get("Location"))

	for _, test := range []struct {
		method, path, allow string
		status              int
	}{
		{http.MethodPut, "", "GET, HEAD, POST", 405},
		{http.MethodDelete, "", "GET, HEAD, POST", 405},
		{http.MethodPost, "/assets/0123456789abcdef/page.js", "GET, HEAD", 405},
		{http.MethodGet, "/nothing", "", 404},
		{http.MethodPost, "/nothing", "", 404},
	} {
		r := do(t, request(t, test.method, s.url+test.path, nil))
		require.Equal(t, test.status, r.StatusCode, test)
		require.Equal(t, test.allow, r.Header.Get("Allow"), test)
		require.Equal(t, problem.ContentType, r.Header.Get("Content-Type"), test)
		var d problem.Details
		require.NoError(t, json.Unmarshal([]byte(r.body), &d), test)
		require.NotEmpty(t, d.Detail, test)
	}
}

func TestTheRequestKeepsTheIDThatItWasGiven(t *testing.T) {
	t.Parallel()
	a := &asker{models: catalogue, answer: answerAll}
	h := page.New(page.Config{Asker: a})
	body, contentType := form(t, upload(picture(t)), text("model", "cat"))
	r := httptest.NewRequest(http.MethodPost, page.Path, body)
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Request-Id", "a client's")
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "0198c0de-0000-7000-8000-00000000abcd")
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "0198c0de-0000-7000-8000-00000000abcd", a.questions()[0].ID)
}

func TestAPersonWhoLeavesCancelsTheQuestion(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan error, 1)
	s := serve(t, func(_ *page.Config, a *asker) {
		a.answer = func(ctx context.Context, _ ask.Question) (*ask.Response, error) {
			close(began)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	body, contentType := form(t, upload(picture(t)), text("model", "cat"))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, body)
	require.NoError(t, err)
	r.Header.Set("Content-Type", contentType)
	go func() { <-began; leave() }()
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		_ = response.Body.Close() // cannot be: nothing answers
	}
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
}

// stalled is a body that stops arriving.
type stalled struct{ io.Reader }

func (s stalled) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err == io.EOF {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func TestAPictureThatStopsArrivingIsTooSlow(t *testing.T) {
	t.Parallel()
	body, contentType := form(t, upload(picture(t)), text("model", "cat"))
	r := httptest.NewRequest(http.MethodPost, page.Path, stalled{bytes.NewReader(body.Bytes()[:1000])})
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	page.New(page.Config{Asker: &asker{models: catalogue, answer: answerAll}}).ServeHTTP(w, r)
	require.Equal(t, http.StatusRequestTimeout, w.Code)
	require.Contains(t, w.Body.String(), "The picture took too long to arrive")
}
