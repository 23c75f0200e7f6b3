package topology

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/trigger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNamesAreTheControllers(t *testing.T) {
	t.Parallel()
	b := Broker{Namespace: "ebb", Name: "default", UID: "1b8f8b1e-6c0e-4b5e-8f57-0c0d7c1f2a3b"}
	require.Equal(t, "b.ebb.default.1b8f8b1e-6c0e-4b5e-8f57-0c0d7c1f2a3b", b.Exchange())
	n := b.Trigger(trigger.Trigger{Namespace: "ebb", Name: "cat"})
	require.Equal(t, "ebb.cat.1b8f8b1e-6c0e-4b5e-8f57-0c0d7c1f2a3b", n.Queue)
	id := strings.TrimPrefix(n.DeadLetterExchange, "t.ebb.cat.dlx.")
	require.Len(t, id, 36)
	require.Equal(t, "t.ebb.cat.dlq."+id, n.DeadLetterQueue)
	require.Equal(t, n, b.Trigger(trigger.Trigger{Namespace: "ebb", Name: "cat"}), "the same each time")
	require.NotEqual(t, n, b.Trigger(trigger.Trigger{Namespace: "ebb", Name: "dog"}))
	require.Equal(t, "582b7f62-0e26-5ca1-bfda-261ee4f43e68", NewBroker("ebb", "ebb").UID, "it is part of what is durable")
	require.NotEqual(t, NewBroker("ebb", "a").UID, NewBroker("ebb", "b").UID)

	// Made by knative.dev/pkg/kmeta.ChildName.
	require.Equal(t, "b.a-namespace-of-some-length.a-9fd7fddfbe52589e652f72e717002fb1", childName("b.a-namespace-of-some-length.a-broker-of-some-length.", b.UID))
	require.Equal(t, "b.a-namespace-of.a-broker-xx.0eb6773b710ed70a8ff5d0e0dd18c2151b", childName("b.a-namespace-of.a-broker-xx.", b.UID))
}

func TestATopologyIsDeclaredOnceAndKeptUpToDate(t *testing.T) {
	t.Parallel()
	node, err := rabbitmq.New(t.Context(), rabbitmq.Config{Management: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Remove()) })
	server := Server{URL: node.URL(), ManagementURL: node.ManagementURL()}
	b := NewBroker("ebb", "ebb")
	cat := trigger.Trigger{Namespace: "ebb", Name: "cat", Filter: map[string]string{"type": "asked", "model": "cat"}}
	names := b.Trigger(cat)
	for range 2 {
		require.NoError(t, Declare(t.Context(), server, b, []trigger.Trigger{cat}, Limits{MaxEvents: 2}))
	}

	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	publish := func(ctx context.Context, model string) (stored bool) {
		t.Helper()
		c, err := ch.PublishWithDeferredConfirm(b.Exchange(), "", false, false, amqp091.Publishing{
			Headers: amqp091.Table{"type": "asked", "model": model}, Body: []byte("x"),
		})
		require.NoError(t, err)
		stored, err = c.WaitContext(ctx)
		require.NoError(t, err)
		return stored
	}
	depth := func(queue string) int {
		t.Helper()
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		require.NoError(t, err)
		return q.Messages
	}
	require.True(t, publish(t.Context(), "dog"), "dropped")
	require.Zero(t, depth(names.Queue))
	refused := 0
	for range 20 { // a quorum queue takes some more than it may
		if !publish(t.Context(), "cat") {
			refused++
		}
	}
	require.Positive(t, refused, "more than the queue may hold")
	d, ok, err := ch.Get(names.Queue, false)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, d.Nack(false, false))
	require.Eventually(t, func() bool { return depth(names.DeadLetterQueue) == 1 }, declareTimeout, 20*time.Millisecond, "a dead letter")

	_, err = ch.QueuePurge(names.Queue, false)
	require.NoError(t, err)
	cat.Filter["model"] = "lion"
	require.NoError(t, Declare(t.Context(), server, b, []trigger.Trigger{cat}, Limits{}))
	require.True(t, publish(t.Context(), "cat"))
	require.Zero(t, depth(names.Queue), "the former filter is gone")
	require.True(t, publish(t.Context(), "lion"))
	require.Eventually(t, func() bool { return depth(names.Queue) == 1 }, declareTimeout, 20*time.Millisecond)

	dog := trigger.Trigger{Namespace: "ebb", Name: "dog"}
	_, err = ch.QueueDeclare(b.Trigger(dog).Queue, true, false, false, false, nil)
	require.NoError(t, err)
	err = Declare(t.Context(), server, b, []trigger.Trigger{dog}, Limits{})
	require.ErrorIs(t, err, ErrDiffers)
	require.ErrorContains(t, err, b.Trigger(dog).Queue)

	server.ManagementURL = strings.Replace(server.ManagementURL, "guest:guest", "guest:s3cret", 1)
	err = Declare(t.Context(), server, b, []trigger.Trigger{cat}, Limits{})
	require.ErrorContains(t, err, "401")
	require.NotContains(t, err.Error(), "s3cret")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Declare(ended, server, b, nil, Limits{}), context.Canceled)
}
