package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// idleFor is how long something idle is watched.
const idleFor = 10 * time.Second

// clockTicks a second is the unit of /proc/<pid>/stat; Linux has it at 100 everywhere.
const clockTicks = 100

// measureIdle starts the whole program, asks it once, lets it settle, and reads what the kernel says of its CPU time.
func measureIdle(ctx context.Context, o options) ([]figure, error) {
	picture, err := os.ReadFile(o.picture)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, o.program)
	cmd.Env = append(os.Environ(), "PORT="+strconv.Itoa(port), "LOG_LEVEL=error")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: build it with `make build`", err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself; Wait says so
		_ = cmd.Wait()
	}()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := waitFor(ctx, url+"/health/readiness"); err != nil {
		return nil, err
	}
	ready := time.Since(started)
	if err := askHTTP(ctx, http.DefaultClient, url+"/v1/infer?model="+o.model, picture); err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	before, err := ticks(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return nil, err
	}
	after, err := ticks(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	return []figure{
		{Name: "whole system: start to ready", Value: ready.Seconds(), Unit: "s", Goal: 3, Better: lower},
		{Name: "whole system idle: CPU over 10 s", Value: float64(after-before) / clockTicks, Unit: "s", Goal: 0.1, Better: lower},
	}, nil
}

// waitFor asks url until it answers 200.
func waitFor(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%s did not get ready: %w", url, err)
		}
	}
}

// ticks is the CPU time of a process, user and system, in clock ticks.
func ticks(pid int) (int64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may have spaces; user and system time are fields 14 and 15, counted from 1.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, errors.New("/proc/<pid>/stat is not as it should be")
	}
	user, err := strconv.ParseInt(fields[utime], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[stime], 10, 64)
	return user + system, err
}
