package ask

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

// later is a Service that can ask asynchronously. Events are taken and answered by nobody but the test.
func later(t *testing.T, change func(*Config, *broker)) *broker {
	t.Helper()
	return start(t, func(c *Config, b *broker) {
		c.Mailboxes, b.take = b.hub, taking
		if change != nil {
			change(c, b)
		}
	})
}

// answerAll answers the events that were published about a request.
func (b *broker) answerAll(t *testing.T, id string, models ...string) {
	t.Helper()
	for _, r := range b.published() {
		if r.ReplyTo != reply.MailboxAddress(id) {
			continue
		}
		for _, m := range models {
			if r.Model == m {
				b.respond(t.Context(), t, r.ReplyTo, answerTo(r))
			}
		}
	}
}

func TestAnAsynchronousAnswerIsCollectedAgainAndAgain(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	pic := portrait(1)
	before := time.Now()
	accepted, err := b.AskLater(t.Context(), Question{Picture: pic, Models: []string{"dog", "cat", "dog"}})
	require.NoError(t, err)
	require.Equal(t, StatusWaiting, accepted.Status)
	require.Equal(t, []string{"dog", "cat"}, accepted.Models)
	require.Equal(t, []string{"dog", "cat"}, accepted.Waiting)
	require.Empty(t, accepted.Results)
	require.WithinRange(t, accepted.Time, before, time.Now())
	require.Equal(t, accepted.Time.Add(DefaultAsyncTTL), accepted.Expires)

	sent := b.published()
	require.Len(t, sent, 2)
	for _, r := range sent {
		require.Equal(t, reply.MailboxAddress(accepted.ID), r.ReplyTo)
		require.False(t, r.Callback)
		require.WithinRange(t, r.Deadline, before.Add(DefaultAsyncTimeout), time.Now().Add(DefaultAsyncTimeout))
	}
	p, err := b.Collect(t.Context(), accepted.ID)
	require.NoError(t, err)
	require.Equal(t, accepted, p)

	b.answerAll(t, accepted.ID, "cat")
	p, err = b.Collect(t.Context(), accepted.ID)
	require.NoError(t, err)
	require.Equal(t, StatusWaiting, p.Status)
	require.Equal(t, []string{"dog"}, p.Waiting)
	require.Len(t, p.Results, 1)
	require.Equal(t, fingerprint("cat", pic), p.Results[0].Top[0].Label)

	b.answerAll(t, accepted.ID, "dog")
	for range 3 {
		p, err = b.Collect(t.Context(), accepted.ID)
		require.NoError(t, err)
		require.Equal(t, StatusDone, p.Status)
		require.Empty(t, p.Waiting)
		response := p.Response()
		require.Equal(t, http.StatusOK, Status(response))
		for i, name := range []string{"dog", "cat"} {
			require.Equal(t, name, response.Results[i].Model)
			require.Equal(t, "Is it a "+name+"?", response.Results[i].Question)
			require.Equal(t, fingerprint(name, pic), response.Results[i].Top[0].Label)
			require.GreaterOrEqual(t, response.Results[i].Timing.Total, 0.0)
		}
	}
}

func TestWhatDoesNotComeByTheDeadlineIsSaidToBeLateAndTheRequestExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := later(t, nil)
		accepted, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat", "dog"}})
		require.NoError(t, err)
		b.answerAll(t, accepted.ID, "dog")
		time.Sleep(DefaultAsyncTimeout - time.Nanosecond)
		p, err := b.Collect(t.Context(), accepted.ID)
		require.NoError(t, err)
		require.Equal(t, StatusWaiting, p.Status)

		time.Sleep(time.Nanosecond)
		p, err = b.Collect(t.Context(), accepted.ID)
		require.NoError(t, err)
		require.Equal(t, StatusDone, p.Status)
		require.Equal(t, CodeNoAnswerInTime, p.Results[0].Error.Code())
		require.Equal(t, accepted.ID, p.Results[0].Error.RequestID())
		require.Nil(t, p.Results[1].Error)
		require.Equal(t, http.StatusOK, Status(p.Response()))

		b.answerAll(t, accepted.ID, "cat") // better late
		p, err = b.Collect(t.Context(), accepted.ID)
		require.NoError(t, err)
		require.Nil(t, p.Results[0].Error)

		time.Sleep(DefaultAsyncTTL - DefaultAsyncTimeout)
		_, err = b.Collect(t.Context(), accepted.ID)
		requireProblem(t, err, CodeRequestGone, http.StatusGone)
		requireProblem(t, b.Drop(t.Context(), accepted.ID), CodeRequestGone, http.StatusGone)
	})
}

