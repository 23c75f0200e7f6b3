package assets

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progress tells about one thing that may take long.
type progress struct {
	what    string
	bytes   atomic.Int64         // so far
	total   int64                // 0 when it is not known
	measure func() (bytes int64) // instead of bytes, asked for once a line; nil for none
	log     io.Writer
	start   time.Time
	quit    chan struct{}
	done    chan struct{}
}

func (f *Fetcher) progress(what string) *progress {
	return (&progress{what: what, log: f.log}).begin()
}

func (p *progress) begin() *progress {
	p.start, p.quit, p.done = time.Now(), make(chan struct{}), make(chan struct{})
	go p.run()
	return p
}

// run writes a line after every second, and one at the end if there was any before.
func (p *progress) run() {
	defer close(p.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; said = true {
		select {
		case <-tick.C:
			p.say("")
		case <-p.quit:
			if said {
				p.say(", done")
			}
			return
		}
	}
}

func (p *progress) say(end string) {
	n := p.bytes.Load()
	if p.measure != nil {
		n = p.measure()
	}
	size := ""
	switch {
	case p.total > 0:
		size = fmt.Sprintf(", %.1f of %.1f MB", float64(n)/1e6, float64(p.total)/1e6)
	case n > 0:
		size = fmt.Sprintf(", %.1f MB", float64(n)/1e6)
	}
	_, _ = fmt.Fprintf(p.log, "fetch: %s: %.0f s%s%s\n", p.what, time.Since(p.start).Seconds(), size, end) // nobody to tell when it fails
}

func (p *progress) stop() {
	close(p.quit)
	<-p.done
}
