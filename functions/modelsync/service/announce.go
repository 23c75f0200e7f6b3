package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models"
)

// sendTimeout bounds how long a broker that is away may hold up a roll-out.
const sendTimeout = 3 * time.Second

// Announcer tells a broker what happens to networks. What it cannot tell it writes to the log: nothing depends on it, and the
// states know it all.
type Announcer struct {
	BrokerURL string // empty: nobody is told
	Client    *http.Client
	Source    string // of the events, "/ebb/modelsync/<replica>"
	Logger    *slog.Logger
}

// For is what a network's rollout.Config has as Notify.
func (a *Announcer) For(n *models.Network) func(context.Context, rollout.Entry) {
	names := make([]string, len(n.Models))
	for i, m := range n.Models {
		names[i] = m.Name
	}
	return func(ctx context.Context, e rollout.Entry) {
		if a.BrokerURL == "" {
			return
		}
		change := &events.ModelChange{
			ID: uuid.NewString(), Source: a.Source, Time: e.Time, What: string(e.Event), Network: n.Name,
			Data: events.ModelChangeData{Network: n.Name, Models: names, Version: e.Version, Percent: e.Percent, Reason: e.Reason},
		}
		if err := a.send(ctx, change); err != nil {
			a.Logger.WarnContext(ctx, "an event was not sent", "event_id", change.ID, "type", change.Type(), "network", n.Name, "error", err)
		}
	}
}

func (a *Announcer) send(ctx context.Context, change *events.ModelChange) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	req, err := events.NewHTTPModelChange(ctx, a.BrokerURL, change)
	if err != nil {
		return err
	}
	resp, err := a.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again; failing costs only that
		_ = resp.Body.Close()                        // nothing was written that closing could lose
	}()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the broker answered %s", resp.Status)
	}
	return nil
}
