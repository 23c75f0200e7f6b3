package events_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

func TestAModelChangeIsACloudEvent(t *testing.T) {
	t.Parallel()
	c := &events.ModelChange{
		ID: "a", Source: "/ebb/modelsync/r1", Time: time.Unix(1700000000, 0), What: "shifted", Network: "net",
		Data: events.ModelChangeData{Network: "net", Models: []string{"cat"}, Version: 2, Percent: 10},
	}
	req, err := events.NewHTTPModelChange(t.Context(), "http://broker.test/", c)
	require.NoError(t, err)
	ev, err := events.ReadHTTPAttributes(req.Header)
	require.NoError(t, err)
	require.Equal(t, "dev.ebb.model.shifted.v1", ev.Type())
	require.Equal(t, "net", ev.Subject())
	require.Equal(t, "/ebb/modelsync/r1", ev.Source())
	body, err := io.ReadAll(req.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"network": "net", "models": ["cat"], "version": 2, "percent": 10}`, string(body))

	c.Source = ""
	_, err = events.NewHTTPModelChange(t.Context(), "http://broker.test/", c)
	require.ErrorContains(t, err, "model event")
}
