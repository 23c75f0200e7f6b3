// Package pagetest drives Ebb's page in a real browser, for tests: it starts one headless Chromium, gives every test a
// tab of its own (with a profile of its own), keeps screenshots, and fails a test whose page complained: console errors,
// uncaught exceptions and breaches of the content security policy.
//
// It knows browsers and nothing of what the page says.
package pagetest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/chromedp"
)

// patience is how long one test may use its tab.
const patience = 90 * time.Second

// ErrNoBrowser says that there is no Chromium on this machine.
var ErrNoBrowser = errors.New("no Chromium on this machine: `make test` installs it")

// Browser is a running browser.
type Browser struct {
	ctx context.Context //nolint:containedctx // chromedp's handle of the browser is a context
	end context.CancelFunc
}

// Start starts a browser. Whoever started it calls Stop.
func Start() (*Browser, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // it opens only our own pages, often as root or in a container
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.WindowSize(1280, 900),
	)
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, endBrowser := chromedp.NewContext(allocator)
	b := &Browser{ctx: ctx, end: func() { endBrowser(); endAllocator() }}
	if err := chromedp.Do(ctx); err != nil {
		b.end()
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	return b, nil
}

// Stop ends the browser and waits until it is gone.
func (b *Browser) Stop() error {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	err := chromedp.Cancel(ctx)
	b.end()
	if err != nil {
		return fmt.Errorf("stopping the browser: %w", err)
	}
	return nil
}

func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoBrowser
}
