package manifests

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	topologyoperator "github.com/rabbitmq/messaging-topology-operator/api/v1beta1"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/trigger"
)

// The controller's policy and the manifest's are both there, as in a cluster, and RabbitMQ itself says what comes of them.
func TestTheLimitsBoundTriggersQueuesAndLeaveTheirDeadLettersAlone(t *testing.T) {
	t.Parallel()
	objects, err := ReadFiles(t.Context(), folder+"/210-limits.yaml")
	require.NoError(t, err)
	limits := objects[0].(*topologyoperator.OperatorPolicy).Spec
	node, err := rabbitmq.New(t.Context(), rabbitmq.Config{Management: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Remove()) })
	broker := topology.NewBroker(namespace, "ebb")
	names := broker.Trigger(trigger.Trigger{Namespace: namespace, Name: "cat"})
	mailbox := reply.MailboxAddress("01a2031a-0777-77e1-a64c-c54e5d628638")

	var definition map[string]any
	require.NoError(t, json.Unmarshal(limits.Definition.Raw, &definition))
	put := func(path string, policy map[string]any) int {
		t.Helper()
		body, err := json.Marshal(policy)
		require.NoError(t, err)
		return call(t, http.MethodPut, node.ManagementURL()+"/api/"+path, body, nil)
	}
	operator := func(definition map[string]any) map[string]any {
		return map[string]any{"pattern": limits.Pattern, "priority": limits.Priority, "apply-to": limits.ApplyTo, "definition": definition}
	}
	require.Equal(t, http.StatusBadRequest, put("operator-policies/%2F/refused", operator(map[string]any{"overflow": "reject-publish"})),
		"if RabbitMQ takes this, the manifest can say it")
	few := map[string]any{}
	for key, value := range definition {
		few[key] = value
	}
	few["max-length"] = float64(1)
	require.Equal(t, http.StatusCreated, put("operator-policies/%2F/"+limits.Name, operator(few)))
	require.Equal(t, http.StatusCreated, put("policies/%2F/controllers", map[string]any{
		"pattern": "^" + names.Queue + "$", "priority": 1, "apply-to": "queues",
		"definition": map[string]any{"dead-letter-exchange": names.DeadLetterExchange},
	}))

	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDeclare(names.DeadLetterExchange, amqp091.ExchangeHeaders, true, false, false, false, nil))
	for _, queue := range []string{names.Queue, names.DeadLetterQueue, mailbox} {
		_, err = ch.QueueDeclare(queue, true, false, false, false, amqp091.Table{amqp091.QueueTypeArg: amqp091.QueueTypeQuorum})
		require.NoError(t, err)
	}
	require.NoError(t, ch.QueueBind(names.DeadLetterQueue, "", names.DeadLetterExchange, false, amqp091.Table{"x-match": "all"}))

	effective := func(queue string) map[string]any {
		t.Helper()
		var q struct {
			Effective map[string]any `json:"effective_policy_definition"`
		}
		require.Equal(t, http.StatusOK, call(t, http.MethodGet, node.ManagementURL()+"/api/queues/%2F/"+queue, nil, &q))
		return q.Effective
	}
	merged := map[string]any{"dead-letter-exchange": names.DeadLetterExchange}
	for key, value := range few {
		merged[key] = value
	}
	// The management plugin collects this now and then.
	require.Eventually(t, func() bool { return reflect.DeepEqual(merged, effective(names.Queue)) }, time.Minute, 50*time.Millisecond)
	require.Empty(t, effective(names.DeadLetterQueue))
	require.Empty(t, effective(mailbox))

	require.NoError(t, ch.Confirm(false))
	for _, body := range []string{"first", "second", "third", "fourth"} {
		c, err := ch.PublishWithDeferredConfirm("", names.Queue, false, false, amqp091.Publishing{Body: []byte(body)})
		require.NoError(t, err)
		stored, err := c.WaitContext(t.Context())
		require.NoError(t, err)
		require.True(t, stored)
	}
	require.Eventually(t, func() bool {
		d, ok, err := ch.Get(names.DeadLetterQueue, true)
		return err == nil && ok && string(d.Body) == "first"
	}, time.Minute, 20*time.Millisecond, "what was there first is a dead letter")
}

func call(t *testing.T, method, url string, body []byte, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	if out != nil {
		require.NoError(t, json.Unmarshal(answer, out))
	}
	return resp.StatusCode
}
