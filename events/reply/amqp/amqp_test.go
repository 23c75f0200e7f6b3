package amqp_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/reply/amqp/amqptest"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func result(correlationID string) *events.Result {
	return &events.Result{
		ID: uuid.NewString(), Source: "/ebb/dispatch/cat/test", Time: time.Now().UTC(),
		RequestID: uuid.NewString(), CorrelationID: correlationID, Model: "cat",
		Problem: problem.New("test", 422, "Test", correlationID),
	}
}

// inbox is a reply queue whose deliveries a test takes from channels.
type inbox struct {
	reply.Inbox
	replies chan string // correlation ids
	lost    chan string
}

func listen(t *testing.T, c amqp.Config) *inbox {
	t.Helper()
	q, err := amqp.NewRequester(c)
	require.NoError(t, err)
	in := &inbox{replies: make(chan string, 4096), lost: make(chan string, 16)}
	in.Inbox, err = q.Listen(t.Context(), reply.Listener{
		Reply: func(r *events.Result) { in.replies <- r.CorrelationID },
		Lost:  func(address string) { in.lost <- address },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, in.Close()) })
	return in
}

func (in *inbox) address(t *testing.T) string {
	t.Helper()
	a, err := in.Address()
	require.NoError(t, err)
	return a
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	require.Eventually(t, what, patience, 10*time.Millisecond)
}

// A node of its own goes through what can befall one, in one test, since starting one takes seconds.
func TestWhatHappensToRabbitMQ(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Start(t)
	in := listen(t, amqptest.Config(node.URL()))
	responder := amqptest.Responder(t, node.URL())
	works := func(id string) {
		t.Helper()
		eventually(t, func() bool {
			a, err := in.Address()
			return err == nil && responder.Ready() == nil && responder.Respond(t.Context(), a, result(id)) == nil
		})
		require.Equal(t, id, receive(t, in.replies))
	}
	works("first")

	// Somebody deletes the queue, with the connection as it is.
	old := in.address(t)
	_, err := node.Control(t.Context(), "delete_queue", old)
	require.NoError(t, err)
	require.Equal(t, old, receive(t, in.lost))
	works("after-the-queue-was-deleted")
	require.NotEqual(t, old, in.address(t))

	// Its memory is short, which also who has not sent anything hears, and who comes now.
	idle := amqptest.Responder(t, node.URL())
	require.NoError(t, idle.Blocked(t.Context()))
	const blocked = 200 * time.Millisecond
	_, err = node.Control(t.Context(), "set_vm_memory_high_watermark", "absolute", "1")
	require.NoError(t, err)
	asking := []*amqp.Responder{idle, amqptest.Responder(t, node.URL())}
	for _, r := range append(asking, responder) {
		require.ErrorIs(t, r.Blocked(t.Context()), amqp.ErrBlocked)
		require.ErrorIs(t, r.Blocked(t.Context()), amqp.ErrBlocked)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), blocked)
		err = responder.Respond(ctx, in.address(t), result("while-memory-is-short"))
		cancel()
		require.ErrorIs(t, err, amqp.ErrBlocked)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.Empty(t, in.lost, "consuming goes on")
	_, err = node.Control(t.Context(), "set_vm_memory_high_watermark", "0.6")
	require.NoError(t, err)
	for _, r := range append(asking, responder) {
		eventually(t, func() bool { return r.Blocked(t.Context()) == nil })
	}
	works("after-memory-was-short")
	require.Empty(t, in.replies, "what was not sent does not")

	// It ends in the middle of work, and comes back.
	old = in.address(t)
	require.NoError(t, node.Kill())
	require.Equal(t, old, receive(t, in.lost))
	_, err = in.Address()
	require.ErrorIs(t, err, reply.ErrDown)
	eventually(t, func() bool { return errors.Is(responder.Ready(), reply.ErrDown) })
	require.ErrorIs(t, responder.Respond(t.Context(), old, result("down")), reply.ErrDown)
	require.NoError(t, responder.Blocked(t.Context()), "nobody knows")

	// Who starts while it is away has to wait.
	soon, cancel := context.WithTimeout(t.Context(), blocked)
	defer cancel()
	_, err = amqp.NewResponder(soon, amqptest.Config(node.URL()))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	q, err := amqp.NewRequester(amqptest.Config(node.URL()))
	require.NoError(t, err)
	patient := make(chan error, 1)
	go func() {
		late, err := q.Listen(t.Context(), reply.Listener{})
		if err == nil {
			err = late.Close()
		}
		patient <- err
	}()
	require.NoError(t, node.Start(t.Context()))
	works("after-the-restart")
	require.NoError(t, receive(t, patient))
	require.ErrorIs(t, responder.Respond(t.Context(), old, result("late")), reply.ErrNoRequester)
	require.Empty(t, in.lost)
}

