package rabbitmq

import (
	"context"
	"log/slog"
	"time"
)

// restartPause is before another attempt to start a server that did not start.
const restartPause = time.Second

// Keeper has a node, and starts its server again whenever that ends by itself.
type Keeper struct {
	node *Node
	log  *slog.Logger
	end  context.CancelFunc
	done chan struct{} // closed when nobody looks after the node any more
}

// Keep hands a running node to a Keeper. From then on nobody else may stop or start it.
func Keep(n *Node, log *slog.Logger) *Keeper {
	ctx, end := context.WithCancel(context.Background()) // it lives until Close
	k := &Keeper{node: n, log: log, end: end, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		k.run(ctx)
	}()
	return k
}

func (k *Keeper) run(ctx context.Context) {
	for {
		select {
		case <-k.node.server.Ended():
		case <-ctx.Done():
			return
		}
		k.log.Warn("RabbitMQ ended; it is started again", "state", k.node.server.State())
		if !k.restart(ctx) {
			return
		}
		k.log.Info("RabbitMQ is back")
	}
}

// restart tries until the server runs, or ctx ends.
func (k *Keeper) restart(ctx context.Context) bool {
	for {
		if err := k.node.Stop(); err != nil { // which forgets what has ended, or did not come up
			k.log.Warn("RabbitMQ did not stop", "error", err)
		}
		err := k.node.Start(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		k.log.Error("RabbitMQ did not start; it is tried again", "error", err)
		pause := time.NewTimer(restartPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return false
		}
	}
}

// Close closes the node. It may be called any number of times.
func (k *Keeper) Close() error {
	k.end()
	<-k.done
	return k.node.Close()
}
