// Package rabbitmqtest gives tests a private RabbitMQ node (package rabbitmq) that is gone without a trace when they end.
package rabbitmqtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/rabbitmq"
)

// Node is a RabbitMQ node.
type Node = rabbitmq.Node

// Start starts a node for one test. A test that restarts or chokes its node needs one of its own; others use Shared.
func Start(t *testing.T) *Node {
	t.Helper()
	n, err := rabbitmq.New(t.Context(), rabbitmq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// shared is the node of Shared.
var shared struct {
	once sync.Once
	node *Node
	err  error
}

// Shared is a node for all tests of a package, which is started when the first of them asks. The package's TestMain is Main.
func Shared(t *testing.T) *Node {
	t.Helper()
	shared.once.Do(func() { shared.node, shared.err = rabbitmq.New(context.WithoutCancel(t.Context()), rabbitmq.Config{}) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.node
}

// Main runs the tests of a package that uses Shared, and sees that they leave no goroutine behind. It does not return.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/ebb-inference/ebb/events/rabbitmq/child.(*Process).live"), // of the shared node
		goleak.Cleanup(func(code int) {
			if shared.node != nil {
				if err := shared.node.Remove(); err != nil {
					fmt.Fprintln(os.Stderr, err)
					code = 1
				}
			}
			os.Exit(code)
		}))
}
