package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply"
)

func letterID(name string) string { return uuid.NewSHA1(uuid.Nil, []byte(name)).String() }

// letter is a dead letter whose requester has gone.
func letter(name, model string) *parking.Letter {
	ev := event.New()
	ev.SetID(letterID(name))
	ev.SetSource("/ebb/ingress/test")
	ev.SetType(events.TypeRequested)
	ev.SetTime(time.Now())
	ev.SetDataContentType("image/png")
	ev.SetExtension(events.ExtModel, model)
	ev.SetExtension(events.ExtReplyTo, "amq.gen-JzTY20BRgKO-HjmUJj0wLg")
	ev.SetExtension(events.ExtCorrelationID, "original")
	ev.SetExtension(events.ExtDeadline, "2020-01-01T00:00:00Z")
	ev.SetExtension(events.ExtCallback, "true")
	ev.SetExtension(events.ExtErrorCode, "503")
	ev.SetExtension(events.ExtErrorDest, "http://dispatch-cat/")
	ev.DataEncoded = []byte("picture")
	return &parking.Letter{Event: ev, Parked: time.Now()}
}

// hold is letters in hand, in memory.
type hold struct {
	letters []*parking.Held
	next    int

	mu      sync.Mutex
	removed []uint64
}

func holding(letters ...*parking.Letter) *hold {
	h := &hold{}
	for i, l := range letters {
		held := &parking.Held{Letter: l, Ticket: uint64(i + 1)}
		if l == nil {
			held.Err = errors.New("it is none \x1b[2J")
		} else {
			held.Bytes = len(l.Event.Data())
		}
		h.letters = append(h.letters, held)
	}
	return h
}

func (h *hold) Next(ctx context.Context) (*parking.Held, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if h.next == len(h.letters) {
		return nil, io.EOF
	}
	h.next++
	return h.letters[h.next-1], nil
}

func (h *hold) Remove(held *parking.Held) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = append(h.removed, held.Ticket)
	return nil
}

func (h *hold) Close() error { return nil }

// questionerFunc asks as a test wants.
type questionerFunc func(ctx context.Context, l *parking.Letter) error

func (f questionerFunc) ask(ctx context.Context, l *parking.Letter) (*events.Result, error) {
	return &events.Result{Answer: &events.Answer{}}, f(ctx, l)
}

func TestCopiesOfAnEventAreAskedOnceAndShareItsFate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The copy of a comes while a is under way; that of b when b is answered; c fails.
		h := holding(letter("a", "cat"), letter("a", "cat"), letter("b", "cat"), letter("c", "cat"), letter("c", "cat"), letter("d", "dog"), nil)
		more := make(chan struct{})
		var mu sync.Mutex
		asked := map[string]int{}
		q := questionerFunc(func(_ context.Context, l *parking.Letter) error {
			mu.Lock()
			asked[l.Event.ID()]++
			mu.Unlock()
			<-more
			if l.Event.ID() == letterID("c") {
				return errors.New("again")
			}
			return nil
		})
		var out, log bytes.Buffer
		p := begin("replay", &log)
		done := make(chan error, 1)
		go func() { done <- replay(t.Context(), h, choice{model: "cat"}, q, &out, p) }()
		synctest.Wait()
		require.Empty(t, h.removed)
		close(more)
		require.ErrorIs(t, <-done, errStay)
		p.end()
		require.Equal(t, map[string]int{letterID("a"): 1, letterID("b"): 1, letterID("c"): 1}, asked)
		require.ElementsMatch(t, []uint64{1, 2, 3}, h.removed)
		require.Equal(t, 3, strings.Count(out.String(), "\n"), out.String())
		require.Contains(t, log.String(), "7 read, 0 under way, 3 removed, 1 stay")
	})
}

func TestACopyThatIsReadLaterGoesWithTheAnswer(t *testing.T) {
	t.Parallel()
	h := holding(letter("a", "cat"))
	r := &replayer{hold: h, progress: &progress{}, out: io.Discard, jobs: map[parking.Key]*job{}}
	r.questioner = questionerFunc(func(context.Context, *parking.Letter) error { return nil })
	j, first, err := r.enter(h.letters[0])
	require.NoError(t, err)
	require.True(t, first)
	r.ask(t.Context(), j, h.letters[0])
	_, first, err = r.enter(&parking.Held{Letter: letter("a", "cat"), Ticket: 9})
	require.NoError(t, err)
	require.False(t, first)
	require.Equal(t, []uint64{1, 9}, h.removed)
}

func TestOnlySoManyAreAskedAtOnceAndNoneAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var letters []*parking.Letter
		for i := range 3 * maxUnderWay {
			letters = append(letters, letter(fmt.Sprint(i), "cat"))
		}
		ctx, cancel := context.WithCancel(t.Context())
		q := questionerFunc(func(ctx context.Context, _ *parking.Letter) error {
			<-ctx.Done()
			return ctx.Err()
		})
		var log bytes.Buffer
		p := begin("replay", &log)
		done := make(chan error, 1)
		h := holding(letters...)
		go func() { done <- replay(ctx, h, choice{all: true}, q, io.Discard, p) }()
		synctest.Wait()
		require.EqualValues(t, maxUnderWay, p.underWay.Load())
		time.Sleep(1500 * time.Millisecond)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		p.end()
		require.Empty(t, h.removed)
		require.Contains(t, log.String(), "deadletters: replay: 1 s, 17 read, 16 under way, 0 removed, 0 stay\n", "a line a second")
	})
}

