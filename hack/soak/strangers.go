package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/mirror"
)

const (
	strangersPause = 100 * time.Millisecond
	requestTimeout = time.Minute
	maxAnswer      = 64 << 10
)

// strangers ask, one request at a time, what the steady load does not: two models in one question, and about what is no
// picture, or is called wrongly.
type strangers struct {
	url    string
	client *http.Client
	next   int // number of the next picture

	asked, answered, refused, away int
	faults                         []error
}

func newStrangers(url string, first int) *strangers {
	return &strangers{
		url: url, next: first,
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestTimeout},
	}
}

// ask asks until ctx ends.
func (s *strangers) ask(ctx context.Context) {
	for pause(ctx, strangersPause) == nil {
		number := s.next
		s.next++
		s.asked++
		picture, err := mirror.Picture(number)
		if err != nil {
			s.faults = append(s.faults, err)
			return
		}
		hostile := []struct {
			name, query string
			body        []byte
		}{
			{"no picture", mirror.Plain, []byte("this is no picture")},
			{"nothing", mirror.Plain, nil},
			{"half a picture", mirror.Plain, picture[:len(picture)/2]},
			{"no such model", "nobody", picture},
			{"a picture without end", mirror.Plain, bomb(picture)},
		}
		if i := number % (2 * len(hostile)); i < len(hostile) {
			s.refuse(ctx, hostile[i].name, hostile[i].query, hostile[i].body)
			continue
		}
		s.askAll(ctx, number, picture)
	}
}

// bomb is a picture that says of itself to be 2³¹−1 pixels wide.
func bomb(picture []byte) []byte {
	const width = 16 // offset in a PNG
	huge := bytes.Clone(picture)
	copy(huge[width:], []byte{0x7f, 0xff, 0xff, 0xff})
	return huge
}

// refuse asks what is to be answered with a clear 4xx.
func (s *strangers) refuse(ctx context.Context, name, models string, body []byte) {
	status, answer, err := s.post(ctx, models, body)
	switch {
	case err != nil || status >= 500: // who would have refused is away
		s.away++
	case status >= 400 && isClear(answer, status):
		s.refused++
	default:
		s.faults = append(s.faults, fmt.Errorf("%s: status %d: %s", name, status, answer))
	}
}

// isClear says whether an answer says what was wrong.
func isClear(answer []byte, status int) bool {
	var p problem.Details
	if json.Unmarshal(answer, &p) == nil && p.Status == status && p.Code() != "" {
		return true
	}
	var r ask.Response
	return json.Unmarshal(answer, &r) == nil && len(r.Results) == 1 && r.Results[0].Error != nil && r.Results[0].Error.Status == status
}

// askAll asks all models in one question.
func (s *strangers) askAll(ctx context.Context, number int, picture []byte) {
	status, answer, err := s.post(ctx, strings.Join(mirror.Names, ","), picture)
	switch {
	case err != nil || status >= 500:
		s.away++
		return
	case status != http.StatusOK:
		s.faults = append(s.faults, fmt.Errorf("picture %d: status %d: %s", number, status, answer))
		return
	}
	var r ask.Response
	if err := json.Unmarshal(answer, &r); err != nil || len(r.Results) != len(mirror.Names) {
		s.faults = append(s.faults, fmt.Errorf("picture %d: not %d results: %s", number, len(mirror.Names), answer))
		return
	}
	for i, result := range r.Results {
		switch {
		case result.Model != mirror.Names[i]:
			err = errors.Join(err, fmt.Errorf("picture %d: result %d is of %s", number, i, result.Model))
		case result.Error == nil:
			err = errors.Join(err, mirror.Check(result.Model, number, result.Top))
		case result.Error.Status < 500:
			err = errors.Join(err, fmt.Errorf("picture %d: %w", number, result.Error))
		}
	}
	if err != nil {
		s.faults = append(s.faults, err)
		return
	}
	s.answered++
}

func (s *strangers) post(ctx context.Context, models string, body []byte) (status int, answer []byte, err error) {
	// What was begun is heard to its end.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, s.url+"/v1/infer?model="+models, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, errors.Join(err, resp.Body.Close())
}

func (s *strangers) String() string {
	return fmt.Sprintf("strangers: %d sent: %d answered by all models, %d refused as they should be, %d met somebody who was away",
		s.asked, s.answered, s.refused, s.away)
}

// err is what was answered otherwise than it should have been; so is a round in which nothing was answered at all.
func (s *strangers) err() error {
	if s.answered == 0 || s.refused == 0 {
		return errors.Join(append(s.faults, errors.New("no stranger was answered, or none was refused"))...)
	}
	return errors.Join(s.faults...)
}
