// Package amqp is reply queues over RabbitMQ (AMQP 0-9-1): a requester's queue is exclusive, deleted with its connection
// and named by the server, and a responder publishes to it by name through the default exchange. Queues that outlive their
// makers are built of the same connections and messages: mailboxes (Mailboxes) and the parking place of dead letters (Parking).
//
// # Connections
//
// Each Inbox and each Responder has a connection of its own, so that RabbitMQ, which holds up connections that publish
// while its memory is short, never holds up one that consumes.
//
// A connection that is lost is made again, at once and then with a growing pause, for as long as the Inbox or Responder is
// open. The client library can recover connections itself, and that is not used, for these reasons. What it would bring
// back is exactly what is no use: a reply queue has another name after it, whoever waited on the old one must be told
// first, and what was published but not confirmed must fail. It leaves out what is needed: a first connection while
// RabbitMQ is still starting, and a consumer that the server cancelled because its queue was deleted. And publishing must be
// held back while it works, since a publication that slips in before the channel confirms again shifts every later
// confirmation by one. So a session here is all that a connection carries; it is never mended, and always replaced.
//
// # Messages
//
// A result travels as a CloudEvent in the binary mode of the CloudEvents AMQP binding: attributes are headers named
// "cloudEvents:" and the attribute, all of them strings, datacontenttype is the property content-type, and the body is the
// data. The property correlation-id repeats the attribute correlationid, as is usual in RPC over AMQP. The property
// message-id numbers the messages of one channel and means nothing to the receiver. Messages are transient: a reply queue
// does not outlive its connection, so a stored reply would have no reader. Those to a mailbox (Mailboxes) are persistent.
//
// A reply queue is consumed without acknowledgements, since what a requester did not handle dies with its queue anyway.
// What piles up while a requester is stuck is bounded by the queue (Config.QueueBytes), and a reply beyond that is refused.
package amqp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// The defaults of Config.
const (
	DefaultQueueBytes = 64 << 20
	DefaultHeartbeat  = 5 * time.Second
	DefaultTimeout    = 10 * time.Second
)

// Config says how RabbitMQ is reached. URL is required.
type Config struct {
	// URL is amqp://user:password@host:port/vhost, or amqps:// for TLS. Its query may name files for TLS (cacertfile,
	// certfile, keyfile, server_name_indication) and a heartbeat in seconds. The password is never logged.
	URL string
	// Name is how RabbitMQ's operators see the connection, as "ingress/<replica>".
	Name string
	// TLS is for amqps; nil: what the URL says, and otherwise the system's authorities.
	TLS *tls.Config
	// Heartbeat is how often each side shows that it is alive, default DefaultHeartbeat, unless the URL says otherwise. A peer
	// that is silent for three of them is taken for dead.
	Heartbeat time.Duration
	// Timeout bounds making a connection, and Respond when its context has no earlier deadline; default DefaultTimeout.
	Timeout time.Duration
	// QueueBytes is how much may wait in a reply queue in RabbitMQ, default DefaultQueueBytes. A reply to a queue that is
	// full is refused.
	QueueBytes int64
	Logger     *slog.Logger // default slog.Default()
}

// withDefaults says what is wrong with c and fills in what may be missing.
func (c Config) withDefaults() (Config, error) {
	if err := checkURL(c.URL); err != nil {
		return c, err
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.QueueBytes <= 0 {
		c.QueueBytes = DefaultQueueBytes
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("rabbitmq", host(c.URL))
	return c, nil
}

// checkURL says what is wrong with a URL without repeating it: there may be a password in it.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = errors.New("it cannot be parsed; what is in the user, the password or the vhost may need percent-encoding")
		}
		return fmt.Errorf("RabbitMQ's URL: %w", err)
	}
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return errors.New("RabbitMQ's URL: want amqp://user:password@host:port/vhost, or amqps:// for TLS")
	case u.Hostname() == "":
		return errors.New("RabbitMQ's URL: there is no host in it")
	}
	if _, err := amqp091.ParseURI(text); err != nil {
		return fmt.Errorf("RabbitMQ's URL: %w", err)
	}
	return nil
}

// host is the part of a valid URL that may be shown to anybody.
func host(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}
