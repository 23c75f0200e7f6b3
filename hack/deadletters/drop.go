package main

import (
	"context"
	"fmt"
	"io"

	"github.com/ebb-inference/ebb/events/parking"
)

// drop removes letters, with their copies.
func drop(ctx context.Context, hold parking.Hold, c choice, out io.Writer, p *progress) error {
	return c.walk(ctx, hold, p, func(h *parking.Held) (bool, error) {
		if err := hold.Remove(h); err != nil {
			return false, err
		}
		p.removed.Add(1)
		_, err := fmt.Fprintln(out, name(h), "dropped")
		return false, err
	})
}

// rehearse says what drop or replay would do.
func rehearse(ctx context.Context, hold parking.Hold, c choice, command string, out io.Writer, p *progress) error {
	seen := map[parking.Key]bool{}
	return c.walk(ctx, hold, p, func(h *parking.Held) (bool, error) {
		p.kept.Add(1)
		if h.Letter != nil {
			if seen[h.Letter.Key()] { // goes with the first
				return false, nil
			}
			seen[h.Letter.Key()] = true
		}
		does := "would be dropped"
		if command == "replay" {
			does = "would be asked again"
			if problem := entryOf(h).Problem; problem != "" {
				does = "would stay: " + plain(problem)
			}
		}
		_, err := fmt.Fprintln(out, name(h), does)
		return false, err
	})
}
