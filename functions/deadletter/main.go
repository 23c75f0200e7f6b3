// Command deadletter receives what Triggers gave up on, tells who asked, and parks it for an operator.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/functions/deadletter/sink"
	"github.com/ebb-inference/ebb/functions/internal/app"
)

type config struct {
	app.HTTP
	RabbitMQ string `env:"RABBITMQ_URL, required"` // where requesters have their reply queues
	Replica  string `env:"POD_NAME"`               // which replica this is; empty: the host's name
	// How often a model's Trigger has an event tried, once more than it retries, as cat:6,dog:6. Who asked is told, and of a
	// model that is not here they are not.
	Attempts map[string]int `env:"ATTEMPTS"`
}

func main() { app.Main("deadletter", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	return a.Run(ctx, c.HTTP, app.ServeOptions{}, func(ctx context.Context) (*app.Function, error) { return start(ctx, a, c) })
}

// start waits for RabbitMQ.
func start(ctx context.Context, a *app.App, c config) (*app.Function, error) {
	responder, err := amqp.NewResponder(ctx, amqp.Config{URL: c.RabbitMQ, Name: "deadletter/" + c.Replica, Logger: a.Logger})
	if err != nil {
		return nil, fmt.Errorf("environment variable RABBITMQ_URL: %w", err)
	}
	place, err := amqp.NewParking(ctx, amqp.Config{URL: c.RabbitMQ, Name: "deadletter/" + c.Replica, Logger: a.Logger})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("environment variable RABBITMQ_URL: %w", err), responder.Close(ctx))
	}
	letters, err := sink.New(sink.Config{Responder: responder, Parking: place, Attempts: c.Attempts, Replica: c.Replica, Logger: a.Logger})
	if err != nil {
		return nil, errors.Join(err, responder.Close(ctx), place.Close(ctx))
	}
	health := app.NewHealth(func() error { return errors.Join(responder.Ready(), place.Ready()) })
	mux := http.NewServeMux()
	mux.Handle("/{$}", letters)
	mux.Handle("/health/", health)
	return &app.Function{Handler: mux, Health: health, Stop: func(ctx context.Context) error {
		return errors.Join(responder.Close(ctx), place.Close(ctx))
	}}, nil
}