func TestARunEndsBeforeRabbitMQTakesTheLettersBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var letters []*parking.Letter
		for i := range 1000 {
			letters = append(letters, letter(fmt.Sprint(i), "cat"))
		}
		q := questionerFunc(func(context.Context, *parking.Letter) error {
			time.Sleep(maxTimeout)
			return errors.New("no answer")
		})
		p := begin("replay", io.Discard)
		defer p.end()
		began := time.Now()
		err := replay(t.Context(), holding(letters...), choice{all: true}, q, io.Discard, p)
		require.ErrorIs(t, err, errLate)
		require.ErrorIs(t, err, errStay)
		require.Less(t, time.Since(began), 30*time.Minute)
	})
}

func TestTheSameEventIsAskedAgainToBeAnsweredElsewhere(t *testing.T) {
	t.Parallel()
	l := letter("a", "cat")
	deadline := time.Now().Add(time.Minute)
	to := answerTo{address: reply.MailboxAddress(uuid.NewString()), correlationID: "fresh", deadline: deadline}
	r, err := requestOf(l, to)
	require.NoError(t, err)
	require.Equal(t, &events.Request{
		ID: letterID("a"), Source: "/ebb/ingress/test", Time: l.Event.Time().UTC(), Model: "cat", ReplyTo: to.address, CorrelationID: "fresh",
		Deadline: deadline.UTC(), Replay: true, ContentType: "image/png", Data: []byte("picture"),
	}, r)
	require.Equal(t, "original", events.Extension(&l.Event, events.ExtCorrelationID), "the letter is not changed")

	l.Event.SetExtension(events.ExtDeadline, nil)
	_, err = requestOf(l, to)
	require.NoError(t, err, "what is replaced need not be right")
	l.Event.SetType("com.example.other")
	require.ErrorIs(t, replayable(l), events.ErrMalformed)
}

func TestWhatListSays(t *testing.T) {
	t.Parallel()
	hostile := letter("b", "dog")
	hostile.Event.SetExtension(events.ExtErrorDest, "http://x/\x1b]0;owned\x07"+strings.Repeat("y", 500))
	hostile.Parked = hostile.Parked.Add(time.Second)
	h := func() *hold { return holding(hostile, letter("a", "cat"), nil, letter("a", "cat")) }
	var out bytes.Buffer
	p := begin("list", io.Discard)
	defer p.end()
	require.NoError(t, list(t.Context(), h(), choice{all: true}, false, time.Now().Add(90*time.Second), &out, p))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 4, out.String())
	require.Contains(t, lines[1], "it is none", "nobody knows how long that has been there")
	require.Regexp(t, `^`+letterID("a")+` +cat +\S+ +1m30s +http://dispatch-cat/ +503 +7 +2 copies\.`, lines[2])
	require.NotContains(t, out.String(), "\x1b")
	require.Less(t, len(lines[3]), 400)

	out.Reset()
	require.NoError(t, list(t.Context(), h(), choice{model: "dog"}, false, time.Now(), &out, p))
	require.Equal(t, 2, strings.Count(out.String(), "\n"), out.String())

	out.Reset()
	require.NoError(t, list(t.Context(), holding(), choice{all: true}, true, time.Now(), &out, p))
	require.Equal(t, "[]\n", out.String())
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	nothing := func(string) (string, bool) { return "", false }
	missing := t.TempDir() + "/none"
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":              {nil, exitUsage, "say list, replay or drop"},
		"another command":      {[]string{"burn"}, exitUsage, "there are list, replay and drop"},
		"help":                 {[]string{"replay", "-help"}, exitDone, "Exit status"},
		"no choice":            {[]string{"drop"}, exitUsage, "say which letters"},
		"two choices":          {[]string{"drop", "-all", "a"}, exitUsage, "in one way"},
		"a flag behind an id":  {[]string{"drop", "a", "-dry-run"}, exitUsage, "flags come first"},
		"an unknown flag":      {[]string{"list", "-x"}, exitUsage, "-x"},
		"JSON of a replay":     {[]string{"replay", "-json", "-all"}, exitUsage, "-json is for list"},
		"rehearsing a list":    {[]string{"list", "-dry-run"}, exitUsage, "changes nothing"},
		"a time-out of a drop": {[]string{"drop", "-timeout", "1m", "-all"}, exitUsage, "-timeout is for replay"},
		"a long time-out":      {[]string{"replay", "-timeout", "6m", "-all"}, exitUsage, "not within"},
		"no RabbitMQ":          {[]string{"list"}, exitFailed, "RABBITMQ_URL is not set"},
		"no file":              {[]string{"list", "-env", missing}, exitFailed, missing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, log bytes.Buffer
			require.Equal(t, tt.code, run(t.Context(), tt.args, nothing, &out, &log))
			require.Contains(t, log.String(), tt.want)
			require.Empty(t, out.String())
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	set := func(values map[string]string) func(string) (string, bool) {
		return func(key string) (string, bool) { v, ok := values[key]; return v, ok }
	}
	s, err := readSettings(writeFile(t, "# c\nRABBITMQ_URL = amqp://file/ \nBROKER_URL=http://file/?a=b\nOTHER=1\n"), true, set(map[string]string{"RABBITMQ_URL": "amqp://env/", "BROKER_URL": ""}))
	require.NoError(t, err)
	require.Equal(t, settings{rabbitMQ: "amqp://env/", broker: "http://file/?a=b"}, s)
	_, err = readSettings(writeFile(t, "\nsecret"), true, set(nil))
	require.ErrorContains(t, err, ":2: want KEY=VALUE")
	require.NotContains(t, err.Error(), "secret")
	_, err = readSettings(writeFile(t, strings.Repeat("#", maxEnvBytes+1)), true, set(nil))
	require.ErrorContains(t, err, "bytes")
	for broker, want := range map[string]string{"": "not set", "broker:80": "form", "ftp://x/": "form", "http://": "form", "http://broker/ns/b": ""} {
		err := settings{broker: broker}.checkBroker("f")
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}
