//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/reply/amqp"
	inference "github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/load"
)

const parkingPlace = amqp.ParkingQueue

// losesNoRequestWithAPod: while requests come in, a pod of each kind ends from one moment to the next.
func losesNoRequestWithAPod(t *testing.T) {
	for _, kind := range []struct{ what, pods string }{
		{"ingress", "ingress-0"},
		{"dispatch", "dispatch-cat-0"},
		{"the model server", "inception-v3-0"},
		{"the Broker's ingress", "ebb-broker-ingress-"},
		{"a Trigger's dispatcher", "cat-dispatcher-"},
	} {
		t.Run(kind.what, func(t *testing.T) {
			account := under(t, kind.what, catsAndDogs, func(ctx context.Context) error { return deleteByForce(ctx, kind.pods) })
			require.NotZero(t, account.Answered)
			require.Zero(t, account.Told, "nothing became a dead letter")
			require.Zero(t, account.Problems[inference.CodeNoAnswerInTime], "what was published is answered")
			measured(kind.what+" deleted by force under load", "%s", became(account))
		})
	}
}

// deleteByForce deletes a pod without telling it, as soon as one runs whose name begins so.
func deleteByForce(ctx context.Context, prefix string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		out, err := run(ctx, nil, "kubectl", "-n", namespace, "get", "pods", "-o", "json")
		if err != nil {
			return err
		}
		var pods struct{ Items []object }
		if err := json.Unmarshal(out, &pods); err != nil {
			return err
		}
		for _, p := range pods.Items {
			if strings.HasPrefix(p.Metadata.Name, prefix) && p.Metadata.DeletionTimestamp == nil && p.condition("Ready") == "" {
				_, err := run(ctx, nil, "kubectl", "-n", namespace, "delete", "pod", p.Metadata.Name, "--force", "--grace-period=0")
				return err
			}
		}
		if err := pause(ctx, interval); err != nil {
			return err
		}
	}
	return fmt.Errorf("no pod %s… is ready", prefix)
}

// losesNoDeadLetter has a Trigger deliver to where nobody is, so that everything asked becomes a dead letter, and ends the pod
// that sees to them.
func losesNoDeadLetter(t *testing.T) {
	const trigger = "imagenet"
	patch := func(uri string) {
		kubectl(t, "-n", namespace, "patch", "trigger", trigger, "--type", "merge", "-p", `{"spec":{"subscriber":{"uri":`+uri+`}}}`)
		rollOut(t, "deployment/"+trigger+"-dispatcher")
	}
	patch(`"/nowhere"`)
	defer patch("null")
	before := len(parked(t, trigger))
	account := under(t, "deadletter", func(n int) (load.Question, error) { return question(n, trigger) }, func(ctx context.Context) error {
		return deleteByForce(ctx, "deadletter-0")
	})
	require.Zero(t, account.Answered)
	require.Equal(t, account.Accepted, account.Told, "everybody is told")
	require.Zero(t, account.Problems[inference.CodeNoAnswerInTime], "in time")
	letters := parked(t, trigger)
	require.Len(t, letters, before+account.Told+account.Problems["gave-up"], "each is kept")

	patch("null")
	broker := forward(t, "svc/ebb-broker-ingress", "80")
	command(t, nil, "env", "BROKER_URL=http://"+broker, "go", "run", "./hack/deadletters", "replay", "-model", trigger)
	require.Empty(t, parked(t, trigger), "once the Trigger is mended, each is answered when it is replayed")
	measured("deadletter deleted by force under load", "%d dead letters, each told (%d at once, %d later), kept, and answered when replayed",
		len(letters)-before, account.Failed(), account.Told)
}

// forward makes a port of a Service's reachable from here, for the rest of the test, and says at which address.
func forward(t *testing.T, to, port string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kubectl", "-n", namespace, "port-forward", to, ":"+port)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // it was ended with the test's context
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	found := forwarding.FindStringSubmatch(line)
	require.NotNil(t, found, line)
	return found[1]
}

// forwarding is what kubectl says first.
var forwarding = regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:\d+) -> `)

// rollOut waits until the pods of a Deployment are those that it wants now.
func rollOut(t *testing.T, deployment string) {
	t.Helper()
	eventually(t, func() string { return notReady(t) })
	kubectl(t, "-n", namespace, "rollout", "status", deployment, "--timeout", patience.String())
}

// parked are the dead letters of a model that wait for an operator.
func parked(t *testing.T, model string) (ids []string) {
	t.Helper()
	var letters []struct{ ID, Model string }
	require.NoError(t, json.Unmarshal(command(t, nil, "go", "run", "./hack/deadletters", "list", "-json"), &letters))
	for _, l := range letters {
		if l.Model == model {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// losesNoRequestWithRabbitMQ restarts RabbitMQ, by commands that only who has it knows.
func losesNoRequestWithRabbitMQ(t *testing.T) {
	stop, start := os.Getenv("EBB_RABBITMQ_STOP"), os.Getenv("EBB_RABBITMQ_START")
	if stop == "" || start == "" {
		t.Skip("EBB_RABBITMQ_STOP and EBB_RABBITMQ_START are the commands that end RabbitMQ and start it again with its data, such as `kubectl -n ebb delete pod rabbitmq-server-0 --force --grace-period=0` and `kubectl -n ebb wait pod/rabbitmq-server-0 --for=condition=Ready --timeout=5m`")
	}
	var back time.Duration // from its start to an answer
	account := under(t, "RabbitMQ", catsAndDogs, func(ctx context.Context) error {
		if _, err := run(ctx, nil, "bash", "-c", stop); err != nil {
			return err
		}
		if _, err := run(ctx, nil, "bash", "-c", start); err != nil {
			return err
		}
		began := time.Now()
		err := untilAnswered(ctx, t)
		back = time.Since(began)
		return err
	})
	require.NotZero(t, account.Answered)
	require.Zero(t, account.Told, "nothing became a dead letter")
	eventually(t, func() string { return notReady(t) })
	measured("RabbitMQ restarted under load", "answers %.0f s after it is back; %s", back.Seconds(), became(account))
}

// untilAnswered asks until there is an answer.
func untilAnswered(ctx context.Context, t *testing.T) error {
	for end := time.Now().Add(patience); ; {
		_, _, err := ask(t, address(t), "cat", "chelsea.png", true)
		if err == nil || time.Now().After(end) {
			return err
		}
		if err := pause(ctx, interval); err != nil {
			return err
		}
	}
}
