package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progress tells about a run that takes long.
type progress struct {
	command string
	log     io.Writer
	start   time.Time
	quit    chan struct{}
	done    chan struct{}

	read     atomic.Int64 // letters
	underWay atomic.Int64 // that were asked and are not answered
	removed  atomic.Int64
	kept     atomic.Int64 // though they were chosen
}

func begin(command string, log io.Writer) *progress {
	p := &progress{command: command, log: log, start: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

// run writes a line after every second.
func (p *progress) run() {
	defer close(p.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.say()
		case <-p.quit:
			return
		}
	}
}

// say writes how it stands.
func (p *progress) say() {
	_, _ = fmt.Fprintf(p.log, "deadletters: %s: %.0f s, %d read, %d under way, %d removed, %d stay\n", // nobody to tell when it fails
		p.command, time.Since(p.start).Seconds(), p.read.Load(), p.underWay.Load(), p.removed.Load(), p.kept.Load())
}

// end writes the last line.
func (p *progress) end() {
	close(p.quit)
	<-p.done
	p.say()
}
