package topology

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/trigger"
)

func TestDefinitionsAreWhatIsDeclared(t *testing.T) {
	t.Parallel()
	b := NewBroker("ebb", "ebb")
	triggers := []trigger.Trigger{
		{Namespace: "ebb", Name: "cat", Filter: map[string]string{"type": "asked", "model": "cat"}},
		{Namespace: "ebb", Name: "all"},
	}
	imported, declared := newServer(t), newServer(t)
	body, err := json.Marshal(NewDefinitions(b, triggers, Limits{}, "ebb", "s3cret"))
	require.NoError(t, err)
	again, err := json.Marshal(NewDefinitions(b, triggers, Limits{}, "ebb", "s3cret"))
	require.NoError(t, err)
	require.Equal(t, body, again)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, imported.ManagementURL+"/api/definitions", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Less(t, resp.StatusCode, http.StatusMultipleChoices)
	require.NoError(t, Declare(t.Context(), declared, b, triggers, Limits{}))
	for _, what := range []string{"exchanges", "queues", "bindings", "policies"} {
		require.ElementsMatch(t, exported(t, declared, what), exported(t, imported, what), what)
	}

	conn, err := amqp091.Dial(strings.Replace(imported.URL, "guest:guest", "ebb:s3cret", 1))
	require.NoError(t, err, "the user may come in")
	require.NoError(t, conn.Close())
	http.DefaultClient.CloseIdleConnections()
}

func newServer(t *testing.T) Server {
	t.Helper()
	node, err := rabbitmq.New(t.Context(), rabbitmq.Config{Management: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Remove()) })
	return Server{URL: node.URL(), ManagementURL: node.ManagementURL()}
}

// exported is what RabbitMQ says that it has.
func exported(t *testing.T, s Server, what string) []any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ManagementURL+"/api/definitions", http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	all := map[string]any{}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&all))
	require.NoError(t, resp.Body.Close())
	require.NotEmpty(t, all[what])
	return all[what].([]any)
}
