package main

import (
	"fmt"
	"strings"
)

// The lines around what is generated within a file that somebody wrote.
const (
	regionBegin = "# made by make generate"
	regionEnd   = "# end"
)

// fill puts one body into each region of a text, indented as its first line is. There have to be as many regions as bodies.
func fill(text string, bodies ...string) (string, error) {
	var out strings.Builder
	filled, inside := 0, false
	for line := range strings.Lines(text) {
		word := strings.TrimSpace(line)
		switch {
		case word == regionBegin && (inside || filled == len(bodies)):
			return "", fmt.Errorf("has %q where no generated part is expected", regionBegin)
		case word == regionBegin:
			inside = true
			out.WriteString(line)
			indent, _, _ := strings.Cut(line, regionBegin)
			for added := range strings.Lines(bodies[filled]) {
				out.WriteString(indent + added)
			}
			filled++
		case word == regionEnd && inside:
			inside = false
			out.WriteString(line)
		case !inside:
			out.WriteString(line)
		}
	}
	if inside || filled != len(bodies) {
		return "", fmt.Errorf("has %d parts from %q to %q; want %d", filled, regionBegin, regionEnd, len(bodies))
	}
	return out.String(), nil
}
