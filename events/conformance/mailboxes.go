//nolint:thelper // what takes a *testing.T here is a test, not a helper
package conformance

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
)

// record is of a request that two models were asked, with a mailbox that outlives the test.
func record() *reply.Record {
	now := time.Now().UTC().Truncate(time.Second)
	return &reply.Record{
		ID:    uuid.Must(uuid.NewV7()).String(),
		Asked: []reply.Asked{{Model: "cat", Question: "Is it a cat? ÄÖ <&>"}, {Model: "imagenet"}},
		Time:  now, Deadline: now.Add(15 * time.Minute), Expires: now.Add(time.Hour), Callback: "https://example.com/hook?a=b",
	}
}

func open(t *testing.T, s *System) (*reply.Record, string) {
	t.Helper()
	r := record()
	require.NoError(t, s.Mailboxes.Open(t.Context(), r))
	return r, reply.MailboxAddress(r.ID)
}

func (s *System) read(t *testing.T, id string) *reply.Mail {
	t.Helper()
	mail, err := s.Mailboxes.Read(t.Context(), id)
	require.NoError(t, err)
	return mail
}

var mailboxes = []test{
	{"what was asked is there, again and again", func(t *testing.T, s *System) {
		r, to := open(t, s)
		require.True(t, reply.ValidAddress(to), to)
		for range 3 {
			require.Equal(t, &reply.Mail{Record: *r}, s.read(t, r.ID))
		}
	}},
	{"results are there in the order in which they came, again and again", func(t *testing.T, s *System) {
		r, to := open(t, s)
		failed, answered := result("one"), result("two")
		p := 0.75
		yes := true
		answered.Problem, answered.Answer = nil, &events.Answer{
			Yes: &yes, Probability: &p, Top: []events.Class{{Label: "ÄÖ <&>", Probability: 0.25}},
			ServedBy: events.ServedBy{Model: "network", Version: 1 << 40}, Timing: events.Timing{Queue: 0.125}, BatchSize: 8,
		}
		require.NoError(t, s.Responder.Respond(t.Context(), to, failed))
		require.Equal(t, []*events.Result{failed}, s.read(t, r.ID).Results)
		require.NoError(t, s.Responder.Respond(t.Context(), to, answered))
		for range 3 {
			mail := s.read(t, r.ID)
			require.Equal(t, *r, mail.Record)
			require.Equal(t, []*events.Result{failed, answered}, mail.Results)
		}
	}},
	{"marks stay", func(t *testing.T, s *System) {
		r, to := open(t, s)
		require.False(t, s.read(t, r.ID).Has(reply.MarkAsked))
		require.NoError(t, s.Mailboxes.Set(t.Context(), r.ID, reply.MarkAsked))
		require.NoError(t, s.Responder.Respond(t.Context(), to, result("one")))
		require.NoError(t, s.Mailboxes.Set(t.Context(), r.ID, reply.MarkCalled))
		require.NoError(t, s.Mailboxes.Set(t.Context(), r.ID, reply.MarkCalled), "twice is harmless")
		for range 2 {
			mail := s.read(t, r.ID)
			require.True(t, mail.Has(reply.MarkAsked))
			require.True(t, mail.Has(reply.MarkCalled))
			require.Len(t, mail.Results, 1)
		}
	}},
	{"a request has one mailbox", func(t *testing.T, s *System) {
		r, _ := open(t, s)
		second := *r
		second.Callback = "https://example.com/other"
		require.ErrorIs(t, s.Mailboxes.Open(t.Context(), &second), reply.ErrMailboxExists)
		require.Equal(t, *r, s.read(t, r.ID).Record)
	}},
	{"a record that is none opens nothing", func(t *testing.T, s *System) {
		for _, change := range []func(*reply.Record){
			func(r *reply.Record) { r.ID = "" },
			func(r *reply.Record) { r.ID = "../" + r.ID },
			func(r *reply.Record) { r.Asked = nil },
			func(r *reply.Record) { r.Expires = time.Time{} },
			func(r *reply.Record) { r.Callback = string(make([]byte, reply.MaxRecordBytes)) },
		} {
			r := record()
			id := r.ID
			change(r)
			require.Error(t, s.Mailboxes.Open(t.Context(), r))
			_, err := s.Mailboxes.Read(t.Context(), id)
			require.ErrorIs(t, err, reply.ErrNoMailbox)
		}
	}},
	{"without a mailbox there is nothing to read, to mark, to delete or to answer", func(t *testing.T, s *System) {
		id := uuid.Must(uuid.NewV7()).String()
		_, err := s.Mailboxes.Read(t.Context(), id)
		require.ErrorIs(t, err, reply.ErrNoMailbox)
		require.ErrorIs(t, s.Mailboxes.Set(t.Context(), id, reply.MarkAsked), reply.ErrNoMailbox)
		require.ErrorIs(t, s.Mailboxes.Delete(t.Context(), id), reply.ErrNoMailbox)
		require.ErrorIs(t, s.Responder.Respond(t.Context(), reply.MailboxAddress(id), result("never")), reply.ErrNoRequester)
		_, err = s.Mailboxes.Read(t.Context(), id)
		require.ErrorIs(t, err, reply.ErrNoMailbox, "and none of that made one")
	}},
	{"a deleted mailbox is gone, and what comes late does not bring it back", func(t *testing.T, s *System) {
		r, to := open(t, s)
		other, _ := open(t, s)
		require.NoError(t, s.Responder.Respond(t.Context(), to, result("one")))
		require.NoError(t, s.Mailboxes.Delete(t.Context(), r.ID))
		require.ErrorIs(t, s.Responder.Respond(t.Context(), to, result("late")), reply.ErrNoRequester)
		require.ErrorIs(t, s.Mailboxes.Set(t.Context(), r.ID, reply.MarkCalled), reply.ErrNoMailbox)
		_, err := s.Mailboxes.Read(t.Context(), r.ID)
		require.ErrorIs(t, err, reply.ErrNoMailbox)
		require.ErrorIs(t, s.Mailboxes.Delete(t.Context(), r.ID), reply.ErrNoMailbox)
		require.Equal(t, *other, s.read(t, other.ID).Record)
	}},
	{"a mailbox expires, read or not", func(t *testing.T, s *System) {
		r := record()
		r.Expires = time.Now().Add(300 * time.Millisecond)
		require.NoError(t, s.Mailboxes.Open(t.Context(), r))
		require.Eventually(t, func() bool {
			_, err := s.Mailboxes.Read(t.Context(), r.ID)
			return err != nil
		}, Patience, 10*time.Millisecond)
		require.False(t, time.Now().Before(r.Expires), "not early")
		_, err := s.Mailboxes.Read(t.Context(), r.ID)
		require.ErrorIs(t, err, reply.ErrNoMailbox)
		require.Eventually(t, func() bool { // the transport may take a moment
			return s.Responder.Respond(t.Context(), reply.MailboxAddress(r.ID), result("late")) != nil
		}, Patience, 10*time.Millisecond)
	}},
	{"many may read while results arrive, and none sees a result without its request or loses one", func(t *testing.T, s *System) {
		const readers, results = 8, 40
		r, to := open(t, s)
		done := make(chan struct{})
		var reading sync.WaitGroup
		for range readers {
			reading.Go(func() {
				seen := 0
				for last := false; !last; {
					select {
					case <-done:
						last = true
					default:
					}
					mail, err := s.Mailboxes.Read(t.Context(), r.ID)
					if err != nil || mail.Record.ID != r.ID || len(mail.Results) < seen {
						t.Errorf("%+v after %d results: %v", mail, seen, err)
						return
					}
					seen = len(mail.Results)
				}
			})
		}
		for i := range results {
			require.NoError(t, s.Responder.Respond(t.Context(), to, result(strconv.Itoa(i))))
		}
		close(done)
		reading.Wait()
		mail := s.read(t, r.ID)
		require.Len(t, mail.Results, results)
		for i, got := range mail.Results {
			require.Equal(t, strconv.Itoa(i), got.CorrelationID)
		}
	}},
	{"of many that open one, one does", func(t *testing.T, s *System) {
		r := record()
		var opening sync.WaitGroup
		errs := make(chan error, 8)
		for range cap(errs) {
			opening.Go(func() { errs <- s.Mailboxes.Open(t.Context(), r) })
		}
		opening.Wait()
		close(errs)
		opened := 0
		for err := range errs {
			if err == nil {
				opened++
				continue
			}
			require.ErrorIs(t, err, reply.ErrMailboxExists)
		}
		require.Equal(t, 1, opened)
		require.Equal(t, *r, s.read(t, r.ID).Record)
	}},
	{"it may be deleted while it is read and answered", func(t *testing.T, s *System) {
		r, to := open(t, s)
		var at sync.WaitGroup
		for range 4 {
			at.Go(func() {
				for {
					if _, err := s.Mailboxes.Read(t.Context(), r.ID); err != nil {
						assert.ErrorIs(t, err, reply.ErrNoMailbox)
						return
					}
				}
			})
			at.Go(func() {
				for range 10 {
					if err := s.Responder.Respond(t.Context(), to, result("one")); err != nil {
						assert.ErrorIs(t, err, reply.ErrNoRequester)
						return
					}
				}
			})
		}
		require.NoError(t, s.Mailboxes.Delete(t.Context(), r.ID))
		at.Wait()
	}},
}
