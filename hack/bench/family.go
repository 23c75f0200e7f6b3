package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// programNames are what reports call programs, by the names that the kernel has for them.
var programNames = map[string]string{
	"beam.smp":   "RabbitMQ",
	"ingress":    "Knative's ingress",
	"dispatcher": "Knative's dispatchers",
}

// cpuOfFamily is the CPU time, in clock ticks, of this process and of its children, by program.
func cpuOfFamily() (map[string]int64, error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	sums := map[string]int64{}
	for _, file := range all {
		stat, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		// "pid (name) state parent ..."
		open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[shut+1:]))
		pid, err := strconv.Atoi(strings.TrimSpace(string(stat[:open])))
		if err != nil {
			return nil, err
		}
		name, known := programNames[string(stat[open+1:shut])]
		switch {
		case pid == os.Getpid():
			name = "Ebb"
		case !known || fields[1] != strconv.Itoa(os.Getpid()):
			continue
		}
		spent, err := ticks(pid)
		if err != nil {
			return nil, err
		}
		sums[name] += spent
	}
	return sums, nil
}
