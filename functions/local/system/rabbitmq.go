package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/dataplane"
)

// RabbitMQ is which RabbitMQ is used and where the data plane's programs are.
type RabbitMQ struct {
	topology.Server                 // one that runs; empty: a private node
	Folder          string          // of a private node, in which what is durable stays, and of a file that tells tools how to reach it
	Programs        string          // folder of Knative's broker ingress and dispatcher
	Limits          topology.Limits // of the Triggers' queues
}

// startNode starts a private node, and again should it end, unless there is a RabbitMQ to use.
func (s *System) startNode(ctx context.Context, c *RabbitMQ) error {
	if c.URL != "" {
		return nil
	}
	s.log.Info("starting RabbitMQ", "folder", c.Folder)
	node, err := rabbitmq.New(ctx, rabbitmq.Config{Folder: c.Folder, Management: true})
	if err != nil {
		return err
	}
	keeper := rabbitmq.Keep(node, s.log)
	s.started("RabbitMQ", func(context.Context) error { return keeper.Close() }) // which has its own deadline
	c.Server = topology.Server{URL: node.URL(), ManagementURL: node.ManagementURL()}
	return nil
}

// startAMQP makes reply queues, mailboxes and a parking place over RabbitMQ.
func (s *System) startAMQP(ctx context.Context, c *RabbitMQ) (replies, error) {
	requester, err := amqp.NewRequester(amqp.Config{URL: c.URL, Name: "ingress/" + replica, Logger: s.log})
	if err != nil {
		return replies{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	responder, err := amqp.NewResponder(ctx, amqp.Config{URL: c.URL, Name: "dispatch/" + replica, Logger: s.log})
	if err != nil {
		return replies{}, err
	}
	s.started("replies", responder.Close)
	mailboxes, err := amqp.NewMailboxes(ctx, amqp.Config{URL: c.URL, Name: "mailboxes/" + replica, Logger: s.log})
	if err != nil {
		return replies{}, err
	}
	s.started("mailboxes", mailboxes.Close)
	place, err := amqp.NewParking(ctx, amqp.Config{URL: c.URL, Name: "deadletter/" + replica, Logger: s.log})
	if err != nil {
		return replies{}, err
	}
	s.started("parking place", place.Close)
	return replies{Requester: requester, Responder: responder, Mailboxes: mailboxes, parking: place, blocked: mailboxes.Blocked}, nil
}

// startDataPlane starts Knative's data plane for the Broker that the Triggers name.
func (s *System) startDataPlane(ctx context.Context, c Config, m manifests) (*dataplane.DataPlane, error) {
	namespace, name, err := oneBroker(m.triggers)
	if err != nil {
		return nil, err
	}
	s.log.Info("starting Knative's data plane", "broker", namespace+"/"+name)
	d, err := dataplane.New(ctx, dataplane.Config{
		Programs: c.RabbitMQ.Programs, Server: c.RabbitMQ.Server, Broker: topology.NewBroker(namespace, name),
		Limits: c.RabbitMQ.Limits, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.started("data plane", d.Stop)
	return d, s.tellTools(c.RabbitMQ, d.URL())
}

// environmentFile is where tools read how to reach what runs here, as lines of NAME=value.
const environmentFile = "env"

// tellTools writes the environmentFile, for as long as everything runs. There is a password in it.
func (s *System) tellTools(c *RabbitMQ, brokerURL string) error {
	if err := os.MkdirAll(c.Folder, 0o700); err != nil {
		return err
	}
	file := filepath.Join(c.Folder, environmentFile)
	content := fmt.Sprintf("RABBITMQ_URL=%s\nRABBITMQ_MANAGEMENT_URL=%s\nBROKER_URL=%s\n", c.URL, c.ManagementURL, brokerURL)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		return err
	}
	s.started("file for tools", func(context.Context) error { return os.Remove(file) })
	return nil
}

// oneBroker is the Broker that all Triggers name.
func oneBroker(triggers []trigger.Trigger) (namespace, name string, err error) {
	if len(triggers) == 0 {
		return "", "", errors.New("no Trigger, and so no Broker")
	}
	first := triggers[0]
	for _, t := range triggers[1:] {
		if t.Namespace != first.Namespace || t.Broker != first.Broker {
			return "", "", fmt.Errorf("the Triggers %s and %s name the Brokers %s/%s and %s/%s; one data plane serves one Broker",
				first, t, first.Namespace, first.Broker, t.Namespace, t.Broker)
		}
	}
	return first.Namespace, first.Broker, nil
}