func TestAThousandRepliesAtOnceEachHaveTheirOwnOutcome(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	responder := amqptest.Responder(t, node.URL())
	const inboxes, replies = 10, 1000
	all := make([]*inbox, inboxes)
	for i := range all {
		all[i] = listen(t, amqptest.Config(node.URL()))
	}
	gone := listen(t, amqptest.Config(node.URL()))
	nobody := gone.address(t)
	require.NoError(t, gone.Close())

	var sending sync.WaitGroup
	for i := range replies {
		to := all[i%inboxes].address(t)
		sending.Go(func() {
			if err := responder.Respond(t.Context(), to, result(fmt.Sprint(i))); err != nil {
				t.Errorf("reply %d: %v", i, err)
			}
		})
		sending.Go(func() {
			if err := responder.Respond(t.Context(), nobody, result(fmt.Sprint(i))); !errors.Is(err, reply.ErrNoRequester) {
				t.Errorf("reply %d to nobody: %v", i, err)
			}
		})
	}
	for i, in := range all {
		var got, want []string
		for j := i; j < replies; j += inboxes {
			got, want = append(got, receive(t, in.replies)), append(want, fmt.Sprint(j))
		}
		require.ElementsMatch(t, want, got)
	}
	sending.Wait()
	require.Empty(t, gone.replies)
}

func TestARequesterThatIsSlowHoldsUpNobodyAndLosesNothing(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	responder, quick := amqptest.Responder(t, node.URL()), listen(t, amqptest.Config(node.URL()))
	q, err := amqp.NewRequester(amqptest.Config(node.URL()))
	require.NoError(t, err)
	const replies = 500
	proceed, got := make(chan struct{}), make(chan string, replies)
	slow, err := q.Listen(t.Context(), reply.Listener{Reply: func(r *events.Result) {
		<-proceed
		got <- r.CorrelationID
	}})
	require.NoError(t, err)
	to, err := slow.Address()
	require.NoError(t, err)
	for i := range replies {
		require.NoError(t, responder.Respond(t.Context(), to, result(fmt.Sprint(i))))
	}
	require.NoError(t, responder.Respond(t.Context(), quick.address(t), result("quick")))
	require.Equal(t, "quick", receive(t, quick.replies))
	require.Empty(t, got)
	close(proceed)
	for i := range replies {
		require.Equal(t, fmt.Sprint(i), receive(t, got), "in order")
	}
	require.NoError(t, slow.Close())
}

func TestARequesterThatIsStuckFillsNoMemory(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	network := amqptest.NewProxy(t, amqptest.Listen(t), node.Address())
	c := amqptest.Config(network.URL())
	c.QueueBytes = 1 << 20
	c.Heartbeat = time.Minute // it is not silence that is tried here, and a busy machine takes its time to fill the queue
	in, responder := listen(t, c), amqptest.Responder(t, node.URL())
	to := in.address(t)
	release := network.Hold()
	defer release()
	large := result("large")
	large.Problem.Detail = strings.Repeat("x", 500_000)
	var taken int
	var err error
	for ; err == nil && taken < 1000; taken++ {
		err = responder.Respond(t.Context(), to, large)
	}
	require.ErrorIs(t, err, amqp.ErrRefused)
	release()
	for range taken - 1 {
		require.Equal(t, "large", receive(t, in.replies), "what was taken arrives")
	}
	eventually(t, func() bool { return responder.Respond(t.Context(), to, result("small")) == nil })
}

func TestAPeerThatIsSilentIsTakenForDead(t *testing.T) {
	t.Parallel()
	network := amqptest.NewProxy(t, amqptest.Listen(t), rabbitmqtest.Shared(t).Address())
	c := amqptest.Config(network.URL())
	c.Heartbeat = time.Second // the shortest that there is
	in := listen(t, c)
	old := in.address(t)
	release := network.Hold()
	defer release()
	require.Equal(t, old, receive(t, in.lost))
	release()
	eventually(t, func() bool {
		a, err := in.Address()
		return err == nil && a != old
	})
}

