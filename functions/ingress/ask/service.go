package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

// The defaults of Config.
const (
	DefaultTimeout        = 30 * time.Second
	DefaultPublishTimeout = 5 * time.Second
	DefaultRetryPause     = 200 * time.Millisecond
	DefaultPendingLimit   = 1024
	DefaultMaxModels      = 16
	DefaultAsyncTimeout   = 15 * time.Minute
	DefaultAsyncTTL       = time.Hour
)

// Config is what a Service is made of. Models, Replies, BrokerURL and Source are required; the rest has defaults.
type Config struct {
	Models    []*models.Model // in the order in which people shall see them; names are unique
	Replies   reply.Requester
	BrokerURL string // where events are POSTed, http or https
	Source    string // "/ebb/ingress/<replica>", the source of the events

	// Mailboxes keep what is asked asynchronously; nil: nothing can be. A Responder of dispatch and deadletter must put
	// results into the same ones.
	Mailboxes    reply.Mailboxes
	AsyncTimeout time.Duration // the longest that such a question waits for an answer, default DefaultAsyncTimeout
	AsyncTTL     time.Duration // for how long it can be collected, longer than AsyncTimeout, default DefaultAsyncTTL
	Caller       Caller        // calls callbacks; nil: there are none

	// Blocked says why the broker takes no events at the moment, if that is known, and nil otherwise; it takes a second at
	// most. A broker that is short of memory does not say so: it answers nothing until it has memory. Default: it is never known.
	Blocked func(context.Context) error

	// Wake is told of each model that is about to be asked, before anything is sent, so that it can get up meanwhile. It must
	// return at once, and may be called at any time. Default: nobody is told.
	Wake func(model string)

	// HTTPClient talks to the broker. The default follows no redirect, uses no proxy and keeps connections.
	HTTPClient     *http.Client
	PendingLimit   int            // most events that wait for their answer, default DefaultPendingLimit
	MaxModels      int            // most models that one question may name, default DefaultMaxModels
	Timeout        time.Duration  // the longest that a question waits, default DefaultTimeout; a caller's earlier deadline wins
	PublishTimeout time.Duration  // of one attempt to hand an event to the broker, default DefaultPublishTimeout
	RetryPause     time.Duration  // before the second attempt, default DefaultRetryPause
	Limits         picture.Limits // default picture.DefaultLimits
	NewID          func() string  // default UUIDv7
	Logger         *slog.Logger   // default slog.Default()
}

// withDefaults says what is missing and fills in what may be.
func (c Config) withDefaults() (Config, error) {
	switch {
	case len(c.Models) == 0:
		return c, errors.New("no models")
	case c.Replies == nil:
		return c, errors.New("no reply queue")
	case c.Source == "":
		return c, errors.New("no source")
	}
	if err := CheckBrokerURL(c.BrokerURL); err != nil {
		return c, fmt.Errorf("broker URL: %w", err)
	}
	c.PendingLimit = cmp.Or(c.PendingLimit, DefaultPendingLimit)
	c.MaxModels = cmp.Or(c.MaxModels, DefaultMaxModels)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.AsyncTimeout = cmp.Or(c.AsyncTimeout, DefaultAsyncTimeout)
	c.AsyncTTL = cmp.Or(c.AsyncTTL, DefaultAsyncTTL)
	if c.AsyncTimeout < 0 || c.AsyncTimeout >= c.AsyncTTL {
		return c, fmt.Errorf("asynchronous requests wait %v and expire after %v: what comes late could not be collected", c.AsyncTimeout, c.AsyncTTL)
	}
	c.PublishTimeout = cmp.Or(c.PublishTimeout, DefaultPublishTimeout)
	c.RetryPause = cmp.Or(c.RetryPause, DefaultRetryPause)
	c.Limits = cmp.Or(c.Limits, picture.DefaultLimits)
	if c.HTTPClient == nil {
		c.HTTPClient = newClient()
	}
	if c.Blocked == nil {
		c.Blocked = func(context.Context) error { return nil }
	}
	if c.Wake == nil {
		c.Wake = func(string) {}
	}
	if c.NewID == nil {
		c.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c, nil
}

// CheckBrokerURL says what is wrong with the address of a broker.
func CheckBrokerURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("it cannot be parsed") // the error repeats it, and there may be a password in it
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return fmt.Errorf("%q: want http://host or https://host", u.Redacted())
	}
	return nil
}

