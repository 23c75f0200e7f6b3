package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// initialized is when the program's own code began to run: after the operating system had made the process and loaded it.
var initialized = time.Now()

// Ready says that the function can do its work for the first time, and how long that took since its process was made: in the
// log, and as the metric ebb.start.duration. What it is called again for is no start any more.
func (a *App) Ready() {
	a.ready.Do(func() {
		took := sinceStart()
		a.Logger.Info("ready", "start_ms", took.Milliseconds())
		gauge, err := otel.Meter(scope).Float64Gauge("ebb.start.duration", metric.WithUnit("s"),
			metric.WithDescription("From the start of the process until it was ready for the first time."))
		if err != nil {
			a.Logger.Warn("telemetry", "error", err)
			return
		}
		gauge.Record(context.Background(), took.Seconds())
	})
}

// sinceStart is how long ago the process was made, to a hundredth of a second, or where the system does not say so (it does on
// Linux), how long ago the program's own code began to run.
func sinceStart() time.Duration {
	running := time.Since(initialized)
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return running
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return running
	}
	age, err := processAge(stat, uptime)
	if err != nil || age < running || age > running+time.Minute { // a container may be told of another uptime than the kernel's
		return running
	}
	return age
}

// tick is the unit in which Linux tells programs of times, whatever its own is.
const tick = 10 * time.Millisecond

// The fields of /proc/self/stat behind the program's name, which may have any characters in it, parentheses too.
const (
	afterName      = ") "
	startTimeField = 22 - 3 // proc(5) counts from 1, and the one behind the name is the third
)

// processAge reads how long a process has been there from what Linux has in /proc/self/stat and /proc/uptime.
func processAge(stat, uptime []byte) (time.Duration, error) {
	_, rest, ok := bytes.Cut(stat[max(bytes.LastIndex(stat, []byte(afterName)), 0):], []byte(afterName))
	fields := bytes.Fields(rest)
	if !ok || len(fields) <= startTimeField {
		return 0, errors.New("/proc/self/stat: too short")
	}
	ticks, err := strconv.ParseUint(string(fields[startTimeField]), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("/proc/self/stat: start time: %w", err)
	}
	up, _, ok := bytes.Cut(uptime, []byte(" "))
	if !ok {
		return 0, errors.New("/proc/uptime: too short")
	}
	seconds, err := strconv.ParseFloat(string(up), 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/uptime: %w", err)
	}
	return time.Duration(seconds*float64(time.Second)) - time.Duration(ticks)*tick, nil
}
