package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/reply"
)

// channels are channels for questions to RabbitMQ, one a question, all over one connection. The connection is made when
// somebody asks, and again when it was lost.
type channels struct {
	cfg Config

	mu     sync.Mutex
	over   *session // nil: not connected
	closed bool
}

// use calls f with a channel of its own. The library's calls know no context, and one that is given up must not take down
// what others ask over the same connection; so they end with Config.Timeout, and with it the connection, which has shown
// then to be worth nothing. The error is RabbitMQ's, f's, or wraps reply.ErrDown.
func (c *channels) use(ctx context.Context, f func(*amqp091.Channel) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
	defer cancel()
	s, err := c.connected(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.close)() //nolint:contextcheck // closing has a deadline of its own
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		_ = ch.Close() // most errors have closed it
		return err
	}
	return ch.Close()
}

func (c *channels) connected(ctx context.Context) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, reply.ErrDown
	case c.over != nil && !c.over.conn.IsClosed():
		return c.over, nil
	}
	s, err := c.cfg.dial(ctx, func(*session) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", reply.ErrDown, err)
	}
	c.over = s
	return s, nil
}

// close ends the connection, with what is being asked, for good.
func (c *channels) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.over != nil {
		c.over.close()
	}
}

// isCode says whether RabbitMQ refused with this code.
func isCode(err error, code int) bool {
	var said *amqp091.Error
	return errors.As(err, &said) && said.Code == code
}
