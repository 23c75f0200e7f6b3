package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/system"
	"github.com/ebb-inference/ebb/models"
)

// The transports that are compared.
const (
	inMemory   = "in memory"
	directAMQP = "direct AMQP"
	knative    = "Knative"
)

// transport is Ebb with one way for its events.
type transport struct{ name, url string }

// brokers compares transports for the same functions and the same model server, all in this process; RabbitMQ and Knative's
// programs are its children.
type brokers struct {
	options
	folder     string // temporary
	transports []transport
	client     *http.Client
	stops
}

// measureBrokers compares Knative's data plane with RabbitMQ alone and with no RabbitMQ at all, for small and large pictures,
// with a network that computes nothing and with the real one.
func measureBrokers(ctx context.Context, o options) (_ []figure, _ []comparison, err error) {
	b := &brokers{options: o, client: newClient(saturation * o.concurrency)}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(ctx); err != nil {
		return nil, nil, err
	}
	var figures []figure
	var all []comparison
	for _, model := range []struct {
		name, label string
		goal        bool
		one, many   int // requests one at a time, and in a round of as many at once as there may be
	}{
		// What takes less is done more often.
		{mirror.Plain, "no-op", false, o.requests, 2 * o.requests},
		{o.model, o.model, true, o.requests / 2, o.requests / 2},
	} {
		for _, size := range []int{1 << 10, 150 << 10} {
			picture, err := noise(size)
			if err != nil {
				return nil, nil, err
			}
			c := comparison{Name: fmt.Sprintf("%s, %d KB", model.label, size>>10)}
			if c.Transports, err = b.compare(ctx, model.name, picture, model.one, model.many); err != nil {
				return nil, nil, err
			}
			all = append(all, c)
			if model.goal {
				figures = append(figures, c.figures()...)
			}
		}
	}
	return figures, all, nil
}

// start starts everything that is compared.
func (b *brokers) start(ctx context.Context) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	if b.folder, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	b.add(func() error { return os.RemoveAll(b.folder) })
	networks, manifests, err := b.writeModels()
	if err != nil {
		return err
	}
	serving, stop, err := startModelServer(ctx, networks, quiet)
	if err != nil {
		return err
	}
	b.add(stop)
	node, err := rabbitmq.New(ctx, rabbitmq.Config{Folder: filepath.Join(b.folder, "rabbitmq"), Management: true})
	if err != nil {
		return err
	}
	b.add(node.Close)
	server := topology.Server{URL: node.URL(), ManagementURL: node.ManagementURL()}

	config := system.Config{Manifests: manifests, Networks: networks, Serving: serving, Logger: quiet}
	if err := b.startSystem(ctx, inMemory, config); err != nil {
		return err
	}
	d := &direct{server: server, broker: topology.NewBroker("bench", "direct"), serving: serving,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if d.models, d.triggers, err = b.readModels(manifests); err != nil {
		return err
	}
	url, stop, err := startDirect(ctx, d)
	if err != nil {
		return err
	}
	b.add(stop)
	b.transports = append(b.transports, transport{directAMQP, url})
	config.RabbitMQ = &system.RabbitMQ{Server: server, Folder: b.folder, Programs: filepath.Dir(b.program)}
	return b.startSystem(ctx, knative, config)
}

func (b *brokers) startSystem(ctx context.Context, name string, c system.Config) error {
	sys, err := system.Start(ctx, c)
	if err != nil {
		return err
	}
	b.add(func() error { return sys.Stop(context.WithoutCancel(ctx), stopTimeout) })
	url, stop, err := serve(ctx, sys)
	if err != nil {
		return err
	}
	b.add(stop)
	b.transports = append(b.transports, transport{name, url})
	return nil
}

// writeModels puts the real model and the mirror's into folders, so that no other's dispatchers run.
func (b *brokers) writeModels() (networks string, manifests []string, err error) {
	networks = filepath.Join(b.folder, "networks")
	definitions, triggers := filepath.Join(b.folder, "models"), filepath.Join(b.folder, "triggers")
	if err := errors.Join(mirror.WriteNetworks(networks), mirror.WriteDefinitions(definitions), mirror.WriteTriggers(triggers)); err != nil {
		return "", nil, err
	}
	file := b.model + ".yaml"
	found, err := models.ReadManifest(os.DirFS(b.manifests), file)
	if err != nil {
		return "", nil, err
	}
	for _, m := range found {
		network, err := filepath.Abs(filepath.Join(b.networks, m.Serving.Model))
		if err != nil {
			return "", nil, err
		}
		if err := os.Symlink(network, filepath.Join(networks, m.Serving.Model)); err != nil {
			return "", nil, err
		}
	}
	manifest, err := os.ReadFile(filepath.Join(b.manifests, file))
	if err != nil {
		return "", nil, err
	}
	return networks, []string{definitions, triggers}, os.WriteFile(filepath.Join(triggers, file), manifest, 0o600)
}

