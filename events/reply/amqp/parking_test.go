package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply/amqp"
)

func park(t *testing.T, url string) *amqp.Parking {
	t.Helper()
	p, err := amqp.NewParking(t.Context(), amqp.Config{URL: url})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	return p
}

// letter is a dead letter with all that a letter may have.
func letter(n int) *parking.Letter {
	ev := event.New()
	ev.SetID(uuid.NewString())
	ev.SetSource("/ebb/ingress/test")
	ev.SetType(events.TypeRequested)
	ev.SetSubject("subject")
	ev.SetTime(time.Now().UTC())
	ev.SetDataContentType("image/png")
	ev.SetDataSchema("urn:schema")
	ev.SetExtension(events.ExtModel, "cat")
	ev.SetExtension(events.ExtErrorCode, "503")
	ev.SetExtension(events.ExtErrorDest, "http://dispatch-cat/")
	ev.DataEncoded = fmt.Appendf(nil, "picture %d \x00\xff", n)
	return &parking.Letter{Event: ev}
}

func take(t *testing.T, url string) parking.Hold {
	t.Helper()
	h, err := amqp.HoldParking(t.Context(), amqp.Config{URL: url})
	require.NoError(t, err)
	return h
}

// all is all that is parked, taken in hand by h.
func all(t *testing.T, h parking.Hold) []*parking.Held {
	t.Helper()
	var letters []*parking.Held
	for {
		held, err := h.Next(t.Context())
		if err == io.EOF { //nolint:errorlint // it is promised so
			return letters
		}
		require.NoError(t, err)
		letters = append(letters, held)
	}
}

// One node goes through all of it, since starting one takes seconds; and there is one parking place in each.
func TestTheParkingPlace(t *testing.T) { //nolint:tparallel // as above
	t.Parallel()
	node := rabbitmqtest.Start(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *rabbitmqtest.Node)
	}{
		{"parked letters stay in their order until they are removed", parkedLettersStayInTheirOrderUntilTheyAreRemoved},
		{"only one has the letters in hand", onlyOneHasTheLettersInHand},
		{"what does not fit is not parked and disturbs nobody", whatDoesNotFitIsNotParkedAndDisturbsNobody},
		{"a place that is full says so", aPlaceThatIsFullSaysSo},
		{"a queue that was deleted is made again", aQueueThatWasDeletedIsMadeAgain},
		{"what others put there is no letter and can be removed", whatOthersPutThereIsNoLetterAndCanBeRemoved},
		{"a queue of another form is said to be", aQueueOfAnotherFormIsSaidToBe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			on(t, node.URL(), func(ch *amqp091.Channel) {
				_, err := ch.QueueDelete(amqp.ParkingQueue, false, false, false)
				require.NoError(t, err)
			})
			tt.test(t, node)
		})
	}
}

// requireParked waits until so many letters are there after a restart: a quorum queue is a little later than its node.
func requireParked(t *testing.T, url string, n int) {
	t.Helper()
	eventually(t, func() bool {
		h, err := amqp.HoldParking(t.Context(), amqp.Config{URL: url, Timeout: 3 * time.Second})
		if err != nil {
			return false
		}
		got := 0
		for {
			if _, err = h.Next(t.Context()); err != nil {
				break
			}
			got++
		}
		return h.Close() == nil && errors.Is(err, io.EOF) && got == n
	})
}

func parkedLettersStayInTheirOrderUntilTheyAreRemoved(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	p := park(t, node.URL())
	var want []event.Event
	for n := range 10 {
		l := letter(n)
		require.NoError(t, p.Park(t.Context(), l))
		want = append(want, l.Event)
	}
	check := func() {
		t.Helper()
		h := take(t, node.URL())
		var got []event.Event
		for _, held := range all(t, h) {
			require.NoError(t, held.Err)
			require.WithinDuration(t, time.Now(), held.Letter.Parked, time.Hour)
			require.Equal(t, len(held.Letter.Event.Data()), held.Bytes)
			require.Equal(t, "503", held.Letter.StatusText())
			got = append(got, held.Letter.Event)
		}
		require.NoError(t, h.Close())
		require.Equal(t, dataOf(want), dataOf(got))
		require.Equal(t, want, got)
	}
	for range 25 { // more often than RabbitMQ 4 would have it by default
		check()
	}

	require.NoError(t, node.Stop())
	require.NoError(t, node.Start(t.Context()))
	requireParked(t, node.URL(), len(want))
	check()

	h := take(t, node.URL())
	letters := all(t, h)
	require.NoError(t, h.Remove(letters[3]))
	require.NoError(t, h.Remove(letters[0]))
	require.NoError(t, h.Close())
	want = append(want[1:3:3], want[4:]...)
	check()
	eventually(t, func() bool { return p.Ready() == nil })
	given, cancel := context.WithCancel(t.Context())
	h = take(t, node.URL())
	_, err := h.Next(given)
	require.NoError(t, err)
	cancel()
	_, err = h.Next(given)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, h.Close(), "who gives up puts back")
	want = append(want[1:], want[0])
	check()
	last := letter(99)
	require.NoError(t, p.Park(t.Context(), last))
	want = append(want, last.Event)
	check()
}

