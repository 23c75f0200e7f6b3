package amqp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events"
)

// headerPrefix starts the headers that carry attributes, as the CloudEvents AMQP binding has it.
const headerPrefix = "cloudEvents:"

// encode writes r as a message. It refuses a Result that is not valid.
func encode(r *events.Result) (amqp091.Publishing, error) {
	ev, err := r.Event()
	if err != nil {
		return amqp091.Publishing{}, err
	}
	m, err := encodeEvent(&ev)
	if err != nil {
		return amqp091.Publishing{}, err
	}
	m.CorrelationId, m.DeliveryMode = r.CorrelationID, amqp091.Transient
	return m, nil
}

// encodeEvent writes any event in binary mode.
func encodeEvent(ev *event.Event) (amqp091.Publishing, error) {
	headers := amqp091.Table{
		headerPrefix + "specversion": ev.SpecVersion(),
		headerPrefix + "type":        ev.Type(),
		headerPrefix + "id":          ev.ID(),
		headerPrefix + "source":      ev.Source(),
	}
	if subject := ev.Subject(); subject != "" {
		headers[headerPrefix+"subject"] = subject
	}
	if schema := ev.DataSchema(); schema != "" {
		headers[headerPrefix+"dataschema"] = schema
	}
	if t := ev.Time(); !t.IsZero() {
		headers[headerPrefix+"time"] = t.UTC().Format(time.RFC3339Nano)
	}
	for name, value := range ev.Extensions() {
		text, err := types.Format(value)
		if err != nil {
			return amqp091.Publishing{}, fmt.Errorf("attribute %.64q: %w", name, err)
		}
		headers[headerPrefix+name] = text
	}
	if err := headers.Validate(); err != nil { // later it would cost the connection
		return amqp091.Publishing{}, err
	}
	return amqp091.Publishing{Headers: headers, ContentType: ev.DataContentType(), Body: ev.Data()}, nil
}

// decode reads what encode wrote. The error wraps events.ErrMalformed or events.ErrTooLarge.
func decode(d *amqp091.Delivery) (*events.Result, error) {
	if n := len(d.Body); n > events.MaxResultBytes {
		return nil, fmt.Errorf("%w: %d bytes of data; at most %d are taken", events.ErrTooLarge, n, events.MaxResultBytes)
	}
	ev, err := decodeEvent(d)
	if err != nil {
		return nil, err
	}
	r, err := events.ParseResult(ev)
	if err != nil {
		return nil, err
	}
	if d.CorrelationId != "" && d.CorrelationId != r.CorrelationID {
		return nil, malformed(errors.New("property correlation-id and attribute correlationid differ"))
	}
	return r, nil
}

// decodeEvent reads what encodeEvent wrote; whether the event is valid is still to be seen. The error wraps
// events.ErrMalformed.
func decodeEvent(d *amqp091.Delivery) (event.Event, error) {
	ev := event.New(event.CloudEventsVersionV1)
	ev.SetDataContentType(d.ContentType)
	ev.DataEncoded = d.Body
	for header, value := range d.Headers {
		name, ok := strings.CutPrefix(header, headerPrefix)
		if !ok {
			continue // RabbitMQ's, or somebody's own
		}
		text, ok := value.(string)
		if !ok {
			return ev, malformed(fmt.Errorf("header %.64q is %T, not a string", header, value))
		}
		if err := setAttribute(&ev, name, text); err != nil {
			return ev, malformed(err)
		}
	}
	if _, ok := d.Headers[headerPrefix+"specversion"]; !ok {
		return ev, malformed(errors.New("it is no CloudEvent in binary mode: there is no header " + headerPrefix + "specversion"))
	}
	return ev, nil
}

// setAttribute sets an attribute by its name. The event collects what is wrong with most values, for Validate to find.
func setAttribute(ev *event.Event, name, value string) error {
	switch name {
	case "specversion":
		if value != event.CloudEventsVersionV1 {
			return fmt.Errorf("attribute specversion: %.16q is not %s", value, event.CloudEventsVersionV1)
		}
	case "type":
		ev.SetType(value)
	case "id":
		ev.SetID(value)
	case "source":
		ev.SetSource(value)
	case "subject":
		ev.SetSubject(value)
	case "dataschema":
		ev.SetDataSchema(value)
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return errors.New("attribute time: is not an RFC 3339 time")
		}
		ev.SetTime(t)
	case "datacontenttype":
		return errors.New("attribute datacontenttype: is a header; it belongs into the property content-type")
	default:
		ev.SetExtension(name, value)
	}
	return nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", events.ErrMalformed, err) }
