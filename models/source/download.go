package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Patience is what is put up with when files come over a network.
type Patience struct {
	Idle  time.Duration // how long nothing may come; default 30 s
	Pause time.Duration // before a download that broke is taken up, longer each time; default 1 s
}

// WithDefaults returns the patience with the zero fields filled in.
func (p Patience) WithDefaults() Patience {
	if p.Idle <= 0 {
		p.Idle = 30 * time.Second
	}
	if p.Pause <= 0 {
		p.Pause = time.Second
	}
	return p
}

// maxBreaks is how often one download may break.
const maxBreaks = 10

// ErrBroken says that a download that broke cannot be taken up.
var ErrBroken = errors.New("it cannot be taken up where it broke")

// Download reads a file over a network. When it breaks, it is taken up where it broke.
//
// Its owner opens it, at the start and then at where it broke; then the file must still be the same, or it is ErrIncomplete.
// ErrBroken, and the errors of a Source, end it; all others are tried again, but not for ever.
func Download(ctx context.Context, p Patience, open func(ctx context.Context, from int64) (io.ReadCloser, error)) (io.ReadCloser, error) {
	d := &download{ctx: ctx, patience: p.WithDefaults(), open: open}
	if err := d.begin(); err != nil {
		return nil, err
	}
	return d, nil
}

type download struct {
	ctx      context.Context //nolint:containedctx // of the one download
	patience Patience
	open     func(ctx context.Context, from int64) (io.ReadCloser, error)

	body   io.ReadCloser // of the request under way
	end    func()        // ends it
	done   int64
	breaks int
}

// begin makes a request for what is still missing.
func (d *download) begin() error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	body, err := d.open(ctx, d.done)
	if err != nil {
		cancel(nil)
		return err
	}
	d.body = Idle(ctx, cancel, d.patience.Idle, body)
	d.end = func() { cancel(nil) }
	return nil
}

// Read reads on.
func (d *download) Read(p []byte) (int, error) {
	for {
		n, err := d.body.Read(p)
		d.done += int64(n)
		if n > 0 || err == nil {
			return n, nil // an error comes again
		}
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err := d.mend(err); err != nil {
			return 0, err
		}
	}
}

func (d *download) mend(broke error) error {
	for d.ctx.Err() == nil && d.breaks < maxBreaks {
		d.breaks++
		wait := time.NewTimer(d.patience.Pause * time.Duration(d.breaks))
		select {
		case <-wait.C:
		case <-d.ctx.Done():
			wait.Stop()
			return d.ctx.Err()
		}
		end, body := d.end, d.body
		err := d.begin()
		if err == nil {
			end()
			_ = body.Close() // it is broken
			return nil
		}
		if errors.Is(err, ErrBroken) {
			break
		}
		for _, final := range []error{ErrIncomplete, ErrGone, ErrCorrupt, ErrLimit} {
			if errors.Is(err, final) {
				return err
			}
		}
		broke = err
	}
	return fmt.Errorf("broken after %d bytes: %w", d.done, broke)
}

// Close ends it.
func (d *download) Close() error {
	d.end()
	return d.body.Close()
}

// Idle returns a reader that is given up when nothing comes for too long: then it calls cancel, which has to end the reading,
// as that of a request's context does.
func Idle(ctx context.Context, cancel context.CancelCauseFunc, after time.Duration, from io.ReadCloser) io.ReadCloser {
	late := fmt.Errorf("nothing has come for %s", after)
	timer := time.AfterFunc(after, func() { cancel(late) })
	timer.Stop() // until somebody reads
	return &idle{from, ctx, after, timer}
}

type idle struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // of the one request
	after time.Duration
	timer *time.Timer
}

func (i *idle) Read(p []byte) (int, error) {
	i.timer.Reset(i.after)
	n, err := i.ReadCloser.Read(p)
	i.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && i.ctx.Err() != nil {
		err = context.Cause(i.ctx)
	}
	return n, err
}
