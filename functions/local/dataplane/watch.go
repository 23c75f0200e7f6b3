package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

const (
	lookInterval = 500 * time.Millisecond
	lookTimeout  = time.Second
)

var errNotYet = errors.New("the data plane is starting")

// watch looks at RabbitMQ, the broker ingress and the consumers of queues all the time, so that who asks hears at once.
type watch struct {
	server  string // RabbitMQ
	ingress string
	client  *http.Client
	end     context.CancelFunc
	done    chan struct{}

	mu    sync.Mutex
	names []string // of queues that should have a consumer
	err   error
}

func newWatch(server, ingress string) *watch {
	ctx, end := context.WithCancel(context.Background()) // it lives until stop
	w := &watch{
		server: server, ingress: ingress, client: &http.Client{Transport: &http.Transport{}, Timeout: lookTimeout},
		end: end, done: make(chan struct{}), err: errNotYet,
	}
	go func() {
		defer close(w.done)
		w.run(ctx)
	}()
	return w
}

// queues adds queues that should have a consumer. They are taken to have none.
func (w *watch) queues(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names, w.err = append(w.names, names...), errNotYet
}

func (w *watch) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *watch) stop() {
	w.end()
	<-w.done
	w.client.CloseIdleConnections()
}

// run keeps one connection to RabbitMQ for as long as it lasts, and another then.
func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.found(-1, fmt.Errorf("RabbitMQ: %w", w.session(ctx)))
		again := time.NewTimer(lookInterval)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

// session looks again and again over one connection, and returns what ended it.
func (w *watch) session(ctx context.Context) error {
	conn, err := amqp091.DialConfig(w.server, amqp091.Config{
		Heartbeat: lookTimeout, Dial: amqp091.DefaultDial(lookTimeout), Properties: amqp091.Table{"connection_name": "data plane's watch"},
	})
	if err != nil {
		return err
	}
	lost := conn.NotifyClose(make(chan *amqp091.Error, 1))
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now().Add(lookTimeout)) })
	defer func() {
		if stop() {
			_ = conn.CloseDeadline(time.Now().Add(lookTimeout)) // nothing was meant to arrive after what was asked
		}
	}()
	for {
		count, err := w.look(ctx, conn)
		if conn.IsClosed() {
			return errors.Join(err, amqp091.ErrClosed)
		}
		w.found(count, err)
		again := time.NewTimer(lookInterval)
		select {
		case <-again.C:
		case told := <-lost:
			again.Stop()
			if told == nil {
				return amqp091.ErrClosed
			}
			return told
		}
	}
}

// found keeps what a look at the first count queues found. Queues that came since then are not ready.
func (w *watch) found(count int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && count != len(w.names) {
		err = errNotYet
	}
	w.err = err
}

// look says what of the first count queues, or else, does not work.
func (w *watch) look(ctx context.Context, conn *amqp091.Connection) (count int, err error) {
	w.mu.Lock()
	names := w.names
	w.mu.Unlock()
	if err := w.askIngress(ctx); err != nil {
		return len(names), fmt.Errorf("broker ingress: %w", err)
	}
	ch, err := conn.Channel()
	if err != nil {
		return len(names), fmt.Errorf("RabbitMQ: %w", err)
	}
	defer func() { _ = ch.Close() }() // everything on it was answered
	for _, name := range names {
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return len(names), fmt.Errorf("queue %s: %w", name, err)
		}
		if q.Consumers == 0 {
			return len(names), fmt.Errorf("queue %s: its dispatcher is not there", name)
		}
	}
	return len(names), nil
}

// askIngress wants any answer: the program knows no health check, and listens only when it is connected to RabbitMQ.
func (w *watch) askIngress(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.ingress, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		var withURL *url.Error
		var dial *net.OpError
		if errors.As(err, &withURL) && errors.As(err, &dial) {
			return dial
		}
		return err
	}
	return resp.Body.Close()
}
