package page_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	replies "github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

// answerTo is what a worker makes of a request.
func answerTo(r *events.Request) *events.Result {
	return &events.Result{
		ID: "answer-" + r.ID, Source: "/ebb/dispatch/test", Time: time.Now(), RequestID: r.ID, CorrelationID: r.CorrelationID, Model: r.Model,
		Answer: &events.Answer{Yes: ptr(r.Model == "cat"), Probability: ptr(0.97), Top: tops[:1], ServedBy: events.ServedBy{Model: "net", Version: 7}},
	}
}

func TestThePageAsksTheRealService(t *testing.T) {
	t.Parallel()
	hub := replies.NewHub()
	slow := make(chan *events.Request, 1)
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, err := events.ReadHTTPRequest(req, 1<<20, nil)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case r.Model == "dog":
			slow <- r
		default:
			if err := hub.Respond(req.Context(), r.ReplyTo, answerTo(r)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(broker.Close)
	service, err := ask.New(ask.Config{
		Models: catalogue, Replies: hub, Mailboxes: hub, BrokerURL: broker.URL, Source: "/ebb/ingress/test", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, service.Stop(context.Background())) })
	s := host(t, nil, page.New(page.Config{Asker: service, MaxBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)}))

	tab := open(t, s, pagetest.Still(), pagetest.Allow("status of 404"))
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text(catCard+" .verdict"))
	require.Equal(t, page.Path, path(tab), "who is quick needs no address")

	askBoth(t, tab)
	require.Equal(t, catSaid, tab.Text(catCard+" .verdict"))
	require.Regexp(t, `^/home/requests/[0-9a-f-]{36}$`, path(tab))
	at := s.url + path(tab)[len(page.Path):]
	r := <-slow
	require.NoError(t, hub.Respond(t.Context(), r.ReplyTo, answerTo(r)))
	tab.Wait(answered)
	require.Equal(t, "No, not a dog: 97 %", tab.Text(dogCard+" .verdict"))
	require.Equal(t, http.StatusOK, get(t, at).StatusCode)
	tab.Click(forgetting)
	tab.Wait(ready)
	gone := get(t, at)
	require.Equal(t, http.StatusGone, gone.StatusCode)
	require.Contains(t, gone.said(t)[0], "This answer is gone")
	require.Equal(t, http.StatusNotFound, get(t, s.url+"/requests/none").StatusCode)
}
