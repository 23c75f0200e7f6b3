//nolint:thelper // what takes a *testing.T here is a test, not a helper
package conformance

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

var publishing = []test{
	{"an event that no Trigger matches is accepted and dropped", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		s.publish(t, request("unknown"))
		cat := request("cat")
		s.publish(t, cat)
		cats.expect(t, cat, http.StatusOK)
	}},
	{"what is no event is refused", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		for _, missing := range []string{"Ce-Specversion", "Ce-Id", "Ce-Type", "Ce-Source"} {
			req, err := events.NewHTTPRequest(t.Context(), s.URL, request("cat"))
			require.NoError(t, err)
			req.Header.Del(missing)
			require.Equal(t, http.StatusBadRequest, send(t, req), "without %s", missing)
		}
	}},
}

var filters = []test{
	{"an event goes to every Trigger that it matches and to no other", func(t *testing.T, s *System) {
		cats, more, dogs, everything, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t), newSubscriber(t), newSubscriber(t)
		second, all := trier("cat", 0), trier("any", 0)
		second.Name = "to-cat-too"
		all.Filter = nil
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		s.Subscribe(t, second, more.url, dead.url)
		s.Subscribe(t, trier("dog", 0), dogs.url, dead.url)
		s.Subscribe(t, all, everything.url, dead.url)
		cat, dog, bird := request("cat"), request("dog"), request("bird")
		s.publish(t, dog, cat, bird)
		cats.expect(t, cat, http.StatusOK)
		more.expect(t, cat, http.StatusOK)
		dogs.expect(t, dog, http.StatusOK)
		everything.expectAll(t, http.StatusOK, cat, dog, bird)
	}},
	{"an attribute matches exactly", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		cat := request("cat")
		s.publish(t, request("cats"), request("ca"), request("at"), request("0cat"), cat)
		cats.expect(t, cat, http.StatusOK)
	}},
	{"all attributes must match", func(t *testing.T, s *System) {
		some, dead := newSubscriber(t), newSubscriber(t)
		tr := trier("cat", 0)
		tr.Filter["correlationid"] = "chosen"
		s.Subscribe(t, tr, some.url, dead.url)
		chosen, other, dog := request("cat"), request("cat"), request("dog")
		chosen.CorrelationID, dog.CorrelationID = "chosen", "chosen"
		s.publish(t, dog, other, chosen)
		some.expect(t, chosen, http.StatusOK)
	}},
}

var delivering = []test{
	{"an event arrives as it was sent", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		sent := request("cat")
		sent.TraceParent, sent.TraceState = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=value"
		s.publish(t, sent)
		c := cats.next(t)
		c.answer <- http.StatusNoContent
		// A broker may have put a span of its own between; the trace is the same.
		require.Equal(t, sent.TraceParent[:35], c.event.TraceParent[:35])
		c.event.TraceParent = sent.TraceParent
		require.Equal(t, sent, c.event)
	}},
	{"a large picture arrives whole", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		sent := request("cat")
		sent.Data = make([]byte, 4<<20)
		for i := range sent.Data {
			sent.Data[i] = byte(i ^ i>>8 ^ i>>16)
		}
		s.publish(t, sent)
		cats.expect(t, sent, http.StatusOK)
	}},
	{"of many events from many publishers none is lost", func(t *testing.T, s *System) {
		const publishers, each = 8, 40
		cats, dead := newSubscriber(t), newSubscriber(t)
		tr := patient("cat")
		tr.Delivery.Parallelism = 20
		s.Subscribe(t, tr, cats.url, dead.url)
		all := requests("cat", publishers*each)
		var publishing sync.WaitGroup
		for own := range slices.Chunk(all, each) {
			publishing.Go(func() {
				for _, r := range own {
					req, err := events.NewHTTPRequest(t.Context(), s.URL, r)
					if err != nil {
						t.Error(err)
						return
					}
					req.Close = true
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					if resp.Body.Close() != nil || resp.StatusCode != http.StatusAccepted {
						t.Errorf("answered %d", resp.StatusCode)
					}
				}
			})
		}
		cats.expectAll(t, http.StatusOK, all...)
		publishing.Wait()
	}},
}

var retries = []test{
	{"a status that may pass is tried again", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		statuses := []int{500, 502, 503, 504, 404, 408, 409, 429}
		s.Subscribe(t, trier("cat", len(statuses)), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		for _, status := range statuses {
			cats.expect(t, event, status)
		}
		cats.expect(t, event, http.StatusOK)
	}},
	{"back-off may grow exponentially", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		tr := trier("cat", 4)
		tr.Delivery.Backoff = "exponential"
		s.Subscribe(t, tr, cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		for range 4 {
			cats.expect(t, event, http.StatusServiceUnavailable)
		}
		cats.expect(t, event, http.StatusOK)
	}},
	{"any other status is a delivery", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 5), cats.url, dead.url)
		for _, status := range []int{200, 202, 204, 400, 401, 403, 405, 410, 413, 415, 422} {
			event := request("cat")
			s.publish(t, event)
			cats.expect(t, event, status) // and the next that comes is the next event, not this one again
		}
		last := request("cat")
		s.publish(t, last)
		cats.expect(t, last, http.StatusOK)
	}},
	{"an event is delivered again when the subscriber dies with it in hand", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, patient("cat"), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		cats.expect(t, event, cut)
		cats.expect(t, event, cut)
		cats.expect(t, event, http.StatusOK)
	}},
	{"an event waits for a subscriber that is gone and comes back", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, patient("cat"), cats.url, dead.url)
		inHand, after := request("cat"), request("cat")
		s.publish(t, inHand)
		require.Equal(t, inHand, cats.next(t).event)
		cats.down(t) // with one in hand
		s.publish(t, after)
		cats.up(t)
		cats.expectAll(t, http.StatusOK, inHand, after)
	}},
	{"an attempt that takes too long is given up and made again", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		tr := patient("cat")
		tr.Delivery.Timeout = 200 * time.Millisecond
		s.Subscribe(t, tr, cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		slow := cats.next(t)
		require.Equal(t, event, slow.event)
		wait(t, slow.gaveUp, "the broker to give the attempt up")
		again := cats.next(t)
		require.Equal(t, event, again.event)
		again.answer <- http.StatusOK
		slow.answer <- http.StatusOK // to nobody
		cats.forgive(event)          // on a busy machine the second answer may be too late as well
	}},
	{"an event that fails holds up no other", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		tr := patient("cat")
		tr.Delivery.Parallelism = 2
		s.Subscribe(t, tr, cats.url, dead.url)
		stuck := request("cat")
		s.publish(t, stuck)
		held := cats.next(t)
		require.Equal(t, stuck, held.event)
		for range 5 {
			event := request("cat")
			s.publish(t, event)
			cats.expect(t, event, http.StatusOK)
		}
		held.answer <- http.StatusServiceUnavailable
		cats.expect(t, stuck, http.StatusOK)
	}},
}

