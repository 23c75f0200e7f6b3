// Command ingress takes pictures by HTTP, from people and programs, and answers what networks see on them.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/callback"
	"github.com/ebb-inference/ebb/functions/ingress/fetch"
	"github.com/ebb-inference/ebb/functions/ingress/gateway"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/wake"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/models"
)

// besideWaiting is how long reading a request and writing its answer may take, besides waiting for the answer.
const besideWaiting = 90 * time.Second

func main() { app.Main("ingress", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	known, err := c.models()
	if err != nil {
		return err
	}
	needs, err := c.needs(known)
	if err != nil {
		return err
	}
	waker := wake.New(needs, a.Logger)
	defer waker.Stop()
	o := app.ServeOptions{WriteTimeout: c.Timeout + besideWaiting}
	return a.Run(ctx, c.HTTP, o, func(ctx context.Context) (*app.Function, error) { return start(ctx, a, c, known, waker) })
}

// start waits for RabbitMQ.
func start(ctx context.Context, a *app.App, c config, known []*models.Model, waker *wake.Waker) (*app.Function, error) {
	rabbit := amqp.Config{URL: c.RabbitMQ, Name: "ingress/" + c.Replica, Logger: a.Logger}
	mailboxes, err := amqp.NewMailboxes(ctx, rabbit)
	if err != nil {
		return nil, fmt.Errorf("environment variable RABBITMQ_URL: %w", err)
	}
	replies, err := amqp.NewRequester(rabbit)
	if err != nil {
		return nil, errors.Join(err, mailboxes.Close(ctx))
	}
	service, err := ask.New(ask.Config{
		Models: known, Replies: replies, Mailboxes: mailboxes, BrokerURL: c.Broker, Blocked: mailboxes.Blocked, Wake: waker.Wake, Source: "/ebb/ingress/" + c.Replica,
		Caller:       callback.New(callback.Config{Allow: c.CallbackAllow}),
		PendingLimit: int(c.Pending), Timeout: c.Timeout, AsyncTimeout: c.AsyncTimeout, AsyncTTL: c.AsyncTTL, Logger: a.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, mailboxes.Close(ctx))
	}
	fetcher := fetch.New(fetch.Config{Allow: c.FetchAllow})
	health := app.NewHealth(service.Ready)
	handler := gateway.New(gateway.Config{
		Service: service, Fetcher: fetcher, Callbacks: callback.Handler(service, a.Logger), Health: health, Version: a.Version,
		Page:   page.New(page.Config{Asker: service, Fetcher: fetcher, Networks: c.networks(), MaxBytes: gateway.DefaultMaxBytes, SuggestedURL: page.ExampleURL, Logger: a.Logger}),
		Memory: int64(c.Memory) << 20, CORSOrigins: c.Origins, Logger: a.Logger,
	})
	return &app.Function{Handler: handler, Health: health, Stop: func(ctx context.Context) error {
		return errors.Join(service.Stop(ctx), mailboxes.Close(ctx)) // what is being asked may need its mailbox
	}}, nil
}
