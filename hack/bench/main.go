// Command bench measures what Ebb costs beyond the computation that it exists for, as ratios within one run: absolute times
// say more about the machine than about the program.
//
// It writes tables (results.md), the figures (results.json, brokers.json) and charts (chart.svg, brokers.svg) to the folder
// bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"

	"github.com/ebb-inference/ebb/functions/local/system"
)

type options struct {
	out         string
	networks    string
	manifests   string
	picture     string
	program     string
	model       string
	concurrency int
	requests    int
	pairs       int
	rounds      int
	only        string
	profile     string
}

func main() {
	var o options
	flag.StringVar(&o.out, "out", "bench", "folder for the results")
	flag.StringVar(&o.networks, "networks", filepath.Join(".ebb", "models"), "folder of networks")
	flag.StringVar(&o.manifests, "models", filepath.Join("config", "models"), "folder of models and Triggers")
	flag.StringVar(&o.picture, "picture", filepath.Join(".ebb", "pictures", "dog.jpg"), "the picture that is asked about")
	flag.StringVar(&o.program, "program", filepath.Join(".ebb", "bin", "local"), "the program whose idle CPU is measured")
	flag.StringVar(&o.model, "model", "dog", "the model that is asked")
	flag.IntVar(&o.concurrency, "concurrency", 16, "requests under way at once, for throughput")
	flag.IntVar(&o.requests, "requests", 240, "requests in a round of throughput; without RabbitMQ three times as many")
	flag.IntVar(&o.pairs, "pairs", 1000, "requests of which the latency is measured, each beside one without Ebb")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; the median counts")
	flag.StringVar(&o.only, "only", "", "measure only one of: batcher, path, idle, brokers")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of what is measured in this process to a file")
	flag.Parse()
	system.CollectSeldom() // for Ebb and the limit alike
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			_ = file.Close() // a profile that is cut short says so when it is read
		}()
	}
	var figures []figure
	var comparisons []comparison
	for _, part := range []struct {
		name    string
		measure func(context.Context, options) ([]figure, error)
	}{
		{"batcher", measureBatcher},
		{"path", measurePath},
		{"idle", measureIdle},
		{"brokers", func(ctx context.Context, o options) (found []figure, err error) {
			found, comparisons, err = measureBrokers(ctx, o)
			return found, err
		}},
	} {
		if o.only != "" && o.only != part.name {
			continue
		}
		fmt.Printf("measuring: %s ...\n", part.name)
		found, err := part.measure(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		figures = append(figures, found...)
	}
	if len(figures) == 0 {
		return errors.New("nothing was measured: -only takes batcher, path, idle or brokers")
	}
	return report(o.out, figures, comparisons)
}
