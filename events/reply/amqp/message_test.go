package amqp

import (
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

func sample() *events.Result {
	return &events.Result{
		ID: uuid.NewString(), Source: "/ebb/dispatch/cat/test", Time: time.Now().UTC(), RequestID: uuid.NewString(),
		CorrelationID: "one", Model: "cat", Problem: problem.New("test", 422, "Test", "ÄÖ"),
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}

func delivery(m amqp091.Publishing) *amqp091.Delivery {
	return &amqp091.Delivery{Headers: maps.Clone(m.Headers), ContentType: m.ContentType, CorrelationId: m.CorrelationId, Body: m.Body}
}

func TestAMessageHasTheFormOfTheCloudEventsBinding(t *testing.T) {
	t.Parallel()
	r := sample()
	m, err := encode(r)
	require.NoError(t, err)
	require.Equal(t, amqp091.Table{
		"cloudEvents:specversion": "1.0", "cloudEvents:type": events.TypeFailed, "cloudEvents:id": r.ID, "cloudEvents:source": r.Source,
		"cloudEvents:subject": r.RequestID, "cloudEvents:time": r.Time.Format(time.RFC3339Nano), "cloudEvents:correlationid": "one",
		"cloudEvents:model": "cat", "cloudEvents:traceparent": r.TraceParent,
	}, m.Headers)
	require.Equal(t, problem.ContentType, m.ContentType)
	require.Equal(t, "one", m.CorrelationId)
	require.Equal(t, amqp091.Transient, m.DeliveryMode)

	d := delivery(m)
	d.Headers["x-death"] = amqp091.Table{} // others may add theirs
	got, err := decode(d)
	require.NoError(t, err)
	require.Equal(t, r, got)
}

func TestAMessageThatIsNoResultIsMalformed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*amqp091.Delivery)
		want   string
	}{
		"no CloudEvent":             {func(d *amqp091.Delivery) { d.Headers = nil }, "binary mode"},
		"another version":           {func(d *amqp091.Delivery) { d.Headers["cloudEvents:specversion"] = "0.3" }, "specversion"},
		"an attribute is no string": {func(d *amqp091.Delivery) { d.Headers["cloudEvents:model"] = int64(1) }, "cloudEvents:model"},
		"no time":                   {func(d *amqp091.Delivery) { d.Headers["cloudEvents:time"] = "noon" }, "time"},
		"no name":                   {func(d *amqp091.Delivery) { d.Headers["cloudEvents:"] = "x" }, ""},
		"a name that is none":       {func(d *amqp091.Delivery) { d.Headers["cloudEvents:ÄÖ ü"] = "x" }, ""},
		"two content types":         {func(d *amqp091.Delivery) { d.Headers["cloudEvents:datacontenttype"] = "text/plain" }, "content-type"},
		"another content type":      {func(d *amqp091.Delivery) { d.ContentType = "text/plain" }, "datacontenttype"},
		"another correlation id":    {func(d *amqp091.Delivery) { d.CorrelationId = "two" }, "correlation-id"},
		"no model":                  {func(d *amqp091.Delivery) { delete(d.Headers, "cloudEvents:model") }, "model"},
		"no data":                   {func(d *amqp091.Delivery) { d.Body = nil }, "data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := encode(sample())
			require.NoError(t, err)
			d := delivery(m)
			c.change(d)
			_, err = decode(d)
			require.ErrorIs(t, err, events.ErrMalformed)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := decode(&amqp091.Delivery{Body: make([]byte, events.MaxResultBytes+1)})
	require.ErrorIs(t, err, events.ErrTooLarge)
}

func FuzzDecode(f *testing.F) {
	m, err := encode(sample())
	require.NoError(f, err)
	f.Add("cloudEvents:tracestate", "a=b", m.ContentType, m.CorrelationId, m.Body)
	f.Fuzz(func(t *testing.T, header, value, contentType, correlationID string, body []byte) {
		d := delivery(m)
		d.Headers[header], d.ContentType, d.CorrelationId, d.Body = value, contentType, correlationID, body
		r, err := decode(d)
		if err != nil {
			return
		}
		again, err := encode(r)
		require.NoError(t, err)
		got, err := decode(delivery(again))
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
}
