package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/models"
)

var composeTemplate = template.Must(template.ParseFS(templates, "templates/compose.yaml"))

// Where things are in Compose's network. The user is for RabbitMQ there, which nobody else reaches.
const (
	brokerName      = "ebb"
	composeUser     = "ebb"
	composePassword = "ebb"
	composeRabbitMQ = "amqp://" + composeUser + ":" + composePassword + "@rabbitmq:5672"
	composePort     = ":8080"
)

type composeData struct {
	Namespace, Broker, Exchange string
	RabbitMQ                    string // its URL, without a virtual host
	Attempts                    string
	Models                      []string
	Dispatchers                 []dispatcher
}

// dispatcher is Knative's program for the queue of a Trigger, or for that of its dead letters.
type dispatcher struct {
	trigger.Delivery
	Service            string
	Queue              string
	Subscriber         string
	DeadLetterExchange string // "" for dead letters, which are not given up
}

// compose returns what the generated files for Docker Compose should be: for the models in compose/models, and for every
// Trigger of the manifests that is no other model's.
func compose(config string, manifests map[string]string) (map[string]string, error) {
	known, err := models.ReadFolders(filepath.Join(config, "compose", "models"))
	if err != nil {
		return nil, err
	}
	broker := topology.NewBroker(namespace, brokerName)
	data := composeData{Namespace: namespace, Broker: brokerName, Exchange: broker.Exchange(), RabbitMQ: composeRabbitMQ}
	callbacks, err := os.ReadFile(filepath.Join(config, "500-callbacks.yaml"))
	if err != nil {
		return nil, err
	}
	texts := []string{string(callbacks)}
	var tried []string
	for _, m := range known {
		text, ok := manifests["models/"+m.Name+".yaml"]
		if !ok {
			return nil, fmt.Errorf("compose/models has the model %s, for which config/models has no Trigger", m.Name)
		}
		texts = append(texts, text)
		data.Models = append(data.Models, m.Name)
		tried = append(tried, fmt.Sprintf("%s:%d", m.Name, retry+1))
	}
	data.Attempts = strings.Join(tried, ",")
	var triggers []trigger.Trigger
	for _, text := range texts {
		found, err := trigger.Parse(strings.NewReader(text), "config")
		if err != nil {
			return nil, err
		}
		triggers = append(triggers, found...)
	}
	for _, t := range triggers {
		both, err := dispatchers(broker, t)
		if err != nil {
			return nil, err
		}
		data.Dispatchers = append(data.Dispatchers, both...)
	}
	definitions, err := json.MarshalIndent(topology.NewDefinitions(broker, triggers, topology.Limits{}, composeUser, composePassword), "", "  ")
	if err != nil {
		return nil, err
	}
	var made strings.Builder
	if err := composeTemplate.Execute(&made, data); err != nil {
		return nil, err
	}
	return map[string]string{"compose/compose.yaml": made.String(), "compose/definitions.json": string(definitions) + "\n"}, nil
}

func dispatchers(b topology.Broker, t trigger.Trigger) ([]dispatcher, error) {
	if t.Subscriber.Name == "" || t.Delivery.DeadLetter.Name == "" {
		return nil, errors.New("the Trigger " + t.String() + " delivers to an address, which Compose's network may not have")
	}
	names := b.Trigger(t)
	return []dispatcher{{
		Delivery: t.Delivery, Service: "dispatcher-" + t.Name, Queue: names.Queue,
		Subscriber: composeURL(t.Subscriber), DeadLetterExchange: names.DeadLetterExchange,
	}, {
		Delivery: t.Delivery, Service: "dispatcher-" + t.Name + "-deadletters", Queue: names.DeadLetterQueue,
		Subscriber: composeURL(*t.Delivery.DeadLetter),
	}}, nil
}

func composeURL(d trigger.Destination) string {
	path := d.Path
	if path == "" {
		path = "/"
	}
	return "http://" + d.Name + composePort + path
}
