// Command soak loads all of Ebb, as the processes that it consists of, for some minutes while one after another of them is
// killed, and fails when a request is lost or answered wrongly, or when memory, goroutines, open files, connections or queues
// grow.
//
// The load is mixed: who waits and who collects the answer later, several models, one or two in a question, and inputs that
// are no pictures. What happens is random; a seed says what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/functions/local/load"
	"github.com/ebb-inference/ebb/functions/local/stack"
)

const (
	round        = 20 * time.Second // of load; then all is collected and looked at
	rest         = 3 * time.Second  // before a look, for what is idle to be seen as idle
	asyncTimeout = time.Minute
	asyncTTL     = 2 * time.Minute  // after which the last mailbox is gone
	statistics   = 10 * time.Second // after which RabbitMQ certainly has counted what there is
	patience     = 2 * time.Minute  // for what must happen
	later        = 3                // of so many requests one is asked asynchronously
)

type options struct {
	duration time.Duration
	rate     float64
	seed     uint64
}

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 10*time.Minute, "how long new requests are sent")
	flag.Float64Var(&o.rate, "rate", 40, "requests a second")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "what happens is the same for the same seed; when is not")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	fmt.Printf("seed %d; starting ...\n", o.seed)
	s, err := stack.Start(ctx, stack.Config{
		Env:    map[string][]string{"ingress": {"TIMEOUT=15s", "ASYNC_TIMEOUT=" + asyncTimeout.String(), "ASYNC_TTL=" + asyncTTL.String()}},
		Logger: slog.New(slog.DiscardHandler), // what ends was killed
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop(context.WithoutCancel(ctx))) }()

	k := &soak{options: o, stack: s, random: rand.New(rand.NewPCG(o.seed, 0)), looks: newLooks(s)} //nolint:gosec // nothing is secured by it
	start, err := k.begin(ctx)
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < o.duration; {
		name, strike := k.victim()
		if err := k.round(ctx, name, strike); err != nil {
			return err
		}
	}
	return errors.Join(k.looks.judge(), k.atTheEnd(ctx, start))
}

// soak is a run.
type soak struct {
	options
	stack  *stack.Stack
	random *rand.Rand
	looks  *looks
	rounds int
	sent   int // pictures so far, each of which has a number of its own
}

// begin says what there is in RabbitMQ before anything was asked, but with the connections that are opened when something is:
// a round in which nothing is killed has them opened.
func (k *soak) begin(ctx context.Context) (brokerLook, error) {
	start, err := k.looks.broker(ctx)
	if err != nil {
		return start, err
	}
	if err := k.round(ctx, "nothing", func(context.Context) error { return nil }); err != nil {
		return start, err
	}
	if err := pause(ctx, statistics); err != nil {
		return start, err
	}
	now, err := k.looks.broker(ctx)
	start.connections = now.connections
	return start, err
}

// round sends requests for a while, with a victim struck meanwhile, sees that each has become what it should, and looks at
// what everything takes when nothing is under way.
func (k *soak) round(ctx context.Context, victim string, strike func(context.Context) error) error {
	k.rounds++
	requests := int(k.rate * round.Seconds())
	at := requests/4 + k.random.IntN(requests/2)
	struck := make(chan error, 1)
	l := load.New(load.Plan{
		URL: k.stack.URL(), Requests: requests, Rate: k.rate, Question: load.Mirror, First: k.sent, Later: later,
		Before: func(sent int) {
			if sent == at {
				go func() { struck <- strike(ctx) }()
			}
		},
	})
	k.sent += requests
	strangers := newStrangers(k.stack.URL(), k.sent)
	ended := make(chan struct{})
	going, end := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		strangers.ask(going)
	}()
	l.Send(ctx)
	end()
	<-ended
	k.sent += strangers.asked
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := <-struck; err != nil {
		return fmt.Errorf("ending %s: %w", victim, err)
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	account := l.Collect(waiting)
	fmt.Printf("round %d: ended: %s\n  %s\n  %s\n", k.rounds, victim, &account, strangers)
	if err := errors.Join(settled(&account, requests), strangers.err()); err != nil {
		return err
	}
	if err := k.stack.WaitReady(waiting); err != nil {
		return err
	}
	if err := pause(ctx, rest); err != nil {
		return err
	}
	said, err := k.looks.look(ctx)
	fmt.Printf("  %s\n", said)
	return err
}

// settled says which requests of an account were lost or answered wrongly.
func settled(a *load.Account, requests int) error {
	var errs []error
	for _, what := range a.Lost {
		errs = append(errs, fmt.Errorf("lost: %s", what))
	}
	for _, what := range a.Wrong {
		errs = append(errs, fmt.Errorf("wrong: %s", what))
	}
	if len(errs) == 0 && (a.Sent != requests || a.Answered+a.Accepted+a.Failed() != requests || a.Collected+a.Told != a.Accepted) {
		errs = append(errs, errors.New("some requests are not accounted for"))
	}
	return errors.Join(errs...)
}

// rabbitMQ is what RabbitMQ is called among the victims.
const rabbitMQ = "RabbitMQ"

// victim chooses who ends next.
func (k *soak) victim() (name string, strike func(context.Context) error) {
	names := append(processes(k.stack), rabbitMQ)
	name = names[k.random.IntN(len(names))]
	if name == rabbitMQ {
		return "RabbitMQ (restarted)", k.stack.RestartRabbitMQ
	}
	return name, func(context.Context) error { return k.stack.Kill(name) }
}

// atTheEnd sees RabbitMQ become what it was at the start, once the last mailbox has expired.
func (k *soak) atTheEnd(ctx context.Context, start brokerLook) error {
	fmt.Printf("waiting until the mailboxes have expired; at the start: %s\n", start)
	ctx, cancel := context.WithTimeout(ctx, asyncTTL+patience)
	defer cancel()
	for {
		now, err := k.looks.broker(ctx)
		if err == nil && now.within(start) {
			fmt.Printf("at the end: %s\n", now)
			return nil
		}
		if pause(ctx, rest) != nil {
			return errors.Join(fmt.Errorf("RabbitMQ has more than at the start: %s, and not %s", now, start), err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
