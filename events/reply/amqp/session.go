package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// The pauses between two attempts to connect: the first one is short, since a connection that was cut can often be made
// again at once, and the last is what RabbitMQ waits for at most once it is back.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

// closeWithin bounds saying goodbye; the connection is closed after it in any case.
const closeWithin = 2 * time.Second

// session is one connection and its one channel, from the handshake until either of them ends.
type session struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
	ended   chan *amqp091.Error // receives why the channel ended, with the connection or alone, and is closed then
}

// dial makes a session that set makes useful, within c.Timeout. set is called before anything else can use the channel.
func (c Config) dial(ctx context.Context, set func(*session) error) (_ *session, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	properties := amqp091.NewConnectionProperties()
	properties["product"] = "Ebb"
	if c.Name != "" {
		properties.SetClientConnectionName(c.Name)
	}
	var release func() bool // of the socket from ctx
	conn, err := amqp091.DialConfig(c.URL, amqp091.Config{
		Heartbeat: c.Heartbeat, TLSClientConfig: c.TLS.Clone(), Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			socket, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			// The library's calls know no context; a closed socket ends each of them.
			release = context.AfterFunc(ctx, func() { _ = socket.Close() })
			return socket, nil
		},
	})
	if release != nil {
		defer release()
	}
	if err != nil {
		return nil, inTime(ctx, err)
	}
	s := &session{conn: conn, ended: make(chan *amqp091.Error, 1)}
	if s.channel, err = conn.Channel(); err == nil {
		s.channel.NotifyClose(s.ended)
		err = set(s)
	}
	if err != nil {
		s.close()
		return nil, inTime(ctx, err)
	}
	return s, nil
}

// inTime adds to an error that it came of ctx's end, which the socket's own words do not say.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// connect dials until it succeeds or ctx ends. What cannot get better by trying ends it, too, when permanent says so.
func (c Config) connect(ctx context.Context, set func(*session) error, permanent func(error) bool) (*session, error) {
	var reason error // of the latest attempt that ctx did not end
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		s, err := c.dial(ctx, set)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connecting to RabbitMQ at %s: %w", host(c.URL), inTime(ctx, cmp.Or(reason, err)))
		}
		if permanent(err) {
			return nil, fmt.Errorf("connecting to RabbitMQ at %s: %w", host(c.URL), err)
		}
		reason = err
		c.Logger.WarnContext(ctx, "no connection to RabbitMQ; it is tried again", "pause", pause, "error", err)
		wait := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // keeps replicas from coming all at once
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// refused says whether RabbitMQ is there and does not want us: the user, the password or the vhost is wrong. When a program
// starts that is a mistake in its configuration; later, somebody is exchanging passwords or restoring a vhost, and it passes.
//
// RabbitMQ answers a wrong password by hanging up without a word, unless a client asks it not to, which the library does
// not: it is the library that says ErrCredentials then.
func refused(err error) bool {
	if errors.Is(err, amqp091.ErrCredentials) {
		return true
	}
	var said *amqp091.Error
	return errors.As(err, &said) && said.Server && (said.Code == amqp091.AccessRefused || said.Code == amqp091.NotAllowed)
}

func never(error) bool { return false }

// close ends the session, whatever state it is in.
func (s *session) close() {
	_ = s.conn.CloseDeadline(time.Now().Add(closeWithin)) // it may be gone already, which is what is wanted
}

// why says what ended a session whose channel has told, for the log.
func why(told *amqp091.Error) error {
	if told == nil { // a nil *Error would be an error that is not nil
		return errors.New("it was closed")
	}
	return told
}
