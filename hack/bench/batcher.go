package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/ebb-inference/ebb/models/batch"
)

// measureBatcher runs the batcher's own benchmark, and then watches an idle batcher.
func measureBatcher(ctx context.Context, _ options) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkDo$", "-benchmem", "-count", "3", "./models/batch")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test: %w", err)
	}
	type key struct {
		producers int
		unit      string
	}
	values := map[key][]float64{}
	for r := benchfmt.NewReader(bytes.NewReader(out), "batch"); r.Scan(); {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		// "Do/producers=8-2", where 2 is GOMAXPROCS.
		_, setting, _ := strings.Cut(result.Name.String(), "producers=")
		setting, _, _ = strings.Cut(setting, "-")
		producers, err := strconv.Atoi(setting)
		if err != nil {
			return nil, fmt.Errorf("the benchmark %q has no number of producers: %w", result.Name, err)
		}
		for _, v := range result.Values {
			k := key{producers, v.Unit}
			values[k] = append(values[k], v.Value)
		}
	}
	var figures []figure
	for _, n := range []int{1, 8, 64, 512} {
		times := values[key{n, "sec/op"}]
		if len(times) == 0 {
			return nil, fmt.Errorf("no result for %d producers in:\n%s", n, out)
		}
		figures = append(figures,
			figure{Name: fmt.Sprintf("batcher with %s: time an item", producers(n)), Value: median(times) * 1e6, Unit: "µs", Goal: 5, Better: lower,
				Note: fmt.Sprintf("%.1f times as many items as a batcher with a window of 1 ms", median(values[key{n, "x-window"}]))},
			figure{Name: fmt.Sprintf("batcher with %s: allocations an item", producers(n)), Value: median(values[key{n, "allocs/op"}]), Goal: 3, Better: lower})
	}
	idle, err := idleBatcher(ctx)
	return append(figures, idle), err
}

// idleBatcher is the CPU time of this process over ten seconds in which it has nothing but a batcher that was used before.
func idleBatcher(ctx context.Context) (figure, error) {
	b := batch.New(batch.Config{Size: 8, Slots: 2, Queue: 64}, func(_ context.Context, in []int) ([]int, error) { return in, nil })
	if _, _, err := b.Do(ctx, 1); err != nil {
		return figure{}, err
	}
	before, err := cpuTime()
	if err != nil {
		return figure{}, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return figure{}, err
	}
	after, err := cpuTime()
	if err != nil {
		return figure{}, err
	}
	return figure{Name: "idle batcher: CPU over 10 s", Value: (after - before).Seconds(), Unit: "s", Goal: 0.05, Better: lower}, b.Stop(ctx)
}

func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func producers(n int) string {
	if n == 1 {
		return "1 producer"
	}
	return strconv.Itoa(n) + " producers"
}
