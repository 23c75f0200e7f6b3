// Package dataplane runs the data plane of Knative's RabbitMQ broker on this machine: one broker ingress, which takes events by
// HTTP, and two dispatchers a Trigger, which deliver what is in its queue and in its queue of dead letters. They are the
// programs that run in a cluster, as child processes, with the environment that the controller would give them.
//
// They end when RabbitMQ is away for some seconds, and are started again for as long as it takes. What they need in RabbitMQ is
// declared before (package topology). It knows nothing of what events mean.
package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/supervise"
)

// ErrNotBuilt says that Knative's programs are not there.
var ErrNotBuilt = errors.New("the data plane of Knative is not built: `make dataplane` does it")

// The programs.
const (
	ingressProgram    = "ingress"
	dispatcherProgram = "dispatcher"
)

// Config is what a DataPlane is made of. All but Limits and Logger is required.
type Config struct {
	Programs string // folder of the programs ingress and dispatcher
	Server   topology.Server
	Broker   topology.Broker
	Limits   topology.Limits
	Logger   *slog.Logger // default slog.Default()
}

// DataPlane is a Knative Broker at work.
type DataPlane struct {
	config Config
	vhost  string // as the programs want it
	plain  string // the URL without it
	url    string // of the broker ingress
	watch  *watch

	mu        sync.Mutex
	processes []*supervise.Process
	stopped   bool
}

// New declares the Broker and starts its ingress, which takes a moment to answer: see Ready. Stop ends it.
func New(ctx context.Context, c Config) (*DataPlane, error) {
	c.Logger = cmp.Or(c.Logger, slog.Default())
	for _, name := range []string{ingressProgram, dispatcherProgram} {
		if _, err := os.Stat(filepath.Join(c.Programs, name)); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotBuilt
		}
	}
	plain, vhost, err := splitURL(c.Server.URL)
	if err != nil {
		return nil, err
	}
	if err := topology.Declare(ctx, c.Server, c.Broker, nil, c.Limits); err != nil {
		return nil, err
	}
	ports, err := rabbitmq.FreePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(ports[0])
	d := &DataPlane{config: c, plain: plain, vhost: vhost, url: "http://127.0.0.1:" + port}
	d.watch = newWatch(c.Server.URL, d.url)
	d.run(ingressProgram, "broker ingress", []string{
		"PORT=" + port,
		"BROKER_URL=" + d.plain,
		"RABBITMQ_VHOST=" + d.vhost,
		"EXCHANGE_NAME=" + c.Broker.Exchange(),
		"BROKER_NAME=" + c.Broker.Name,
		"BROKER_NAMESPACE=" + c.Broker.Namespace,
		"CONTAINER_NAME=ingress",
		"POD_NAME=" + c.Broker.Name + "-broker-ingress",
	})
	return d, nil
}

// splitURL takes the vhost off RabbitMQ's URL: the programs want it apart.
func splitURL(text string) (plain, vhost string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", errors.New("RabbitMQ's URL cannot be parsed") // the error repeats it
	}
	uri, err := amqp091.ParseURI(text)
	if err != nil {
		return "", "", fmt.Errorf("RabbitMQ's URL: %w", err)
	}
	u.Path, u.RawPath, u.RawQuery = "", "", ""
	return u.String(), url.PathEscape(uri.Vhost), nil
}

// URL is where events are published: POST /.
func (d *DataPlane) URL() string { return d.url + "/" }

// Subscribe declares a Trigger and starts to deliver what matches it to subscriberURL, and what that does not take to
// deadLetterURL. An event that is published after it returns is in the Trigger's queue if it matches.
func (d *DataPlane) Subscribe(ctx context.Context, t trigger.Trigger, subscriberURL, deadLetterURL string) error {
	if err := topology.Declare(ctx, d.config.Server, d.config.Broker, []trigger.Trigger{t}, d.config.Limits); err != nil {
		return err
	}
	names := d.config.Broker.Trigger(t)
	d.watch.queues(names.Queue, names.DeadLetterQueue)
	delivery := []string{
		"RABBIT_URL=" + d.plain,
		"RABBITMQ_VHOST=" + d.vhost,
		"BROKER_INGRESS_URL=" + d.URL(),
		"NAMESPACE=" + t.Namespace,
		"CONTAINER_NAME=dispatcher",
		"PARALLELISM=" + strconv.Itoa(t.Delivery.Parallelism),
		"RETRY=" + strconv.Itoa(t.Delivery.Retry),
		"BACKOFF_POLICY=" + string(t.Delivery.Backoff),
		"BACKOFF_DELAY=" + t.Delivery.BackoffDelay.String(),
		"TIMEOUT=" + t.Delivery.Timeout.String(),
	}
	d.run(dispatcherProgram, "dispatcher of "+t.String(), slices.Concat(delivery, []string{
		"POD_NAME=" + t.Name + "-dispatcher",
		"QUEUE_NAME=" + names.Queue,
		"SUBSCRIBER=" + subscriberURL,
		"DLX_NAME=" + names.DeadLetterExchange,
	}))
	d.run(dispatcherProgram, "dead letter dispatcher of "+t.String(), slices.Concat(delivery, []string{
		"POD_NAME=" + t.Name + "-dlx-dispatcher",
		"QUEUE_NAME=" + names.DeadLetterQueue,
		"SUBSCRIBER=" + deadLetterURL,
		"DLX=true",
	}))
	return nil
}

func (d *DataPlane) run(program, name string, env []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	// Told to end, a dispatcher acknowledges what it is delivering before it stores it as a dead letter, for which its
	// connection may be closed already. Killed, which is what it is without a grace, it loses nothing: RabbitMQ delivers again.
	d.processes = append(d.processes, supervise.Start(supervise.Program{
		Name: name, Path: filepath.Join(d.config.Programs, program), Env: slices.Concat(common, env),
	}, d.config.Logger))
}

// common is the environment of every program. They log the data of events at less than errors, and that is nobody's
// business; a proxy is never between them and what they talk to.
//
// They keep next to nothing from one event to the next and copy each several times, so that with Go's defaults they collect
// garbage every few events: a fifth of their CPU time with events of 150 KB. So they may have more of it, within bounds.
var common = []string{
	"GOGC=400",
	"GOMEMLIMIT=256MiB",
	"SYSTEM_NAMESPACE=knative-eventing",
	`K_LOGGING_CONFIG={"zap-logger-config":"{\"level\":\"error\",\"encoding\":\"console\",\"outputPaths\":[\"stderr\"],\"errorOutputPaths\":[\"stderr\"],\"encoderConfig\":{\"messageKey\":\"message\",\"lineEnding\":\"\\n\"}}"}`,
}

// Ready says what does not work, or nil: RabbitMQ, the broker ingress, or a queue without its dispatcher. It knows what was
// so within the last second.
func (d *DataPlane) Ready() error { return d.watch.ready() }

// Stop ends every process. What is in the queues stays there; what was being delivered is delivered again by the next. It
// may be called any number of times.
func (d *DataPlane) Stop(context.Context) error {
	d.mu.Lock()
	processes := d.processes
	d.processes, d.stopped = nil, true
	d.mu.Unlock()
	var ending sync.WaitGroup
	for _, p := range processes {
		ending.Go(p.Stop)
	}
	ending.Wait()
	d.watch.stop()
	return nil
}

// Pids are the numbers of the processes that run, by the names that their logs have.
func (d *DataPlane) Pids() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	pids := make(map[string]int, len(d.processes))
	for _, p := range d.processes {
		if pid := p.Pid(); pid != 0 {
			pids[p.Name()] = pid
		}
	}
	return pids
}