func TestOfSeveralResultsOfAModelAnAnswerCountsOnce(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	accepted, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat"}})
	require.NoError(t, err)
	event := b.published()[0]
	to := event.ReplyTo
	say := func(r *events.Result) *Result {
		b.respond(t.Context(), t, to, r)
		p, err := b.Collect(t.Context(), accepted.ID)
		require.NoError(t, err)
		require.Len(t, p.Results, 1)
		return &p.Results[0]
	}
	stranger := answerTo(event)
	stranger.Model = "wolf"
	b.respond(t.Context(), t, to, stranger)
	p, err := b.Collect(t.Context(), accepted.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"cat"}, p.Waiting, "what a model says that was not asked does not count")

	first := say(failureOf(event, problem.New("one", 502, "One", "One.")))
	require.Equal(t, "one", first.Error.Code())
	require.Equal(t, accepted.ID, first.Error.RequestID(), "not the event's")
	require.Equal(t, "two", say(failureOf(event, problem.New("two", 503, "Two", "Two."))).Error.Code())
	require.Nil(t, say(answerTo(event)).Error, "a replayed dead letter mends the answer")
	changed := answerTo(event)
	changed.Answer.Top[0].Label = "another"
	require.NotEqual(t, "another", say(changed).Top[0].Label)
	require.Nil(t, say(failureOf(event, problem.New("three", 503, "Three", "Three."))).Error)
}

func TestADroppedRequestIsGoneThoughItsAnswerComes(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	accepted, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat"}})
	require.NoError(t, err)
	require.NoError(t, b.Drop(t.Context(), accepted.ID))
	event := b.published()[0]
	require.ErrorIs(t, b.hub.Respond(t.Context(), event.ReplyTo, answerTo(event)), reply.ErrNoRequester)
	_, err = b.Collect(t.Context(), accepted.ID)
	requireProblem(t, err, CodeRequestGone, http.StatusGone)
	requireProblem(t, b.Drop(t.Context(), accepted.ID), CodeRequestGone, http.StatusGone)
}

func TestIDsOfWhichThereIsNoRequest(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	old := uuid.Must(uuid.NewV7())
	copy(old[:6], []byte{0x01, 0x80, 0, 0, 0, 0}) // of 2022
	for id, want := range map[string]struct {
		code   string
		status int
	}{
		"":                                     {CodeRequestID, 400},
		"cat":                                  {CodeRequestID, 400},
		strings.ToUpper(uuid.NewString()):      {CodeRequestID, 400},
		"{" + uuid.NewString() + "}":           {CodeRequestID, 400},
		uuid.NewString():                       {CodeUnknownRequest, 404},
		uuid.Must(uuid.NewV7()).String():       {CodeUnknownRequest, 404},
		keyedID("key", nil, nil):               {CodeUnknownRequest, 404},
		"ffffffff-ffff-7fff-8fff-ffffffffffff": {CodeUnknownRequest, 404},
		old.String():                           {CodeRequestGone, 410},
	} {
		_, err := b.Collect(t.Context(), id)
		requireProblem(t, err, want.code, want.status)
		requireProblem(t, b.Drop(t.Context(), id), want.code, want.status)
	}
}

