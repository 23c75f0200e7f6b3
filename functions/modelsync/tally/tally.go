// Package tally reads how calls of a network went out of the metrics of those who make them, dispatch: of this process, or of
// another one's Prometheus endpoint.
package tally

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// The metrics of dispatch, as Prometheus has them, and their labels.
const (
	answered = "ebb_dispatch_compute_duration_seconds"
	failed   = "ebb_dispatch_compute_failures_total"

	labelNetwork = "network"
	labelVersion = "version"
)

// maxBytes bounds what another process tells.
const maxBytes = 4 << 20

// ErrTooLarge says that a process tells more than it can have to tell.
var ErrTooLarge = errors.New("metrics are too large")

// Parse reads a network's calls out of the text of a Prometheus endpoint.
func Parse(r io.Reader, network string) (rollout.Tally, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(limited)
	switch {
	case limited.N == 0:
		return rollout.Tally{}, fmt.Errorf("%w: more than %d MiB", ErrTooLarge, maxBytes>>20)
	case err != nil:
		return rollout.Tally{}, fmt.Errorf("metrics: %w", err)
	}
	return add(network, families[answered], families[failed]), nil
}

func add(network string, families ...*dto.MetricFamily) rollout.Tally {
	t := rollout.Tally{Answered: make(map[int64]rollout.Count)}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if label(m, labelNetwork) != network {
				continue
			}
			t.Failed += uint64(m.GetCounter().GetValue())
			// A version that is no number is one of too many to be told apart.
			if version, err := strconv.ParseInt(label(m, labelVersion), 10, 64); err == nil {
				c := t.Answered[version]
				c.Calls += m.GetHistogram().GetSampleCount()
				c.Seconds += m.GetHistogram().GetSampleSum()
				t.Answered[version] = c
			}
		}
	}
	return t
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// Process counts the calls of a network that this process makes.
type Process struct {
	gatherer prometheus.Gatherer
	network  string
	name     string
}

var _ rollout.Watcher = (*Process)(nil)

// NewProcess makes a Process.
func NewProcess(g prometheus.Gatherer, network string) *Process {
	return &Process{g, network, uuid.NewString()}
}

// Tallies returns one, this process's.
func (p *Process) Tallies(context.Context) (map[string]rollout.Tally, error) {
	families, err := p.gatherer.Gather()
	if err != nil {
		return nil, fmt.Errorf("metrics of this process: %w", err)
	}
	var wanted []*dto.MetricFamily
	for _, f := range families {
		if f.GetName() == answered || f.GetName() == failed {
			wanted = append(wanted, f)
		}
	}
	return map[string]rollout.Tally{p.name: add(p.network, wanted...)}, nil
}
