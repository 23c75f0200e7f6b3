package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/networks"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/wake"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/models"
)

type config struct {
	app.HTTP
	Broker        string         `env:"BROKER_URL"`                      // where events are published
	Sink          string         `env:"K_SINK"`                          // what a SinkBinding says instead
	WakeURL       string         `env:"WAKE_URL"`                        // of each {model}, asked when a question is on its way; empty: it is not
	WakeServers   bool           `env:"WAKE_SERVERS"`                    // whether the models' servers are asked then, too
	RabbitMQ      string         `env:"RABBITMQ_URL, required"`          // where the reply queue and mailboxes are
	Models        []string       `env:"MODELS, default=/etc/ebb/models"` // folders of models; later ones replace models
	Replica       string         `env:"POD_NAME"`                        // which replica this is; empty: the host's name
	FetchAllow    []netip.Prefix `env:"FETCH_ALLOW"`                     // networks that pictures by address may come from though they are not public
	CallbackAllow []netip.Prefix `env:"CALLBACK_ALLOW"`                  // networks that may be called back though they are not public
	ModelSync     string         `env:"MODELSYNC_URL"`                   // where modelsync is, for the page about networks; empty: there is none
	Origins       []string       `env:"CORS_ORIGINS"`                    // whose pages may call the API, or *
	Pending       uint16         `env:"PENDING_LIMIT, default=1024"`     // most events that wait for their answer
	Memory        uint16         `env:"MEMORY_MIB, default=256"`         // that the bodies of all requests may take
	Timeout       time.Duration  `env:"TIMEOUT, default=30s"`            // the longest that a request waits for its answer
	AsyncTimeout  time.Duration  `env:"ASYNC_TIMEOUT, default=15m"`      // and one whose caller does not wait
	AsyncTTL      time.Duration  `env:"ASYNC_TTL, default=1h"`           // for how long its answer can be collected
}

// check fills in what follows from the rest, and says what cannot work.
func (c *config) check() error {
	c.Broker = cmp.Or(c.Broker, c.Sink)
	switch {
	case c.Broker == "":
		return errors.New("environment variable BROKER_URL is not set, and has to be; K_SINK would do as well")
	case c.Timeout <= 0:
		return fmt.Errorf("environment variable TIMEOUT is %v; want more than nothing", c.Timeout)
	case c.AsyncTimeout <= 0 || c.AsyncTimeout >= c.AsyncTTL:
		return fmt.Errorf("environment variable ASYNC_TIMEOUT is %v; want more than nothing and less than ASYNC_TTL, which is %v", c.AsyncTimeout, c.AsyncTTL)
	}
	if err := ask.CheckBrokerURL(c.Broker); err != nil {
		return fmt.Errorf("environment variable BROKER_URL: %w", err)
	}
	if c.ModelSync != "" {
		if err := ask.CheckBrokerURL(c.ModelSync); err != nil {
			return fmt.Errorf("environment variable MODELSYNC_URL: %w", err)
		}
	}
	if c.Replica == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("environment variable POD_NAME is not set, and the host has no name: %w", err)
		}
		c.Replica = host
	}
	return nil
}

// networks is who knows how networks do, nil when there is nobody.
func (c *config) networks() page.Networks {
	if c.ModelSync == "" {
		return nil
	}
	return networks.New(c.ModelSync)
}

// needs is what a request to each model needs to be awake.
func (c *config) needs(known []*models.Model) (map[string][]wake.Target, error) {
	needs := make(map[string][]wake.Target, len(known))
	for _, m := range known {
		if c.WakeURL != "" {
			t, err := wake.Route(c.WakeURL, m.Name)
			if err != nil {
				return nil, fmt.Errorf("environment variable WAKE_URL, for the model %s: %w", m.Name, err)
			}
			needs[m.Name] = append(needs[m.Name], t)
		}
		if c.WakeServers {
			needs[m.Name] = append(needs[m.Name], wake.Server(m))
		}
	}
	return needs, nil
}

// models reads the models that can be asked.
func (c *config) models() ([]*models.Model, error) {
	all, err := models.ReadFolders(c.Models...)
	switch {
	case err != nil:
		return nil, fmt.Errorf("environment variable MODELS: %w", err)
	case len(all) == 0:
		return nil, fmt.Errorf("environment variable MODELS: no model in %s: a model is a ConfigMap with the label %s, or a file %s",
			strings.Join(c.Models, ", "), models.ManifestLabel, models.ManifestKey)
	}
	return all, nil
}
