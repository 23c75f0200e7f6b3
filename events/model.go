package events

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// What happens to a network whose versions come from a source, as types of events whose subject is the network. No Trigger of
// Ebb's selects them; they are for whoever wants to know.
const (
	typeModelPrefix = "dev.ebb.model."
	typeModelSuffix = ".v1"

	// TypeModelLook asks for a look whether there are newer versions. It is sent to modelsync, which sends the others.
	TypeModelLook = typeModelPrefix + "look" + typeModelSuffix
	// TypePing is what a PingSource of Knative's sends. To modelsync it means the same.
	TypePing = "dev.knative.sources.ping"
)

// ModelChange is one thing that happened to a network.
type ModelChange struct {
	ID      string    // UUID
	Source  string    // "/ebb/modelsync/<replica>"
	Time    time.Time // when it happened
	What    string    // "found", "staged", "shifted", "serving", "refused", "returned", "allowed"
	Network string
	Data    ModelChangeData
}

// ModelChangeData is the data of the event, as JSON.
type ModelChangeData struct {
	Network string   `json:"network"`
	Models  []string `json:"models"`
	Version int64    `json:"version"`
	Percent int      `json:"percent,omitempty"` // of the traffic, when it was shifted
	Reason  string   `json:"reason,omitempty"`
}

// Type is the event's type, "dev.ebb.model.serving.v1".
func (c *ModelChange) Type() string { return typeModelPrefix + c.What + typeModelSuffix }

// NewHTTPModelChange writes c as a CloudEvent in HTTP binary mode: a POST to url.
func NewHTTPModelChange(ctx context.Context, url string, c *ModelChange) (*http.Request, error) {
	data, err := json.Marshal(c.Data)
	if err != nil {
		return nil, fmt.Errorf("model event: %w", err)
	}
	ev := newEvent(c.Type(), c.ID, c.Source, c.Time)
	ev.SetSubject(c.Network)
	ev.SetDataContentType("application/json")
	ev.DataEncoded = data
	if err := ev.Validate(); err != nil {
		return nil, fmt.Errorf("model event: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("model event: %w", err)
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(&ev), req); err != nil {
		return nil, fmt.Errorf("model event: %w", err)
	}
	return req, nil
}