// readModels reads what writeModels wrote: the models, and the Trigger of each.
func (b *brokers) readModels(folders []string) (all []*models.Model, triggers []trigger.Trigger, err error) {
	if all, err = models.ReadFolders(folders...); err != nil {
		return nil, nil, err
	}
	for _, m := range all {
		name := filepath.Join(b.folder, "triggers", m.Name+".yaml")
		file, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		found, err := trigger.Parse(file, name)
		_ = file.Close() // it was only read
		if err != nil {
			return nil, nil, err
		}
		if len(found) != 1 {
			return nil, nil, fmt.Errorf("%s has %d Triggers; want one", name, len(found))
		}
		triggers = append(triggers, found[0])
	}
	return all, triggers, nil
}

// saturation is how many times the other measurements' requests are under way, so that the transport that takes longest has
// enough of them to keep all cores busy.
const saturation = 2

// compare asks a model through every transport in turn: one at a time, request by request, and then as many at once as there
// may be, round by round.
func (b *brokers) compare(ctx context.Context, model string, picture []byte, one, many int) ([]measured, error) {
	results := make([]measured, len(b.transports))
	asks := make([]func(context.Context) error, len(b.transports))
	for i, t := range b.transports {
		results[i].Name = t.name
		asks[i] = func(ctx context.Context) error {
			return askHTTP(ctx, b.client, t.url+"/v1/infer?model="+model, picture)
		}
		if _, err := rate(ctx, 2*saturation*b.concurrency, saturation*b.concurrency, 1, asks[i]); err != nil { // to warm up
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for range one {
		for i, t := range b.transports {
			start := time.Now()
			if err := asks[i](ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			results[i].times = append(results[i].times, float64(time.Since(start))/1e6)
		}
	}
	for range b.rounds {
		for i, t := range b.transports {
			before, err := cpuOfFamily()
			if err != nil {
				return nil, err
			}
			r, err := rate(ctx, many, saturation*b.concurrency, 1, asks[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			after, err := cpuOfFamily()
			if err != nil {
				return nil, err
			}
			results[i].rates = append(results[i].rates, r)
			results[i].spend(before, after, many)
		}
	}
	for i := range results {
		results[i].summarise(results[0], b.rounds)
	}
	return results, nil
}

// comparison is one kind of request through every transport.
type comparison struct {
	Name       string     `json:"name"`
	Transports []measured `json:"transports"`
}

// measured is one kind of request through one transport. What is relative is so to the first transport.
type measured struct {
	Name       string             `json:"transport"`
	P50        float64            `json:"p50_ms"` // one at a time
	P99        float64            `json:"p99_ms"`
	Rate       float64            `json:"requests_per_second"` // at saturation
	Throughput float64            `json:"throughput_relative"` // the median round's
	Least      float64            `json:"throughput_relative_least"`
	Most       float64            `json:"throughput_relative_most"`
	CPU        map[string]float64 `json:"cpu_ms_per_request"` // by program, at saturation

	times, rates []float64
}

// spend adds the CPU time between two readings, in which so many requests were answered.
func (m *measured) spend(before, after map[string]int64, requests int) {
	if m.CPU == nil {
		m.CPU = map[string]float64{}
	}
	for program, ticks := range after {
		m.CPU[program] += float64(ticks-before[program]) * 1000 / clockTicks / float64(requests)
	}
}

func (m *measured) summarise(base measured, rounds int) {
	m.P50, m.P99, m.Rate = quantile(m.times, 0.5), quantile(m.times, 0.99), median(m.rates)
	ratios := make([]float64, len(m.rates))
	for i, r := range m.rates {
		ratios[i] = r / base.rates[i]
	}
	m.Throughput, m.Least, m.Most = median(ratios), slices.Min(ratios), slices.Max(ratios)
	for program := range m.CPU {
		m.CPU[program] /= float64(rounds)
	}
}

// cpu is the CPU time a request, of all programs together.
func (m *measured) cpu() (sum float64) {
	for _, ms := range m.CPU {
		sum += ms
	}
	return sum
}

// cpuNote says where the CPU time went, the most first; what is next to nothing is left out.
func (m *measured) cpuNote() string {
	names := slices.SortedFunc(maps.Keys(m.CPU), func(a, b string) int { return int(1e6 * (m.CPU[b] - m.CPU[a])) })
	var parts []string
	for _, name := range names {
		if m.CPU[name] >= 0.05 {
			parts = append(parts, fmt.Sprintf("%s %.1f", name, m.CPU[name]))
		}
	}
	return strings.Join(parts, ", ")
}

// figures are what there are goals for.
func (c *comparison) figures() []figure {
	base, k := c.Transports[0], c.Transports[len(c.Transports)-1]
	return []figure{
		{Name: c.Name + " over Knative: added latency, p50", Value: k.P50 - base.P50, Unit: "ms", Goal: 10, Better: lower,
			Note: fmt.Sprintf("%.1f ms in memory, %.1f ms through RabbitMQ and Knative's data plane", base.P50, k.P50)},
		{Name: c.Name + " over Knative: throughput, to that in memory", Value: k.Throughput, Unit: "×", Goal: 0.9, Better: higher,
			Note: fmt.Sprintf("%.1f requests/s, %.1f in memory; rounds %.3f to %.3f; CPU a request: %.1f ms, %.1f in memory, which is %.3f of it",
				k.Rate, base.Rate, k.Least, k.Most, k.cpu(), base.cpu(), base.cpu()/k.cpu())},
	}
}
