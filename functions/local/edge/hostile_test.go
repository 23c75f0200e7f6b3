package edge_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
)

// What can become of an event that is published past ingress.
const (
	unwanted = "unwanted" // the broker does not take it
	nobodys  = "nobody's" // no Trigger selects it, so the broker drops it
)

func TestHostileEventsHaveTheirDefinedAnswers(t *testing.T) {
	t.Parallel()
	r := newRequester(t)
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }
	cases := []struct {
		name    string
		change  func(*http.Request)
		outcome string // of the delivery, or one of the above
		told    string // code of the problem that the requester is told; "" when it is not
	}{
		{"as it should be", nil, "completed", ""},

		{"no model", without("Ce-Model"), nobodys, ""},
		{"a model that is a path", header("Ce-Model", "../../"+plain), nobodys, ""},
		{"a model in quotes", header("Ce-Model", `"`+plain+`"`), nobodys, ""},
		{"no type", without("Ce-Type"), unwanted, ""},
		{"no id", without("Ce-Id"), unwanted, ""},
		{"an id that is none", header("Ce-Id", "'; DROP TABLE"), "refused", ""},

		{"no reply address", without("Ce-Replyto"), "refused", ""},
		{"an empty reply address", header("Ce-Replyto", ""), "refused", ""},
		{"an exchange as reply address", header("Ce-Replyto", "amq.topic"), "refused", ""},
		{"somebody's queue as reply address", header("Ce-Replyto", "ebb.cat"), "refused", ""},
		{"a long reply address", header("Ce-Replyto", strings.Repeat("a", 1000)), "refused", ""},
		{"a reply address with a line break in disguise", header("Ce-Replyto", "amq.gen-%0D%0A"+strings.Repeat("A", 16)), "refused", ""},
		{"a reply address that is no text", header("Ce-Replyto", "amq.gen-\xff\xfe"), "refused", ""},
		{"the reply address of somebody who is gone", header("Ce-Replyto", goneAddress(t)), "unroutable", ""},
		{"a mailbox that is not there", header("Ce-Replyto", "ebb.mailbox.01234567-89ab-7def-8123-456789abcdef"), "unroutable", ""},

		{"no correlation id", without("Ce-Correlationid"), "refused", ""},
		{"a correlation id of 1 KB", header("Ce-Correlationid", strings.Repeat("c", 1000)), "refused", ""},

		{"no deadline", without("Ce-Deadline"), "failed", "malformed-event"},
		{"a deadline that is no time", header("Ce-Deadline", "tomorrow"), "failed", "malformed-event"},
		{"a deadline beyond all years", header("Ce-Deadline", "10000-01-01T00:00:00Z"), "failed", "malformed-event"},
		{"a deadline in the last of all years", header("Ce-Deadline", "9999-12-31T23:59:59Z"), "completed", ""},
		{"a deadline long ago", header("Ce-Deadline", "1970-01-01T00:00:00Z"), "expired", ""},
		{"a deadline of a clock that is behind", header("Ce-Deadline", in(-5*time.Second)), "expired", ""},
		{"a time of a clock that is ahead", header("Ce-Time", in(time.Hour)), "completed", ""},
		{"a time of a clock that is behind", header("Ce-Time", in(-time.Hour)), "completed", ""},
		{"no time, which Knative's dispatcher then adds", without("Ce-Time"), "completed", ""},

		{"a page as data", both(header("Content-Type", "text/html"), data(payload)), "failed", "malformed-event"},
		{"a page as a picture", data(payload), "failed", "not-a-picture"},
		{"a picture that is cut off", data(string(picture(t, 1)[:50])), "failed", "picture-damaged"},
		{"no data", data(""), "failed", "malformed-event"},
		{"a callback that is none", header("Ce-Callback", payload), "failed", "malformed-event"},
	}
	before, computed, letters := count(t, deliveries, plain), serving.computed(plain), count(t, deadLetters, plain)
	ids := make([]string, len(cases))
	want, computing := map[string]int{}, 0
	for n, c := range cases {
		e := r.event(t, plain, n)
		ids[n] = e.ID
		status, _ := publish(t, e, c.change)
		if c.outcome == unwanted {
			require.Equal(t, http.StatusBadRequest, status, c.name)
			continue
		}
		require.Equal(t, http.StatusAccepted, status, c.name)
		if c.outcome == nobodys {
			continue
		}
		want[c.outcome]++
		if c.outcome == "completed" || c.outcome == "unroutable" {
			computing++
		}
	}
	for outcome, n := range before {
		want[outcome] += n
	}
	requireCounts(t, deliveries, plain, want)
	require.Equal(t, computing, serving.computed(plain)-computed, "nothing else is computed")
	require.Equal(t, letters, count(t, deadLetters, plain), "nothing comes again until it is a dead letter")
	for n, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			switch {
			case c.outcome == "completed":
				require.Eventually(t, func() bool { return len(r.got(ids[n])) > 0 }, patience, interval)
				timing := r.requireAnswer(t, ids[n], n).Timing
				require.GreaterOrEqual(t, timing.Queue, 0.0)
			case c.told != "":
				require.Eventually(t, func() bool { return len(r.got(ids[n])) > 0 }, patience, interval)
				results := r.got(ids[n])
				require.Len(t, results, 1)
				require.NotNil(t, results[0].Problem)
				require.Equal(t, c.told, results[0].Problem.Code())
				require.NotContains(t, results[0].Problem.Detail, payload)
			default:
				require.Empty(t, r.got(ids[n]))
			}
		})
	}
}