// newClient makes a client for one host that many requests talk to at once.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 256,
			IdleConnTimeout:     60 * time.Second,
			TLSHandshakeTimeout: 2 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Service asks. It owns one reply queue and the table of the events that wait for an answer.
type Service struct {
	cfg     Config
	byName  map[string]*models.Model
	publish publisher
	pending *reply.Pending
	inbox   reply.Inbox
	meter   *instruments
	flights flights
	opening locks // by request id: who opens a mailbox
	calling locks // and who calls a callback

	stopping context.Context    //nolint:containedctx // the service's life, not a call's: ends when Stop has no more patience
	hurry    context.CancelFunc // ends stopping

	mu      sync.Mutex
	stopped bool
	asking  sync.WaitGroup // questions under way; added to under mu while not stopped
}

// New opens the reply queue, and returns when it is being consumed or when that took longer than Config.Timeout. Who
// has a Service must Stop it.
func New(config Config) (*Service, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	s := &Service{
		cfg:     cfg,
		byName:  make(map[string]*models.Model, len(cfg.Models)),
		publish: publisher{url: cfg.BrokerURL, client: cfg.HTTPClient, timeout: cfg.PublishTimeout, pause: cfg.RetryPause, blocked: cfg.Blocked},
		pending: reply.NewPending(cfg.PendingLimit),
		flights: flights{underWay: make(map[string]*flight)},
		opening: newLocks(), calling: newLocks(),
	}
	for _, m := range cfg.Models {
		if s.byName[m.Name] != nil {
			return nil, fmt.Errorf("ask: two models are named %q", m.Name)
		}
		s.byName[m.Name] = m
	}
	s.stopping, s.hurry = context.WithCancel(context.Background())
	if s.meter, err = newInstruments(s.pending); err != nil {
		return nil, fmt.Errorf("ask: instruments: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.stopping, cfg.Timeout)
	defer cancel()
	s.inbox, err = cfg.Replies.Listen(ctx, reply.Listener{Reply: s.deliver, Lost: s.lost})
	if err != nil {
		s.hurry()
		return nil, errors.Join(fmt.Errorf("ask: open the reply queue: %w", err), s.meter.close())
	}
	return s, nil
}

func (s *Service) deliver(r *events.Result) {
	if !s.pending.Deliver(r) {
		s.meter.unclaimed(s.countable([]string{r.Model}))
	}
}

func (s *Service) lost(address string) {
	s.cfg.Logger.Warn("reply queue lost; requests that waited on it fail", "address", address)
	s.pending.Lose(address)
}

// Models lists the models that can be asked, in the order in which people shall see them.
func (s *Service) Models() []*models.Model { return append([]*models.Model(nil), s.cfg.Models...) }

// Ready says why a question could not be asked now, or nil.
func (s *Service) Ready() error {
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if stopped {
		return errStopping
	}
	_, err := s.inbox.Address()
	return err
}

// Stop takes no more questions, waits for those under way, and then closes the reply queue. When ctx ends first, what
// is under way is answered with a problem at once, and Stop returns ctx's error. Stop may be called twice.
func (s *Service) Stop(ctx context.Context) error {
	s.mu.Lock()
	first := !s.stopped
	s.stopped = true
	s.mu.Unlock()

	drained := make(chan struct{})
	go func() {
		s.asking.Wait()
		close(drained)
	}()
	var late error
	select {
	case <-drained:
	case <-ctx.Done():
		late = fmt.Errorf("ask: questions were still under way: %w", ctx.Err())
	}
	s.hurry() // every wait ends with it, so the next line does not wait long
	<-drained
	if !first {
		return late
	}
	s.cfg.HTTPClient.CloseIdleConnections()
	return errors.Join(late, s.inbox.Close(), s.meter.close())
}

// enter counts a question in, unless the service is stopping. Who has entered must call s.asking.Done.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.asking.Add(1)
	return true
}
