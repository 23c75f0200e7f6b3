// Deadletters is for operators: it lists the events that Triggers gave up on and that wait in the parking place, has them
// asked again, and throws them away.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply/amqp"
)

const usage = `Usage: deadletters list   [flags]
       deadletters replay [flags] -all | -model m | id ...
       deadletters drop   [flags] -all | -model m | id ...

Events that a Trigger gave up on wait in RabbitMQ (queue ebb.deadletters, at most 7 days)
until an operator has them asked again or throws them away. One at a time.

  list    what waits: what it is, and why it was given up
  replay  asks again, and removes what was answered; what fails stays. The answers are
          printed; who asked asynchronously finds theirs where they look for it
  drop    removes without asking

RABBITMQ_URL says where they wait, BROKER_URL where replay sends them (by HTTP). Both come
from the environment or, what is not set there, from the file of -env.

Exit status: 0 when all was done, 1 when something failed or stays that should not, 2 when
the command line is wrong. Flags come before ids:
`

// The exit statuses.
const (
	exitDone = iota
	exitFailed
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are what the command line says.
type options struct {
	command string
	env     string
	envSet  bool // by who calls, so it has to be there
	json    bool
	dryRun  bool
	timeout time.Duration
	choice  choice
}

// run is the program, with its exit status.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "deadletters: %v\nSee deadletters -help.\n", err)
		return exitUsage
	}
	if err := do(ctx, o, lookup, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "deadletters:", err)
		return exitFailed
	}
	return exitDone
}

// maxTimeout keeps the longest run within what RabbitMQ lets anybody have letters in hand.
const maxTimeout = 5 * time.Minute

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{timeout: 2 * time.Minute}
	flags := flag.NewFlagSet("deadletters", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are said once, by run
	flags.StringVar(&o.env, "env", defaultEnvFile, "a `file` of lines KEY=VALUE; real environment variables win")
	flags.BoolVar(&o.choice.all, "all", false, "all letters")
	flags.StringVar(&o.choice.model, "model", "", "the letters of one `model`")
	flags.BoolVar(&o.dryRun, "dry-run", false, "replay, drop: say what would be done, and do nothing")
	flags.BoolVar(&o.json, "json", false, "list: as JSON, for programs")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "replay: how long to wait for an answer, at most 5m")
	if len(args) > 0 {
		o.command = args[0]
		args = args[1:]
	}
	var err error
	switch o.command {
	case "list", "replay", "drop":
		err = flags.Parse(args)
	case "-h", "-help", "--help", "help":
		err = flag.ErrHelp
	case "":
		err = errors.New("say list, replay or drop")
	default:
		err = fmt.Errorf("there is no %q; there are list, replay and drop", o.command)
	}
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
	}
	if err != nil {
		return o, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.envSet, o.choice.ids = given["env"], flags.Args()
	switch {
	case o.json && o.command != "list":
		return o, errors.New("-json is for list")
	case o.dryRun && o.command == "list":
		return o, errors.New("-dry-run is for replay and drop; list changes nothing")
	case given["timeout"] && o.command != "replay":
		return o, errors.New("-timeout is for replay")
	case o.timeout < time.Second || o.timeout > maxTimeout:
		return o, fmt.Errorf("-timeout %v is not within 1s and %v", o.timeout, maxTimeout)
	}
	return o, o.choice.check(o.command == "list")
}

// do does what was asked for.
func do(ctx context.Context, o options, lookup func(string) (string, bool), stdout, stderr io.Writer) (err error) {
	s, err := readSettings(o.env, o.envSet, lookup)
	if err != nil {
		return err
	}
	if s.rabbitMQ == "" {
		return fmt.Errorf("RABBITMQ_URL is not set, and not in %s: say where RabbitMQ is, as amqp://user:password@host:5672/", o.env)
	}
	replays := o.command == "replay" && !o.dryRun
	if replays {
		if err := s.checkBroker(o.env); err != nil {
			return err
		}
	}
	c := amqp.Config{
		URL: s.rabbitMQ, Name: "deadletters", Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	hold, err := amqp.HoldParking(ctx, c)
	if err != nil {
		return explain(err)
	}
	defer func() { err = errors.Join(err, hold.Close()) }()
	p := begin(o.command, stderr)
	defer p.end()
	switch {
	case o.command == "list":
		return list(ctx, hold, o.choice, o.json, time.Now(), stdout, p)
	case o.dryRun:
		return rehearse(ctx, hold, o.choice, o.command, stdout, p)
	case o.command == "drop":
		return drop(ctx, hold, o.choice, stdout, p)
	}
	a, err := newAsker(ctx, c, s.broker, o.timeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return replay(ctx, hold, o.choice, a, stdout, p)
}

// explain says what to do about an error.
func explain(err error) error {
	switch {
	case errors.Is(err, parking.ErrInUse):
		return fmt.Errorf("%w: another deadletters is running; wait for it, or end it", err)
	case errors.Is(err, parking.ErrNoPlace):
		return fmt.Errorf("%w: no functions/deadletter with a parking place ever ran with this RabbitMQ; is RABBITMQ_URL right?", err)
	}
	return err
}
