// Command dispatch answers the request events of one model.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

type config struct {
	app.HTTP
	Model    string `env:"MODEL, default=/etc/ebb/model/model.yaml"` // the model's definition, with its labels beside it
	Serving  string `env:"SERVING_ADDRESS"`                          // of the model server; empty: the definition's
	RabbitMQ string `env:"RABBITMQ_URL, required"`                   // where requesters have their reply queues
	Replica  string `env:"POD_NAME"`                                 // which replica this is; empty: the host's name
}

func main() { app.Main("dispatch", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	model, err := models.ReadFile(c.Model)
	if err != nil {
		return fmt.Errorf("environment variable MODEL: %w", err)
	}
	if c.Serving != "" {
		model.Serving.Address = c.Serving
	}
	client, err := tfserving.Dial(model.Serving.Address) // which waits for nobody
	if err != nil {
		return fmt.Errorf("environment variable SERVING_ADDRESS, or the model's serving.address: %w", err)
	}
	// First of all, so that a model server at zero starts while this does what it needs RabbitMQ for.
	rousing, enough := context.WithCancel(ctx)
	var roused sync.WaitGroup
	roused.Go(func() { worker.Rouse(rousing, model, client, a.Logger) })
	ran := a.Run(ctx, c.HTTP, app.ServeOptions{}, func(ctx context.Context) (*app.Function, error) { return start(ctx, a, c, model, client) })
	enough()
	roused.Wait()
	return errors.Join(ran, client.Close())
}

// start waits for RabbitMQ, and not for the model server: deliveries are held until it is there.
func start(ctx context.Context, a *app.App, c config, model *models.Model, server worker.Predictor) (*app.Function, error) {
	responder, err := amqp.NewResponder(ctx, amqp.Config{URL: c.RabbitMQ, Name: "dispatch/" + model.Name + "/" + c.Replica, Logger: a.Logger})
	if err != nil {
		return nil, fmt.Errorf("environment variable RABBITMQ_URL: %w", err)
	}
	w, err := worker.New(worker.Config{Model: model, Predictor: server, Responder: responder, Replica: c.Replica, Logger: a.Logger})
	if err != nil {
		return nil, errors.Join(err, responder.Close(ctx))
	}
	health := app.NewHealth(func() error { return errors.Join(responder.Ready(), w.Ready()) })
	mux := http.NewServeMux()
	mux.Handle("/{$}", w)
	mux.Handle("/health/", health)
	return &app.Function{Handler: mux, Health: health, Stop: func(ctx context.Context) error {
		return errors.Join(w.Stop(ctx), responder.Close(ctx)) // what is answered is sent
	}}, nil
}
