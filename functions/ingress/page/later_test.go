package page_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
)

const (
	firstID   = "0198c0de-0000-7000-8000-000000000001"
	firstPath = page.Path + "/requests/" + firstID
	refresh   = `<noscript><meta http-equiv="refresh" content="`
)

// fill posts the form without a network, so that its time may be a bubble's, and returns what came back after how long.
func fill(t *testing.T, ctx context.Context, l *later, query string, named ...string) (*httptest.ResponseRecorder, time.Duration) { //nolint:revive // t first
	t.Helper()
	h := page.New(page.Config{Asker: &asker{models: catalogue, later: l}, Logger: slog.New(slog.DiscardHandler)})
	body, contentType := form(t, append(choose(named...), upload(picture(t)))...)
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, page.Path+query, body)
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	began := time.Now()
	h.ServeHTTP(w, r)
	return w, time.Since(began)
}

func TestWhatIsQuickIsAnsweredAtOnceAndNotKept(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "?fragment=answers"} {
		synctest.Test(t, func(t *testing.T) {
			l := newLater()
			time.AfterFunc(90*time.Millisecond, func() { l.answer("cat", "dog") })
			w, took := fill(t, t.Context(), l, query, "cat", "dog")
			require.Equal(t, http.StatusOK, w.Code)
			require.Contains(t, w.Body.String(), "Yes, a cat")
			require.Contains(t, w.Body.String(), "No, not a dog")
			require.NotContains(t, w.Body.String(), "/home/requests/", "nobody needs an address of what is here")
			require.Less(t, took, 90*time.Millisecond*5/4+time.Millisecond, "looking for it takes a quarter of the time at most")
			require.Equal(t, []string{firstID}, l.forgotten())
		})
	}
}

func TestNobodyWaitsUntilTheirAnswerIsForgotten(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	l.keeping = make(chan struct{})
	s := serveLater(t, l)
	require.Equal(t, []string{"Yes, a cat: 97 %, tabby"}, post(t, s.url, upload(picture(t)), text("model", "cat")).said(t))
	require.Empty(t, l.forgotten())
	close(l.keeping)
	s.stop()
	require.Equal(t, []string{firstID}, l.forgotten())
}

func TestWhoAnsweredWaitsOnlyAMomentForTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLater("cat")
		w, took := fill(t, t.Context(), l, "?fragment=answers", "dog", "cat")
		require.Equal(t, http.StatusAccepted, w.Code)
		require.Less(t, took, 300*time.Millisecond)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Empty(t, l.forgotten())
	})
	synctest.Test(t, func(t *testing.T) {
		_, took := fill(t, t.Context(), newLater(), "?fragment=answers", "dog", "cat")
		require.Equal(t, time.Second, took, "and nobody waits longer for nothing")
	})
}

func TestALookThatFailsDoesNotFailTheQuestion(t *testing.T) {
	t.Parallel()
	l := newLater()
	l.fail(problem.New("replies-down", 503, "For programs", ""))
	w, _ := fill(t, t.Context(), l, "?fragment=answers", "cat")
	require.Equal(t, http.StatusAccepted, w.Code)
	require.Contains(t, w.Body.String(), firstPath)
}

func TestWhatNobodyWaitsForIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLater()
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, leave)
		w, _ := fill(t, ctx, l, "", "cat")
		require.Equal(t, ask.StatusClientGone, w.Code)
		require.Equal(t, []string{firstID}, l.forgotten())
	})
}

func TestAQuestionThatCannotBeAskedLaterIsAProblemAsEver(t *testing.T) {
	t.Parallel()
	r := post(t, serveLater(t, newLater()).url, text("model", "cat"))
	require.Equal(t, http.StatusBadRequest, r.StatusCode)
	require.Equal(t, []string{"No picture yet. Choose a picture or give its address, then ask again."}, r.said(t))
}

func kinds(t *testing.T, r reply) []string {
	t.Helper()
	var list []string
	for _, card := range all(r.answers(t), tag("article")) {
		list = append(list, attr(card, "data-model")+" "+attr(card, "data-kind"))
	}
	return list
}

func forms(t *testing.T, r reply) []*html.Node {
	t.Helper()
	return all(r.answers(t), has("data-do", "forget"))
}

func TestASlowAnswerHasAPageOfItsOwn(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	s := serveLater(t, l)
	sent := post(t, s.url, append(choose("dog", "cat"), upload(picture(t)))...)
	require.Equal(t, http.StatusSeeOther, sent.StatusCode)
	require.Equal(t, firstPath+"#answers", sent.Header.Get("Location"))
	at := s.url + "/requests/" + firstID

	r := get(t, at)
	require.Equal(t, http.StatusAccepted, r.StatusCode)
	require.Equal(t, "1", r.Header.Get("Retry-After"))
	require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	require.Equal(t, "waiting", attr(r.answers(t), "data-state"))
	require.Equal(t, []string{"dog waiting", "cat yes"}, kinds(t, r))
	require.Equal(t, []string{"Is it a dog?", "Is it a cat?"}, reads(all(r.answers(t), tag("h3"))))
	require.Equal(t, []string{"Yes, a cat: 97 %, tabby"}, r.said(t))
	require.Contains(t, r.body, refresh+"2; url="+firstPath+"?look=", "without the script it loads itself again")
	require.Equal(t, "Working on it · Ebb", read(all(r.doc, tag("title"))[0]))
	require.Len(t, forms(t, r), 1)
	require.Len(t, all(r.doc, has("checked", "")), 2, "what was asked stays chosen")

	fragment := get(t, at+"?fragment=answers")
	require.Equal(t, http.StatusAccepted, fragment.StatusCode)
	require.Equal(t, render(t, r, "article"), render(t, fragment, "article"))
	require.NotContains(t, fragment.body, "refresh")

	l.answer("dog")
	for range 2 {
		r = get(t, at)
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Equal(t, []string{"dog no", "cat yes"}, kinds(t, r))
		require.Equal(t, "answered", attr(r.answers(t), "data-state"))
		require.NotContains(t, r.body, refresh)
		require.Empty(t, r.Header.Get("Retry-After"))
		require.Equal(t, "No, not a dog: 1 % · Ebb", read(all(r.doc, tag("title"))[0]))
	}
	require.Empty(t, l.forgotten(), "it can be read again")
}

