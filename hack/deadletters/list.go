package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
)

// entry is what list says of a letter.
type entry struct {
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Model       string    `json:"model,omitempty"`
	Time        time.Time `json:"time,omitzero"` // of the event
	Parked      time.Time `json:"parked,omitzero"`
	Destination string    `json:"destination,omitempty"`
	Status      string    `json:"status,omitempty"`
	Bytes       int       `json:"bytes"`
	Copies      int       `json:"copies"`            // of the same event, since deliveries are at least once
	Problem     string    `json:"problem,omitempty"` // why it cannot be replayed
}

func entryOf(h *parking.Held) *entry {
	e := &entry{Bytes: h.Bytes, Copies: 1}
	if h.Letter == nil {
		e.Problem = h.Err.Error()
		return e
	}
	ev := &h.Letter.Event
	e.ID, e.Source, e.Type, e.Model = ev.ID(), ev.Source(), ev.Type(), h.Letter.Model()
	e.Time, e.Parked = ev.Time(), h.Letter.Parked
	e.Destination, e.Status = h.Letter.Destination(), h.Letter.StatusText()
	if err := replayable(h.Letter); err != nil {
		e.Problem = err.Error()
	}
	return e
}

// list shows letters, each event once, the longest parked first.
func list(ctx context.Context, hold parking.Hold, c choice, asJSON bool, now time.Time, out io.Writer, p *progress) error {
	entries := []*entry{} // not null in JSON
	seen := map[parking.Key]*entry{}
	err := c.walk(ctx, hold, p, func(h *parking.Held) (bool, error) {
		p.kept.Add(1)
		if h.Letter != nil {
			if first := seen[h.Letter.Key()]; first != nil {
				first.Copies++
				return false, nil
			}
		}
		e := entryOf(h)
		entries = append(entries, e)
		if h.Letter != nil {
			seen[h.Letter.Key()] = e
		}
		return false, nil
	})
	if err != nil && len(entries) == 0 {
		return err
	}
	slices.SortStableFunc(entries, func(a, b *entry) int { return a.Parked.Compare(b.Parked) })
	write := writeTable
	if asJSON {
		write = writeJSON
	}
	if writeErr := write(out, entries, now); writeErr != nil {
		return writeErr
	}
	return err
}

func writeJSON(out io.Writer, entries []*entry, _ time.Time) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(entries)
}

func writeTable(out io.Writer, entries []*entry, now time.Time) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "No dead letters.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tMODEL\tPARKED\tAGE\tDESTINATION\tSTATUS\tBYTES\tNOTE") // w keeps an error until Flush
	for _, e := range entries {
		note := e.Problem
		if e.Copies > 1 {
			note = strings.TrimSpace(fmt.Sprintf("%d copies. %s", e.Copies, note))
		}
		parked, age := "", ""
		if !e.Parked.IsZero() {
			parked, age = e.Parked.Format(time.RFC3339), now.Sub(e.Parked).Round(time.Second).String()
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", plain(e.ID), plain(e.Model), parked, age,
			plain(e.Destination), plain(e.Status), e.Bytes, plain(note))
	}
	return w.Flush()
}

// longest is how much of a letter's text goes into a line.
const longest = 128

// plain makes a letter's text fit for a terminal, which obeys control characters.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// name is what a letter is called in a line.
func name(h *parking.Held) string {
	if h.Letter == nil {
		return "- -"
	}
	return plain(events.Extension(&h.Letter.Event, events.ExtModel)) + " " + plain(h.Letter.Event.ID())
}
