package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/stack"
)

const (
	lookTimeout = 10 * time.Second
	maxLook     = 16 << 20 // of what is read at once
)

// looks is what was seen of everything that runs, each time when nothing was under way.
type looks struct {
	stack  *stack.Stack
	client *http.Client
	series map[life]map[string][]float64 // by what was measured
	full   time.Time                     // from when on as much expires as comes; what was before then does not count
}

// life is one process from its start to its end.
type life struct {
	name string
	pid  int
}

// What is measured of processes.
const (
	memory     = "memory, MB"
	goroutines = "goroutines"
	files      = "open files"
)

func newLooks(s *stack.Stack) *looks {
	return &looks{
		stack: s, series: map[life]map[string][]float64{}, full: time.Now().Add(asyncTTL),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: lookTimeout},
	}
}

// processes are the names of what runs, sorted.
func processes(s *stack.Stack) []string { return slices.Sorted(maps.Keys(s.Pids())) }

// ours are those that say how many goroutines they have.
func ours() []string {
	names := make([]string, 0, len(mirror.Names)+3)
	for _, model := range mirror.Names {
		names = append(names, "dispatch-"+model)
	}
	return append(names, "ingress", "deadletter", "model server")
}

// look measures everything and says what it is in all.
func (l *looks) look(ctx context.Context) (string, error) {
	var memories, routines, opened float64
	for name, pid := range l.stack.Pids() {
		m, f, err := ofProcess(pid)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		l.note(life{name, pid}, memory, m)
		l.note(life{name, pid}, files, f)
		memories, opened = memories+m, opened+f
	}
	pids := l.stack.Pids()
	for _, name := range ours() {
		n, err := l.goroutines(ctx, name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		l.note(life{name, pids[name]}, goroutines, n)
		routines += n
	}
	b, err := l.broker(ctx)
	if err != nil {
		return "", err
	}
	var nodes []struct {
		Pid    string  `json:"os_pid"`
		Memory float64 `json:"mem_used"`
	}
	if err := l.management(ctx, "nodes", &nodes); err != nil {
		return "", err
	}
	for _, n := range nodes {
		pid, err := strconv.Atoi(n.Pid)
		if err != nil {
			return "", err
		}
		l.note(life{rabbitMQ, pid}, memory, n.Memory/1e6)
		memories += n.Memory / 1e6
	}
	return fmt.Sprintf("at rest: %.0f MB in all, %.0f goroutines of ours, %.0f open files; %s", memories, routines, opened, b), nil
}

func (l *looks) note(who life, what string, value float64) {
	if time.Now().Before(l.full) {
		return
	}
	if l.series[who] == nil {
		l.series[who] = map[string][]float64{}
	}
	l.series[who][what] = append(l.series[who][what], value)
}

// ofProcess is what the kernel says of a process.
func ofProcess(pid int) (megabytes, opened float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, ok := bytes.Cut(status, []byte("VmRSS:"))
	if !ok {
		return 0, 0, errors.New("it ended just now")
	}
	kilobytes, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
	if err != nil {
		return 0, 0, err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return kilobytes / 1e3, float64(len(entries)), err
}

// goroutines asks a program of ours how many it has.
func (l *looks) goroutines(ctx context.Context, name string) (float64, error) {
	text, err := l.get(ctx, l.stack.MetricsURL(name))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("its metrics do not say how many goroutines it has")
}

// brokerLook is what there is in RabbitMQ.
type brokerLook struct{ connections, queues, messages int }

func (b brokerLook) String() string {
	return fmt.Sprintf("RabbitMQ has %d connections, %d queues, %d messages", b.connections, b.queues, b.messages)
}

// within says whether there is no more of anything than there was.
func (b brokerLook) within(was brokerLook) bool {
	return b.connections <= was.connections && b.queues <= was.queues && b.messages <= was.messages
}

// broker asks RabbitMQ. Among the queues are mailboxes, each of which expires.
func (l *looks) broker(ctx context.Context) (brokerLook, error) {
	var connections []struct {
		Name string `json:"name"`
	}
	var queues []struct {
		Name     string `json:"name"`
		Messages int    `json:"messages"`
	}
	if err := errors.Join(l.management(ctx, "connections?columns=name", &connections), l.management(ctx, "queues?columns=name,messages", &queues)); err != nil {
		return brokerLook{}, err
	}
	b := brokerLook{connections: len(connections), queues: len(queues)}
	for _, q := range queues {
		b.messages += q.Messages
	}
	return b, nil
}

// management reads from RabbitMQ's HTTP API.
func (l *looks) management(ctx context.Context, path string, v any) error {
	data, err := l.get(ctx, l.stack.ManagementURL()+"/api/"+path)
	if err != nil {
		return fmt.Errorf("RabbitMQ's management API: %w", err)
	}
	return json.Unmarshal(data, v)
}

func (l *looks) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxLook))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.256s", resp.StatusCode, data)
	}
	return data, nil
}
