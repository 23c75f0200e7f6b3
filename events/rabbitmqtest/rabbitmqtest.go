package rabbitmqtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Start starts a node for one test. A test that restarts or chokes its node needs one of its own; others use Shared.
func Start(t *testing.T) *Node {
	t.Helper()
	n, err := New(t.Context())
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
	shared.once.Do(func() { shared.node, shared.err = New(context.WithoutCancel(t.Context())) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.node
}

// Main runs the tests of a package that uses Shared, and sees that they leave no goroutine behind. It does not return.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/ebb-inference/ebb/events/rabbitmqtest.(*process).live"), // of the shared node
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