func onlyOneHasTheLettersInHand(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	_, err := amqp.HoldParking(t.Context(), amqp.Config{URL: node.URL()})
	require.ErrorIs(t, err, parking.ErrNoPlace)

	p := park(t, node.URL())
	require.NoError(t, p.Park(t.Context(), letter(1)))
	h := take(t, node.URL())
	require.Len(t, all(t, h), 1)
	_, err = amqp.HoldParking(t.Context(), amqp.Config{URL: node.URL()})
	require.ErrorIs(t, err, parking.ErrInUse)
	require.NoError(t, p.Park(t.Context(), letter(2)), "parking goes on")
	require.Len(t, all(t, h), 1)

	require.NoError(t, node.Stop())
	require.Error(t, h.Close(), "who knows what was removed")
	require.NoError(t, node.Start(t.Context()))
	requireParked(t, node.URL(), 2)
}

func whatDoesNotFitIsNotParkedAndDisturbsNobody(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	p := park(t, node.URL())
	for name, change := range map[string]func(*event.Event){
		"attributes":   func(e *event.Event) { e.SetExtension("long", strings.Repeat("x", parking.MaxAttributeBytes)) },
		"content type": func(e *event.Event) { e.SetDataContentType(strings.Repeat("x", 256)) },
		"a name":       func(e *event.Event) { e.SetExtension(strings.Repeat("x", 256), "1") },
	} {
		l := letter(0)
		change(&l.Event)
		require.ErrorIs(t, p.Park(t.Context(), l), events.ErrTooLarge, name)
	}
	longest := letter(1)
	longest.Event.SetExtension("long", strings.Repeat("x", parking.MaxAttributeBytes-1<<10))
	require.NoError(t, p.Park(t.Context(), longest))
	h := take(t, node.URL())
	require.Len(t, all(t, h), 1)
	require.NoError(t, h.Close())
}

func aPlaceThatIsFullSaysSo(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	p := park(t, node.URL())
	t.Cleanup(func() {
		_, err := node.Control(context.Background(), "clear_policy", "few")
		require.NoError(t, err)
	})
	_, err := node.Control(t.Context(), "set_policy", "few", "^"+amqp.ParkingQueue+"$", `{"max-length":2}`, "--apply-to", "queues")
	require.NoError(t, err)
	full := func() bool {
		err := p.Park(t.Context(), letter(1))
		if err != nil {
			require.ErrorIs(t, err, parking.ErrFull)
		}
		return err != nil
	}
	eventually(t, full) // a quorum queue counts a little late
}

func aQueueThatWasDeletedIsMadeAgain(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	p := park(t, node.URL())
	on(t, node.URL(), func(ch *amqp091.Channel) {
		_, err := ch.QueueDelete(amqp.ParkingQueue, false, false, false)
		require.NoError(t, err)
	})
	require.NoError(t, p.Park(t.Context(), letter(1)))
	h := take(t, node.URL())
	require.Len(t, all(t, h), 1)
	require.NoError(t, h.Close())
}

func whatOthersPutThereIsNoLetterAndCanBeRemoved(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	park(t, node.URL())
	on(t, node.URL(), func(ch *amqp091.Channel) {
		require.NoError(t, ch.Publish("", amqp.ParkingQueue, false, false, amqp091.Publishing{Body: []byte("hello")}))
		require.NoError(t, ch.Publish("", amqp.ParkingQueue, false, false, amqp091.Publishing{
			Headers: amqp091.Table{"cloudEvents:specversion": "1.0", "cloudEvents:id": "1"},
		}))
	})
	h := take(t, node.URL())
	var letters []*parking.Held
	eventually(t, func() bool {
		letters = append(letters, all(t, h)...)
		return len(letters) == 2
	})
	for _, held := range letters {
		require.Nil(t, held.Letter)
		require.ErrorIs(t, held.Err, events.ErrMalformed)
		require.NoError(t, h.Remove(held))
	}
	require.NoError(t, h.Close())
	h = take(t, node.URL())
	require.Empty(t, all(t, h))
	require.NoError(t, h.Close())
}

func aQueueOfAnotherFormIsSaidToBe(t *testing.T, node *rabbitmqtest.Node) {
	t.Helper()
	on(t, node.URL(), func(ch *amqp091.Channel) {
		_, err := ch.QueueDeclare(amqp.ParkingQueue, true, false, false, false, nil)
		require.NoError(t, err)
	})
	_, err := amqp.NewParking(t.Context(), amqp.Config{URL: node.URL()})
	require.ErrorContains(t, err, "other arguments")
}

// on calls f with a channel of somebody else.
func on(t *testing.T, url string, f func(*amqp091.Channel)) {
	t.Helper()
	conn, err := amqp091.Dial(url)
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	f(ch)
	require.NoError(t, conn.Close())
}

// dataOf is the data of events, for a short message when they are not those that were expected.
func dataOf(all []event.Event) []string {
	data := make([]string, 0, len(all))
	for i := range all {
		data = append(data, string(all[i].Data()))
	}
	return data
}
