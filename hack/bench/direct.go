package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/gateway"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// prefetch is the data plane's: how many deliveries a queue's consumer holds at once.
const prefetch = 100

// direct is Ebb over RabbitMQ with nothing between: ingress publishes to the Broker's exchange itself, and dispatch consumes
// its Trigger's queue. No Knative broker can be quicker; it is only a yardstick, since it has neither retries nor dead
// letters.
type direct struct {
	server   topology.Server
	broker   topology.Broker
	models   []*models.Model
	triggers []trigger.Trigger
	serving  string // address of the model server
	log      *slog.Logger

	stops
	publishing *amqp091.Channel
}

// startDirect starts it and says at which URL it is asked.
func startDirect(ctx context.Context, d *direct) (url string, stop func() error, err error) {
	if url, err = d.start(ctx); err != nil {
		return "", nil, errors.Join(err, d.stop())
	}
	return url, d.stop, nil
}

func (d *direct) start(ctx context.Context) (string, error) {
	if err := topology.Declare(ctx, d.server, d.broker, d.triggers, topology.Limits{}); err != nil {
		return "", err
	}
	responder, err := amqp.NewResponder(ctx, amqp.Config{URL: d.server.URL, Name: "bench/dispatch", Logger: d.log})
	if err != nil {
		return "", err
	}
	d.add(func() error { return responder.Close(context.WithoutCancel(ctx)) })
	client, err := tfserving.Dial(d.serving)
	if err != nil {
		return "", err
	}
	d.add(client.Close)
	for i, m := range d.models {
		w, err := worker.New(worker.Config{Model: m, Predictor: client, Responder: responder, Replica: "bench", Logger: d.log})
		if err != nil {
			return "", err
		}
		d.add(func() error { return w.Stop(context.WithoutCancel(ctx)) })
		if err := d.consume(ctx, d.broker.Trigger(d.triggers[i]).Queue, w); err != nil {
			return "", err
		}
	}
	if d.publishing, err = d.channel(); err != nil {
		return "", err
	}
	if err := d.publishing.Confirm(false); err != nil {
		return "", err
	}
	requester, err := amqp.NewRequester(amqp.Config{URL: d.server.URL, Name: "bench/ingress", Logger: d.log})
	if err != nil {
		return "", err
	}
	// The URL is where events would be posted; the transport sends them elsewhere.
	service, err := ask.New(ask.Config{
		Models: d.models, Replies: requester, BrokerURL: "http://broker", Source: "/ebb/ingress/bench",
		HTTPClient: &http.Client{Transport: d}, Logger: d.log,
	})
	if err != nil {
		return "", err
	}
	d.add(func() error { return service.Stop(context.WithoutCancel(ctx)) })
	url, stop, err := serve(ctx, gateway.New(gateway.Config{Service: service, Logger: d.log}))
	if err != nil {
		return "", err
	}
	d.add(stop)
	return url, nil
}

// channel opens one on a connection of its own.
func (d *direct) channel() (*amqp091.Channel, error) {
	conn, err := amqp091.Dial(d.server.URL)
	if err != nil {
		return nil, err
	}
	d.add(func() error { return conn.CloseDeadline(time.Now().Add(stopTimeout)) })
	return conn.Channel()
}

// RoundTrip publishes an event and answers as a broker would, when it is stored.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	body := make([]byte, req.ContentLength)
	_, err := io.ReadFull(req.Body, body)
	if err := errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	headers := amqp091.Table{}
	for name, values := range req.Header {
		if attribute, ok := strings.CutPrefix(name, attributePrefix); ok {
			headers[strings.ToLower(attribute)] = values[0]
		}
	}
	const key, mandatory, immediate = "", false, false
	confirm, err := d.publishing.PublishWithDeferredConfirm(d.broker.Exchange(), key, mandatory, immediate, amqp091.Publishing{
		Headers: headers, ContentType: req.Header.Get("Content-Type"), DeliveryMode: amqp091.Persistent, Body: body,
	})
	if err != nil {
		return nil, err
	}
	stored, err := confirm.WaitContext(req.Context())
	if err != nil {
		return nil, err
	}
	status := http.StatusAccepted
	if !stored {
		status = http.StatusServiceUnavailable
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// attributePrefix starts the headers of an event's attributes.
const attributePrefix = "Ce-"

// consume hands a queue's messages to a function and acknowledges what it took. One that it does not take is a fault.
func (d *direct) consume(ctx context.Context, queue string, function http.Handler) error {
	ch, err := d.channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	const consumer = "bench"
	messages, err := ch.Consume(queue, consumer, false, false, false, false, nil)
	if err != nil {
		return err
	}
	var consuming sync.WaitGroup
	consuming.Go(func() {
		for m := range messages {
			consuming.Go(func() {
				if err := deliver(ctx, m, function); err != nil {
					d.log.Error("a delivery failed", "queue", queue, "error", err) // and whoever asked gets no answer
				}
			})
		}
	})
	d.add(func() error {
		err := ch.Cancel(consumer, false)
		consuming.Wait()
		return err
	})
	return nil
}

func deliver(ctx context.Context, m amqp091.Delivery, function http.Handler) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(m.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", m.ContentType)
	for name, value := range m.Headers {
		req.Header.Set(attributePrefix+name, fmt.Sprint(value))
	}
	status := statusOnly{header: http.Header{}}
	function.ServeHTTP(&status, req)
	if status.code/100 != 2 {
		return errors.Join(fmt.Errorf("status %d", status.code), m.Nack(false, false))
	}
	return m.Ack(false)
}

// statusOnly is an answer of which nothing but the status counts.
type statusOnly struct {
	header http.Header
	code   int
}

func (s *statusOnly) Header() http.Header { return s.header }

func (s *statusOnly) WriteHeader(code int) { s.code = code }

func (s *statusOnly) Write(b []byte) (int, error) {
	if s.code == 0 {
		s.code = http.StatusOK
	}
	return len(b), nil
}
