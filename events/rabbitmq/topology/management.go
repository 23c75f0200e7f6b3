package topology

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxAnswer bounds an answer of the management API.
const maxAnswer = 1 << 20

// management speaks to the HTTP API of RabbitMQ's management plugin, which has what AMQP has not: policies, and what a queue
// is bound to. It needs few calls of it, so that a client library would be larger than this.
type management struct {
	base   *url.URL // with user and password
	vhost  string
	client *http.Client
}

func newManagement(address, vhost string) (*management, error) {
	base, err := url.Parse(address)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, errors.New("the URL of RabbitMQ's management API is no http or https URL such as http://user:password@host:15672")
	}
	return &management{base: base, vhost: vhost, client: &http.Client{Transport: &http.Transport{}}}, nil
}

// putPolicy makes a policy, or changes the one of its name.
func (m *management) putPolicy(ctx context.Context, p policy) error {
	if err := m.call(ctx, http.MethodPut, p, nil, "policies", m.vhost, p.name); err != nil {
		return fmt.Errorf("policy %s: %w", p.name, err)
	}
	return nil
}

// binding is one between an exchange and a queue.
type binding struct {
	RoutingKey string         `json:"routing_key"`
	Arguments  map[string]any `json:"arguments"`
}

func (m *management) bindings(ctx context.Context, exchange, queue string) (all []binding, err error) {
	if err := m.call(ctx, http.MethodGet, nil, &all, "bindings", m.vhost, "e", exchange, "q", queue); err != nil {
		return nil, fmt.Errorf("bindings of %s: %w", queue, err)
	}
	return all, nil
}

func (m *management) call(ctx context.Context, method string, in, out any, path ...string) error {
	u := m.base.JoinPath("api")
	for _, p := range path {
		u = u.JoinPath(url.PathEscape(p))
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return errors.New("the URL of RabbitMQ's management API cannot be used") // the error repeats it
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := m.client.Do(req)
	if err != nil {
		var withURL *url.Error // which has the user
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return fmt.Errorf("RabbitMQ's management API: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("RabbitMQ's management API: %w", err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("RabbitMQ's management API answered %s: %.256s", resp.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}
