package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
)

// maxAnswer bounds what a server may answer.
const maxAnswer = 16 << 20

// client asks a modelsync by HTTP.
type client struct {
	base string
	http *http.Client
}

var _ modelsync = (*client)(nil)

func (c *client) States(ctx context.Context) ([]rollout.State, error) {
	var all service.Networks
	err := c.call(ctx, http.MethodGet, "", nil, &all)
	return all.Networks, err
}

func (c *client) State(ctx context.Context, name string) (s rollout.State, err error) {
	return s, c.call(ctx, http.MethodGet, "/"+url.PathEscape(name), nil, &s)
}

func (c *client) Look(ctx context.Context, name string) (rollout.Outcome, rollout.State, error) {
	var l service.Looked
	err := c.call(ctx, http.MethodPost, "/"+url.PathEscape(name)+"/look", nil, &l)
	return l.Outcome, l.State, err
}

func (c *client) Rollback(ctx context.Context, name string, to int64) (s rollout.State, err error) {
	command := map[string]int64{}
	if to != 0 {
		command["to"] = to
	}
	return s, c.call(ctx, http.MethodPost, "/"+url.PathEscape(name)+"/rollback", command, &s)
}

func (c *client) Allow(ctx context.Context, name string, version int64) (s rollout.State, err error) {
	return s, c.call(ctx, http.MethodPost, "/"+url.PathEscape(name)+"/allow", map[string]int64{"version": version}, &s)
}

// call makes a request and reads its answer into v.
func (c *client) call(ctx context.Context, method, path string, command, v any) error {
	var body []byte
	if command != nil {
		var err error
		if body, err = json.Marshal(command); err != nil {
			return err
		}
	}
	at := strings.TrimSuffix(c.base, "/") + service.Path + path
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("flag -url: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("modelsync is not reached (-url says where it is): %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		var p problem.Details
		if json.Unmarshal(answer, &p) == nil && p.Title != "" {
			return errors.New(p.Error())
		}
		return fmt.Errorf("%s answered %s", at, resp.Status)
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("%s answered what is no state; is it modelsync? %w", at, err)
	}
	return nil
}