var deadLetters = []test{
	{"what was tried in vain goes to the dead letter sink as it was sent", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 2), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		for range 3 {
			cats.expect(t, event, http.StatusServiceUnavailable)
		}
		letter := dead.expect(t, event, http.StatusOK)
		require.Equal(t, cats.url, letter.header.Get("Ce-"+events.ExtErrorDest))
		require.Equal(t, "503", letter.header.Get("Ce-"+events.ExtErrorCode))
	}},
	{"so does what nobody answered", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 1), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		cats.expect(t, event, cut)
		cats.expect(t, event, cut)
		letter := dead.expect(t, event, http.StatusOK)
		require.Equal(t, cats.url, letter.header.Get("Ce-"+events.ExtErrorDest))
		require.NotEmpty(t, letter.header.Get("Ce-"+events.ExtErrorCode))
	}},
	{"without retries the first failure is the last", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		cats.expect(t, event, http.StatusInternalServerError)
		dead.expect(t, event, http.StatusOK)
	}},
	{"the Trigger works on after one", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 1), cats.url, dead.url)
		for range 3 {
			bad, good := request("cat"), request("cat")
			s.publish(t, bad)
			cats.expect(t, bad, http.StatusBadGateway)
			cats.expect(t, bad, http.StatusBadGateway)
			s.publish(t, good)
			cats.expect(t, good, http.StatusOK)
			dead.expect(t, bad, http.StatusOK)
		}
	}},
	{"only the Trigger that failed sends one", func(t *testing.T, s *System) {
		broken, sound, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t)
		second := trier("cat", 0)
		second.Name = "sound"
		s.Subscribe(t, trier("cat", 0), broken.url, dead.url)
		s.Subscribe(t, second, sound.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		broken.expect(t, event, http.StatusInternalServerError)
		sound.expect(t, event, http.StatusOK)
		letter := dead.expect(t, event, http.StatusOK)
		require.Equal(t, broken.url, letter.header.Get("Ce-"+events.ExtErrorDest))
	}},
}

var parallelism = []test{
	{"1 is reached and not exceeded", func(t *testing.T, s *System) { fills(t, s, 1) }},
	{"4 is reached and not exceeded", func(t *testing.T, s *System) { fills(t, s, 4) }},
	{"100 is reached and not exceeded", func(t *testing.T, s *System) { fills(t, s, 100) }},
}

// fills holds n deliveries of more events than that, and lets one after the other go.
func fills(t *testing.T, s *System, n int) {
	cats, others, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t)
	tr := patient("cat")
	tr.Delivery.Parallelism = n
	s.Subscribe(t, tr, cats.url, dead.url)
	s.Subscribe(t, patient("dog"), others.url, dead.url)

	all := requests("cat", n+20)
	s.publish(t, all...)
	var held []*call
	for range n {
		held = append(held, cats.next(t))
	}
	// Each event for another Trigger shows that the broker is at work, with more for this one to be had.
	for range 3 {
		other := request("dog")
		s.publish(t, other)
		others.expect(t, other, http.StatusOK)
	}
	require.Empty(t, cats.calls, "more than %d at once", n)

	var got []*events.Request
	for len(held) > 0 {
		c := held[0]
		held = held[1:]
		got = append(got, c.event)
		c.answer <- http.StatusOK
		if len(got)+len(held) < len(all) {
			held = append(held, cats.next(t))
		}
	}
	require.ElementsMatch(t, all, got)
	require.EqualValues(t, n, cats.most.Load(), "the most at once")
}

// acceptedSurvives crashes the broker with events in its queue and with one in the subscriber's hand.
func acceptedSurvives(t *testing.T, s *System, restart func(*testing.T, *System)) {
	cats, dead := newSubscriber(t), newSubscriber(t)
	s.Subscribe(t, patient("cat"), cats.url, dead.url)
	all := requests("cat", 20)
	s.publish(t, all...)
	inHand := cats.next(t)
	restart(t, s)
	inHand.answer <- http.StatusOK // to a broker that is not there any more

	missing := map[string]*events.Request{}
	for _, r := range all {
		missing[r.ID] = r
	}
	for len(missing) > 0 { // at least once: duplicates are allowed
		c := cats.next(t)
		c.answer <- http.StatusOK
		i := slices.IndexFunc(all, func(r *events.Request) bool { return r.ID == c.event.ID })
		require.NotEqual(t, -1, i, "an event that nobody sent: %s", c.event.ID)
		require.Equal(t, all[i], c.event)
		delete(missing, c.event.ID)
	}
	cats.forgive(all...)
}