func TestNothingIsKeptOfARequestThatWasNotAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change       func(*Config, *broker)
		question     Question
		code         string
		status, sent int
	}{
		"no such model": {nil, Question{Picture: dot(), Models: []string{"wolf"}}, CodeUnknownModel, 404, 0},
		"no picture":    {nil, Question{Models: []string{"cat"}}, CodeNoPicture, 400, 0},
		"the broker is full": {func(_ *Config, b *broker) {
			b.take = func(context.Context, *events.Request) (*http.Response, error) { return status(503) }
		}, Question{Picture: dot(), Models: []string{"cat"}}, CodeOverloaded, 503, 1},
		"one of the events is not stored": {func(_ *Config, b *broker) {
			b.take = func(_ context.Context, r *events.Request) (*http.Response, error) {
				if r.Model == "dog" {
					return status(400)
				}
				return status(202)
			}
		}, Question{Picture: dot(), Models: []string{"cat", "dog"}}, CodeBrokerRefused, 502, 2},
		"nobody knows whether it is stored": {func(c *Config, b *broker) {
			c.RetryPause = time.Nanosecond
			b.take = func(context.Context, *events.Request) (*http.Response, error) {
				return nil, errors.New("the line went dead")
			}
		}, Question{Picture: dot(), Models: []string{"cat"}}, CodeBrokerDown, 503, 2},
		"the broker takes nothing": {func(c *Config, _ *broker) {
			c.Mailboxes = awayMailboxes{c.Mailboxes}
			c.Blocked = func(context.Context) error { return errors.New("out of memory") }
		}, Question{Picture: dot(), Models: []string{"cat"}}, CodeOverloaded, 503, 0},
		"a callback without a caller": {nil, Question{Picture: dot(), Models: []string{"cat"}, Callback: "https://example.com"}, CodeNotLater, 501, 0},
		"no mailboxes":                {func(c *Config, _ *broker) { c.Mailboxes = nil }, Question{Picture: dot(), Models: []string{"cat"}}, CodeNotLater, 501, 0},
		"mailboxes away":              {func(c *Config, _ *broker) { c.Mailboxes = awayMailboxes{} }, Question{Picture: dot(), Models: []string{"cat"}}, CodeRepliesDown, 503, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := later(t, c.change)
			c.question.ID = uuid.Must(uuid.NewV7()).String()
			_, err := b.AskLater(t.Context(), c.question)
			requireProblem(t, err, c.code, c.status)
			require.Equal(t, c.question.ID, problemOf(t, err).RequestID())
			require.Len(t, b.published(), c.sent)
			_, err = b.hub.Read(t.Context(), c.question.ID)
			require.ErrorIs(t, err, reply.ErrNoMailbox)
		})
	}
}

// awayMailboxes are mailboxes that cannot be reached.
type awayMailboxes struct{ reply.Mailboxes }

func (awayMailboxes) Open(context.Context, *reply.Record) error         { return reply.ErrDown }
func (awayMailboxes) Read(context.Context, string) (*reply.Mail, error) { return nil, reply.ErrDown }
func (awayMailboxes) Delete(context.Context, string) error              { return reply.ErrDown }
func (awayMailboxes) Set(context.Context, string, reply.Mark) error     { return reply.ErrDown }

func TestMailboxesThatAreAwayAreSaidToBe(t *testing.T) {
	t.Parallel()
	b := later(t, func(c *Config, _ *broker) { c.Mailboxes = awayMailboxes{} })
	_, err := b.Collect(t.Context(), uuid.Must(uuid.NewV7()).String())
	requireProblem(t, err, CodeRepliesDown, 503)
	require.Positive(t, problemOf(t, err).RetryAfter)
	requireProblem(t, b.Drop(t.Context(), uuid.NewString()), CodeRepliesDown, 503)
}

func TestARequestIsAcceptedThoughItsCallerHangsUp(t *testing.T) {
	t.Parallel()
	ctx, hangUp := context.WithCancel(t.Context())
	b := later(t, func(_ *Config, b *broker) {
		b.take = func(ctx context.Context, _ *events.Request) (*http.Response, error) {
			hangUp()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return status(202)
		}
	})
	accepted, err := b.AskLater(ctx, Question{Picture: dot(), Models: []string{"cat", "dog"}})
	require.NoError(t, err)
	require.Len(t, b.published(), 2)
	_, err = b.Collect(t.Context(), accepted.ID)
	require.NoError(t, err)
}

func TestAnIDThatIsTakenIsNotGivenTwice(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	q := Question{ID: uuid.Must(uuid.NewV7()).String(), Picture: dot(), Models: []string{"cat"}}
	_, err := b.AskLater(t.Context(), q)
	require.NoError(t, err)
	_, err = b.AskLater(t.Context(), q)
	requireProblem(t, err, CodeRequestExists, http.StatusConflict)
	require.Len(t, b.published(), 1)
}

