package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// defaultEnvFile is where make run BROKER=rabbitmq says where its parts are.
const defaultEnvFile = ".ebb/rabbitmq/env"

// maxEnvBytes bounds the file.
const maxEnvBytes = 64 << 10

// settings are where things are. There may be passwords in them: they are in no error.
type settings struct{ rabbitMQ, broker string }

// readSettings reads the environment and, for what is not set there, a file, which has to be there if required.
func readSettings(file string, required bool, lookup func(string) (string, bool)) (settings, error) {
	values, err := readEnvFile(file)
	if err != nil && (required || !errors.Is(err, fs.ErrNotExist)) {
		return settings{}, fmt.Errorf("settings: %w", err)
	}
	get := func(key string) string {
		if v, ok := lookup(key); ok && v != "" {
			return v
		}
		return values[key]
	}
	return settings{rabbitMQ: get("RABBITMQ_URL"), broker: get("BROKER_URL")}, nil
}

// readEnvFile reads lines KEY=VALUE; empty ones and those that start with # say nothing.
func readEnvFile(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxEnvBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxEnvBytes {
		return nil, fmt.Errorf("%s has more than %d bytes: is it a file of settings?", file, maxEnvBytes)
	}
	values := map[string]string{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("%s:%d: want KEY=VALUE", file, n)
		}
		values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return values, nil
}

// checkBroker says what is wrong with the broker's address. file is where it might have come from.
func (s settings) checkBroker(file string) error {
	if s.broker == "" {
		return fmt.Errorf("BROKER_URL is not set, and not in %s: say where the broker takes events, as http://host/namespace/broker", file)
	}
	u, err := url.Parse(s.broker)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("BROKER_URL is no address of the form http://host:port/path")
	}
	return nil
}