// goneAddress is the address of a reply queue that is gone.
func goneAddress(t *testing.T) string {
	t.Helper()
	ch := channel(t)
	const durable, autoDelete, exclusive, noWait, ifUnused, ifEmpty = false, true, true, false, false, false
	q, err := ch.QueueDeclare("", durable, autoDelete, exclusive, noWait, nil)
	require.NoError(t, err)
	_, err = ch.QueueDelete(q.Name, ifUnused, ifEmpty, noWait)
	require.NoError(t, err)
	return q.Name
}

// Nothing that comes by HTTP has such attributes; this is somebody who may publish to the exchange itself.
func TestAnEventThatHTTPCannotCarryIsGivenUp(t *testing.T) {
	t.Parallel()
	r := newRequester(t)
	ch := channel(t)
	require.NoError(t, ch.Confirm(false))
	unrouted := ch.NotifyReturn(make(chan amqp091.Return, 1))
	var sent []string
	for _, replyTo := range []string{"amq.gen-\r\nCe-Model: other", "\x00", r.address + "\n"} {
		e := r.event(t, mangled, 1)
		sent = append(sent, e.ID)
		confirmation, err := ch.PublishWithDeferredConfirm(topology.NewBroker("ebb", "ebb").Exchange(), "", true, false, amqp091.Publishing{
			ContentType: e.ContentType, Body: e.Data, Headers: amqp091.Table{
				"specversion": "1.0", "content-type": e.ContentType, "type": events.TypeRequested, "id": e.ID, "source": e.Source,
				"time": e.Time.Format(time.RFC3339Nano), "model": e.Model, "replyto": replyTo, "correlationid": e.CorrelationID,
				"deadline": e.Deadline.Format(time.RFC3339Nano),
			},
		})
		require.NoError(t, err)
		require.True(t, confirmation.Wait())
		require.Empty(t, unrouted)
	}
	names := queues(mangled)
	require.Eventually(t, func() bool {
		// Unlike AMQP, this counts what a dispatcher has in hand.
		list, err := node.Control(t.Context(), "list_queues", "name", "messages")
		return err == nil && strings.Contains(list, names.Queue+"\t0\n") && strings.Contains(list, names.DeadLetterQueue+"\t0\n")
	}, patience, interval)
	for _, id := range sent {
		require.Empty(t, r.got(id))
	}
	require.Empty(t, count(t, deliveries, mangled))
	answer(t, infer(t, mangled, picture(t, 2), ""), 2)
}