func TestALongWaitIsLookedAtLessOften(t *testing.T) {
	t.Parallel()
	for elapsed, want := range map[time.Duration]struct {
		again, clock string
		retry        int
		cold         bool
	}{
		0:                {"0.5", "0:00", 1, false},
		4 * time.Second:  {"1", "0:04", 1, true},
		10 * time.Second: {"2.5", "0:10", 3, true},
		5 * time.Minute:  {"10", "5:00", 10, true},
		-time.Hour:       {"0.5", "0:00", 1, false}, // another machine's clock
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLater()
			p, err := l.open(firstID, []string{"cat"})
			require.NoError(t, err)
			p.Time = p.Time.Add(-elapsed)
			l.asked[firstID] = *p
			w := httptest.NewRecorder()
			page.New(page.Config{Asker: &asker{models: catalogue, later: l}}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, firstPath, nil))
			shown, _, _ := strings.Cut(w.Body.String(), "<template")
			require.Contains(t, shown, ` data-again="`+want.again+`"`)
			require.Contains(t, shown, `data-part="elapsed">`+want.clock+`<`)
			require.Equal(t, strconv.Itoa(want.retry), w.Header().Get("Retry-After"))
			require.Contains(t, shown, refresh+strconv.Itoa(max(2, want.retry))+";")
			require.Equal(t, want.cold, !strings.Contains(shown, `data-part="cold" hidden`))
		})
	}
}

func TestWhatCannotBeCollectedIsExplained(t *testing.T) {
	t.Parallel()
	late := problem.New("no-answer-in-time", 504, "No answer in time", "It is safe to ask again.")
	for name, test := range map[string]struct {
		failure error
		status  int
		said    string
		refresh bool
	}{
		"unknown":    {problem.New(ask.CodeUnknownRequest, 404, "x", "x"), 404, "There is no such answer. It was forgotten, its time is over, or its address is not whole. Choose the picture and ask again.", false},
		"not an id":  {problem.New(ask.CodeRequestID, 400, "x", "x"), 404, "There is no such answer. It was forgotten, its time is over, or its address is not whole. Choose the picture and ask again.", false},
		"gone":       {problem.New(ask.CodeRequestGone, 410, "x", "x"), 410, "This answer is gone. Answers are kept for a while only, or until somebody forgets them. Choose the picture and ask again.", false},
		"not here":   {problem.New(ask.CodeNotLater, 501, "This is not offered here", "This server keeps no answers."), 501, "This is not offered here. This server keeps no answers.", false},
		"not now":    {&problem.Details{Status: 503, Title: "x", RetryAfter: 7}, 503, "The answer cannot be looked up just now. Where answers are kept cannot be reached. This page looks again by itself.", true},
		"an error":   {errors.New("secret: disk 3"), 500, "Internal error. Something failed that should not have. Try again; if it stays, tell the operator the time and the request's id.", false},
		"no answers": {nil, 504, "No answer in time. It is safe to ask again.", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLater()
			l.put(ask.Result{Model: "cat", Question: "Is it a cat?", Error: late})
			_, err := l.open(firstID, []string{"cat"})
			require.NoError(t, err)
			l.fail(test.failure)
			at := serveLater(t, l).url + "/requests/" + firstID
			for _, r := range []reply{get(t, at), get(t, at+"?fragment=answers")} {
				require.Equal(t, test.status, r.StatusCode)
				require.Equal(t, []string{test.said}, r.said(t))
				require.NotContains(t, r.body, "secret")
			}
			r := get(t, at)
			require.Equal(t, test.refresh, strings.Contains(r.body, refresh))
			require.Equal(t, map[bool]string{true: "7"}[test.refresh], r.Header.Get("Retry-After"))
			require.Empty(t, all(r.answers(t), has("data-do", "retry")), "the picture is not here any more")
			require.NotEmpty(t, all(r.doc, has("id", "ask")), "the form is")
		})
	}
}

func TestAnAnswerIsForgotten(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	s := serveLater(t, l)
	_, err := l.open(firstID, []string{"cat"})
	require.NoError(t, err)
	at := s.url + "/requests/" + firstID
	require.Equal(t, []string{"Forget this answer"}, reads(forms(t, get(t, at))))
	require.Equal(t, firstPath, attr(forms(t, get(t, at))[0], "action"))

	foreign := request(t, http.MethodPost, at, nil)
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, do(t, foreign).StatusCode)
	require.Empty(t, l.forgotten(), "another site cannot have it forgotten")

	r := do(t, request(t, http.MethodPost, at, nil))
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, "Forgotten", read(all(r.answers(t), tag("h2"))[0]))
	require.Equal(t, []string{firstID}, l.forgotten())
	for _, r := range []reply{get(t, at), do(t, request(t, http.MethodPost, at, nil))} {
		require.Equal(t, http.StatusNotFound, r.StatusCode)
		require.Contains(t, r.said(t)[0], "There is no such answer")
	}
	r = do(t, request(t, http.MethodDelete, at, nil))
	require.Equal(t, http.StatusMethodNotAllowed, r.StatusCode)
	require.Equal(t, "GET, HEAD, POST", r.Header.Get("Allow"))
}
