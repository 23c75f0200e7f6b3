package rabbitmqtest

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Start starts a node for one test. A test that restarts or chokes its node needs one of its own.
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

// Main runs a package's tests with a node that they share, and sees that they leave no goroutine behind. It is for
// TestMain, and does not return.
func Main(m *testing.M, use func(*Node)) {
	n, err := New(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	use(n)
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		if err := n.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}