func TestWhatIsInAReplyQueueAndIsNoResultIsDropped(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	var log bytes.Buffer
	c := amqptest.Config(node.URL())
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	in, responder := listen(t, c), amqptest.Responder(t, node.URL())
	to := in.address(t)

	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	hostile := []amqp091.Publishing{
		{},
		{Body: []byte("secret picture")},
		{Headers: amqp091.Table{"cloudEvents:specversion": "1.0"}},
		{Headers: amqp091.Table{"cloudEvents:specversion": int32(1), "cloudEvents:": "x", "cloudEvents:a\x00b": "y"}},
		{Body: make([]byte, events.MaxResultBytes+1)},
	}
	for _, m := range hostile {
		require.NoError(t, ch.Publish("", to, true, false, m))
	}
	require.NoError(t, ch.Close())
	require.NoError(t, responder.Respond(t.Context(), to, result("good")))
	require.Equal(t, "good", receive(t, in.replies))
	require.Empty(t, in.replies)
	require.NoError(t, in.Close()) // nothing is logged after it
	require.Equal(t, len(hostile), strings.Count(log.String(), "is no result"))
	require.NotContains(t, log.String(), "secret picture")
}

func TestCloseEndsWhatIsUnderWayWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	network := amqptest.NewProxy(t, amqptest.Listen(t), node.Address())
	in := listen(t, amqptest.Config(node.URL()))
	responder, err := amqp.NewResponder(t.Context(), amqptest.Config(network.URL()))
	require.NoError(t, err)
	release := network.Hold() // so that no confirmation comes
	defer release()
	to := in.address(t)
	underWay := make(chan error, 1)
	go func() { underWay <- responder.Respond(t.Context(), to, result("under-way")) }()
	require.Equal(t, "under-way", receive(t, in.replies))

	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, responder.Close(over), context.Canceled)
	require.ErrorIs(t, receive(t, underWay), amqp.ErrUnconfirmed)
	require.ErrorIs(t, responder.Respond(t.Context(), to, result("after")), reply.ErrDown)
	require.ErrorIs(t, responder.Ready(), reply.ErrDown)
	require.NoError(t, responder.Close(t.Context()), "closing twice is harmless")
}

func TestWhoIsNotWantedIsToldAtOnceAndThePasswordIsNotRepeated(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	for name, address := range map[string]string{
		"password": "amqp://guest:hunter2@" + node.Address() + "/",
		"vhost":    "amqp://guest:guest@" + node.Address() + "/hunter2-none",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := amqp.NewResponder(t.Context(), amqptest.Config(address))
			require.Error(t, err)
			require.NotContains(t, err.Error(), "guest:")
			q, err := amqp.NewRequester(amqptest.Config(address))
			require.NoError(t, err)
			_, err = q.Listen(t.Context(), reply.Listener{})
			require.ErrorContains(t, err, node.Address())
		})
	}
}

func TestAURLThatCannotWorkIsRefusedWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                       "amqp://",
		"http://u:hunter2@rabbit/":               "amqp://",
		"amqp://":                                "host",
		"amqp:///vhost":                          "host",
		"amqp://u:hunter2%@rabbit/":              "percent-encoding",
		"amqp://u:hunter2 @rabbit/":              "percent-encoding",
		"amqp://u:hunter2@rabbit:port/":          "percent-encoding",
		"amqp://u:hunter2@rabbit?heartbeat=soon": "heartbeat",
	} {
		_, err := amqp.NewRequester(amqp.Config{URL: address})
		require.ErrorContains(t, err, want, address)
		require.NotContains(t, err.Error(), "hunter2", address)
		_, err = amqp.NewResponder(t.Context(), amqp.Config{URL: address})
		require.ErrorContains(t, err, want, address)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	certificate, authority := selfSigned(t)
	network := amqptest.NewProxy(t, tls.NewListener(amqptest.Listen(t), &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}), node.Address())
	secure := strings.Replace(network.URL(), "amqp:", "amqps:", 1)

	trusted := secure + "?cacertfile=" + url.QueryEscape(authority)
	in, responder := listen(t, amqptest.Config(trusted)), amqptest.Responder(t, trusted)
	require.NoError(t, responder.Respond(t.Context(), in.address(t), result("secret")))
	require.Equal(t, "secret", receive(t, in.replies))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := amqptest.Config(secure)
	c.Logger = slog.New(slog.NewTextHandler(writerFunc(cancel), nil)) // the first attempt has failed when it is logged
	_, err := amqp.NewResponder(ctx, c)
	require.ErrorContains(t, err, "certificate")
}

// writerFunc is called with each write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// selfSigned makes a certificate for loopback and the file of its authority, which is itself.
func selfSigned(t *testing.T) (certificate tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
