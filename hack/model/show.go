package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// shown is how many of the last events are printed.
const shown = 8

// show prints states for people.
func show(w io.Writer, states []rollout.State) error {
	var b strings.Builder
	if len(states) == 0 {
		b.WriteString("No network has a source.\n")
	}
	for i, s := range states {
		if i > 0 {
			b.WriteByte('\n')
		}
		describe(&b, s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func describe(b *strings.Builder, s rollout.State) {
	fmt.Fprintf(b, "%s (%s), from %s\n", s.Network, strings.Join(s.Models, ", "), s.Source)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	if s.Serving == 0 {
		line("serving", "nothing")
	} else {
		line("serving", "version %d%s", s.Serving, since(s.Since))
	}
	if s.Previous != 0 {
		line("before it", "version %d", s.Previous)
	}
	if c := s.Candidate; c != nil {
		share := ""
		if c.Percent > 0 {
			share = fmt.Sprintf(", %d %% of the traffic", c.Percent)
		}
		line("candidate", "version %d: %s%s%s", c.Version, c.Phase, share, since(c.Since))
	}
	if s.Order != nil {
		line("ordered", "back to version %d%s", s.Order.To, since(s.Order.Time))
	}
	line("checked", "%s", at(s.LastCheck))
	if f := s.LastFailure; f != nil {
		line("failed", "%s: %s", at(f.Time), f.Reason)
	}
	for _, r := range s.Refused {
		versions := fmt.Sprint("version ", r.Version)
		if r.From != 0 && r.From != r.Version {
			versions = fmt.Sprintf("versions %d to %d", r.From, r.Version)
		}
		line("refused", "%s by %s, %s: %s", versions, r.By, at(r.Time), r.Reason)
	}
	for _, e := range s.History[max(0, len(s.History)-shown):] {
		text := fmt.Sprintf("%s %d", e.Event, e.Version)
		if e.Percent > 0 {
			text += fmt.Sprintf(" (%d %%)", e.Percent)
		}
		line("", "%s  %s", at(e.Time), text)
	}
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + at(t)
}

func at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
