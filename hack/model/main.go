// Model is for operators: it says which versions of networks serve and why others do not, has a look made for newer ones, takes
// a version back, and allows one that was refused.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

const usage = `Usage: model status   [flags] [name]
       model look     [flags] name
       model rollback [flags] name [version]
       model allow    [flags] name version

A network whose versions come from a source (serving.source in a model's definition) is called
by its own name, or that of one of its models.

  status    which version serves, what is being rolled out, what was refused and why
  look      looks for a newer version now, and waits for what comes of it
  rollback  makes the version before serve again, or the one that is named, at once; newer
            ones are not rolled out again before they are allowed
  allow     lets a version be rolled out that was refused or taken back

Exit status: 0 when it was done, 1 when something failed, 2 when the command line is wrong.
`

// The exit statuses.
const (
	exitDone = iota
	exitFailed
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// modelsync is what carries out the commands.
type modelsync interface {
	States(ctx context.Context) ([]rollout.State, error)
	State(ctx context.Context, name string) (rollout.State, error)
	Look(ctx context.Context, name string) (rollout.Outcome, rollout.State, error)
	Rollback(ctx context.Context, name string, to int64) (rollout.State, error)
	Allow(ctx context.Context, name string, version int64) (rollout.State, error)
}

// options are what the command line says.
type options struct {
	command   string
	name      string
	version   int64
	url       string
	namespace string
	json      bool
	timeout   time.Duration
}

// run is the program, with its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "model: %v\nSee model -help.\n", err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	m, done, err := choose(o.url, o.namespace)
	if err == nil {
		defer done()
		err = do(ctx, o, m, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "model: %v\n", err)
		return exitFailed
	}
	return exitDone
}

// parse takes flags before and after names.
func parse(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("model", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage+"\nFlags:\n")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.url, "url", "", "`where` modelsync is; default: the cluster of KUBECONFIG itself or, if that is not set, "+local+", where make run has it")
	flags.StringVar(&o.namespace, "namespace", "ebb", "Ebb's `namespace` in the cluster")
	flags.BoolVar(&o.json, "json", false, "print states as JSON, for programs")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after `so long`")
	var words []string
	for {
		if err := flags.Parse(args); err != nil {
			return o, err //nolint:wrapcheck // it names the flag
		}
		if flags.NArg() == 0 {
			break
		}
		words, args = append(words, flags.Arg(0)), flags.Args()[1:]
	}
	if len(words) == 0 {
		return o, errors.New("name a command: status, look, rollback or allow")
	}
	o.command = words[0]
	return o, o.take(words[1:])
}

// take reads what comes after the command.
func (o *options) take(words []string) error {
	least, most := 1, 1
	switch o.command {
	case "status":
		least = 0
	case "look":
	case "rollback":
		most = 2
	case "allow":
		least, most = 2, 2
	default:
		return fmt.Errorf("%q is no command; there are status, look, rollback and allow", o.command)
	}
	if len(words) < least || len(words) > most {
		return fmt.Errorf("%s takes %s", o.command, map[string]string{
			"status": "at most a name", "look": "one name", "rollback": "a name, and a version if it is not the one before",
			"allow": "a name and a version",
		}[o.command])
	}
	if len(words) > 0 {
		o.name = words[0]
	}
	if len(words) > 1 {
		version, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || version < 1 {
			return fmt.Errorf("%q is no version, which is a positive number", words[1])
		}
		o.version = version
	}
	return nil
}

func do(ctx context.Context, o options, m modelsync, stdout io.Writer) error {
	var states []rollout.State
	switch o.command {
	case "status":
		if o.name == "" {
			var err error
			if states, err = m.States(ctx); err != nil {
				return err
			}
			break
		}
		s, err := m.State(ctx, o.name)
		if err != nil {
			return err
		}
		states = append(states, s)
	case "look":
		outcome, s, err := m.Look(ctx, o.name)
		if err != nil {
			return err
		}
		if !o.json {
			fmt.Fprintf(stdout, "%s\n\n", said[outcome])
		}
		states = append(states, s)
	case "rollback":
		s, err := m.Rollback(ctx, o.name, o.version)
		if err != nil {
			return err
		}
		states = append(states, s)
	case "allow":
		s, err := m.Allow(ctx, o.name, o.version)
		if err != nil {
			return err
		}
		states = append(states, s)
	}
	if o.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(states)
	}
	return show(stdout, states)
}

// said is what came of a look, in words.
var said = map[rollout.Outcome]string{
	rollout.Current:   "There is no newer version that may serve.",
	rollout.RolledOut: "A newer version serves.",
	rollout.NotTaken:  "A newer version was refused.",
	rollout.UnderWay:  "A roll-out is under way; the next look goes on with it.",
	rollout.TakenBack: "A version was taken back meanwhile.",
	rollout.Busy:      "A roll-out is under way already.",
}
