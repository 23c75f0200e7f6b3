package rabbitmq

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below those that a kernel gives to connections that go out, or one of these could sit on a node's port
// while the node is restarted.
const (
	lowestPort  = 20000
	highestPort = 32000
	portTries   = 1000
)

// FreePorts finds ports of loopback that nobody listens on, for programs that cannot choose one themselves.
func FreePorts(ctx context.Context, count int) ([]int, error) {
	var ports []int
	var held []net.Listener // until all are found, so that they differ
	defer func() {
		for _, ln := range held {
			_ = ln.Close() // nobody connected to it
		}
	}()
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort) //nolint:gosec // any will do
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		held = append(held, ln)
		if ports = append(ports, port); len(ports) == count {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports on loopback")
}
