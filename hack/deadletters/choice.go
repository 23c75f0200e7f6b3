package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/events/parking"
)

// choice is which letters are meant.
type choice struct {
	all   bool
	model string
	ids   []string // of events
}

// check wants one way of choosing; none is all of them, if that is harmless.
func (c *choice) check(harmless bool) error {
	ways := 0
	for _, way := range []bool{c.all, c.model != "", len(c.ids) > 0} {
		if way {
			ways++
		}
	}
	for _, id := range c.ids {
		if strings.HasPrefix(id, "-") {
			return fmt.Errorf("%s comes behind an id; flags come first", id)
		}
	}
	switch {
	case ways > 1:
		return errors.New("say which letters in one way: -all, -model or ids")
	case ways == 1:
		return nil
	case harmless:
		c.all = true
		return nil
	default:
		return errors.New("say which letters: -all, -model m, or ids as list shows them")
	}
}

// has says whether a letter is meant. What is no letter has neither a model nor an id.
func (c *choice) has(h *parking.Held) bool {
	switch {
	case c.all:
		return true
	case h.Letter == nil:
		return false
	case c.model != "":
		return h.Letter.Model() == c.model
	default:
		return slices.Contains(c.ids, h.Letter.Event.ID())
	}
}

// walk calls f with each letter that is meant, until f says that it is enough, and says which ids there were none of.
// Letters that are not removed stay in hand until the hold is closed.
func (c *choice) walk(ctx context.Context, hold parking.Hold, p *progress, f func(*parking.Held) (enough bool, _ error)) error {
	missing := slices.Clone(c.ids)
	for {
		h, err := hold.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		p.read.Add(1)
		if !c.has(h) {
			continue
		}
		if len(c.ids) > 0 {
			missing = slices.DeleteFunc(missing, func(id string) bool { return id == h.Letter.Event.ID() })
		}
		if enough, err := f(h); enough || err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no letter waits of %s", strings.Join(missing, ", "))
	}
	return nil
}