func TestTheSameKeyIsTheSameRequest(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	q := Question{Picture: portrait(1), Models: []string{"cat", "dog"}, Key: "order-1"}
	var asking sync.WaitGroup
	ids := make(chan string, 8)
	for i := range cap(ids) {
		asking.Go(func() {
			own := q
			own.ID = "request " + strconv.Itoa(i) // which is no matter
			if accepted, err := b.AskLater(t.Context(), own); err == nil {
				ids <- accepted.ID
			} else {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	close(ids)
	id := <-ids
	require.Equal(t, uuid.Version(8), uuid.MustParse(id).Version())
	for other := range ids {
		require.Equal(t, id, other)
	}
	require.Len(t, b.published(), 2, "one event a model")
	b.answerAll(t, id, "cat", "dog")
	again, err := b.AskLater(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, id, again.ID)
	require.Len(t, b.published(), 2)

	others := map[string]bool{id: true}
	for _, change := range []func(*Question){
		func(q *Question) { q.Key = "order-2" },
		func(q *Question) { q.Picture = portrait(2) },
		func(q *Question) { q.Models = []string{"cat"} },
		func(q *Question) { q.Models = []string{"cat", "dog", "cow"} },
	} {
		other := q
		change(&other)
		accepted, err := b.AskLater(t.Context(), other)
		require.NoError(t, err)
		require.False(t, others[accepted.ID])
		others[accepted.ID] = true
	}

	// When it was dropped, it is asked again: with the same events, so that dispatch knows them.
	first := b.published()
	require.NoError(t, b.Drop(t.Context(), id))
	_, err = b.AskLater(t.Context(), q)
	require.NoError(t, err)
	after := b.published()[len(first):]
	require.Len(t, after, 2)
	for _, r := range after {
		found := false
		for _, old := range first {
			found = found || (old.ID == r.ID && old.Model == r.Model)
			require.NotEqual(t, old.CorrelationID, r.CorrelationID, "another asking, not another delivery of the first")
		}
		require.True(t, found)
	}
}

func TestWhoOpenedAMailboxAndDiedHasItsRequestAskedByTheNext(t *testing.T) {
	t.Parallel()
	b := later(t, nil)
	q := Question{Picture: dot(), Models: []string{"cat"}, Key: "k"}
	asked, _, rejection := b.examine(q)
	require.Nil(t, rejection)
	q.ID = keyedID(q.Key, asked, q.Picture)
	_, again, rejection := b.openMailbox(t.Context(), &q, asked)
	require.Nil(t, rejection)
	require.False(t, again)

	accepted, err := b.AskLater(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, q.ID, accepted.ID)
	require.Len(t, b.published(), 1)
}

func TestEqualKeyedQuestionsAtOnceAreAskedOnce(t *testing.T) {
	t.Parallel()
	const callers = 5
	arrived := make(chan *events.Request, callers)
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(_ context.Context, r *events.Request) (*http.Response, error) {
			arrived <- r
			return status(202)
		}
	})
	q := Question{Picture: portrait(1), Models: []string{"cat"}, Key: "k"}
	impatient, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := b.Ask(impatient, q)
		gone <- err
	}()
	event := <-arrived
	var asking sync.WaitGroup
	responses := make(chan *Response, callers)
	for range callers {
		asking.Go(func() {
			r, err := b.Ask(t.Context(), q)
			if err != nil {
				t.Error(err)
				return
			}
			responses <- r
		})
	}
	boarded := func() int {
		b.flights.mu.Lock()
		defer b.flights.mu.Unlock()
		for _, f := range b.flights.underWay {
			return f.waiting
		}
		return 0
	}
	require.Eventually(t, func() bool { return boarded() == callers+1 }, 10*time.Second, time.Millisecond)
	leave() // the one that asked first: the others get their answer all the same
	requireProblem(t, <-gone, CodeCallerGone, StatusClientGone)
	b.respond(t.Context(), t, event.ReplyTo, answerTo(event))
	asking.Wait()
	close(responses)
	for r := range responses {
		require.Nil(t, r.Results[0].Error)
		require.Equal(t, uuid.Version(8), uuid.MustParse(r.ID).Version())
	}
	require.Empty(t, arrived)
	require.Zero(t, boarded())

	// Afterwards it is a new question, with an event that dispatch knows.
	b.take = b.answer
	r, err := b.Ask(t.Context(), q)
	require.NoError(t, err)
	require.Nil(t, r.Results[0].Error)
	all := b.published()
	require.Len(t, all, 2)
	require.Equal(t, event.ID, all[1].ID)
	require.NotEqual(t, event.CorrelationID, all[1].CorrelationID)
}

func TestAKeyedQuestionThatNobodyWaitsForEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *broker) { b.take = taking })
		q := Question{Picture: dot(), Models: []string{"cat", "dog"}, Key: "k"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := b.Ask(ctx, q)
		require.NoError(t, err)
		require.Len(t, r.Results, 2)
		for _, result := range r.Results {
			require.Equal(t, CodeNoAnswerInTime, result.Error.Code())
			require.Equal(t, r.ID, result.Error.RequestID())
		}
		require.Zero(t, b.pending.Len())
		require.Empty(t, b.flights.underWay)
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for key, valid := range map[string]bool{
		"": false, "a": true, "!~": true, strings.Repeat("k", 255): true, strings.Repeat("k", 256): false,
		"two words": false, "tab\t": false, "ümlaut": false, "\x7f": false,
	} {
		require.Equal(t, valid, ValidKey(key), "%q", key)
	}
}
