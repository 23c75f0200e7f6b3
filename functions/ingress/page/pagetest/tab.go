package pagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// breath is between two looks at a page that is waited for.
const breath = 20 * time.Millisecond

// Tab is one tab of the browser. Its methods end the test when they fail.
type Tab struct {
	tb  testing.TB
	ctx context.Context //nolint:containedctx // chromedp's handle of a tab is a context

	features []*emulation.MediaFeature
	allowed  []string

	mu         sync.Mutex
	complaints []string
}

// Option says how a tab differs from a desktop's in the light.
type Option func(*Tab) error

// Phone makes the tab a touch screen of a phone, so many CSS pixels wide.
func Phone(width int64) Option {
	return func(t *Tab) error {
		return chromedp.Do(t.ctx, chromedp.EmulateViewport(width, 780, chromedp.EmulateScale(2),
			chromedp.EmulateMobile, chromedp.EmulateTouch))
	}
}

// Dark makes the tab prefer dark colours.
func Dark() Option { return feature("prefers-color-scheme", "dark") }

// Still makes the tab prefer reduced motion.
func Still() Option { return feature("prefers-reduced-motion", "reduce") }

func feature(name, value string) Option {
	return func(t *Tab) error {
		t.features = append(t.features, &emulation.MediaFeature{Name: name, Value: value}) // each call replaces them all
		_, err := chromedp.Call(t.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: t.features})
		return err
	}
}

// NoScript switches JavaScript off.
func NoScript() Option {
	return func(t *Tab) error {
		_, err := chromedp.Call(t.ctx, emulation.SetScriptExecutionDisabled,
			emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}
}

// Allow tolerates complaints that contain text. Browsers complain of every answer with an error's status.
func Allow(text string) Option {
	return func(t *Tab) error {
		t.allowed = append(t.allowed, text)
		return nil
	}
}

// Tab opens a tab for a test. It is closed at the test's end, which fails the test if the page complained. A failed test
// leaves a screenshot.
func (b *Browser) Tab(tb testing.TB, options ...Option) *Tab {
	tb.Helper()
	t := &Tab{tb: tb}
	ctx, end := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(t.listen))
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900)); err != nil {
		end()
		tb.Fatalf("opening a tab: %v", err)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	t.ctx = limited
	tb.Cleanup(func() {
		if tb.Failed() {
			t.keep("failed-" + strings.NewReplacer("/", "-", " ", "_").Replace(tb.Name()))
		}
		cancel()
		end()
		for _, complaint := range t.Complaints() {
			tb.Errorf("the page complained: %s", complaint)
		}
	})
	// Tabs in the background must behave as if a person looked at them.
	_, err := chromedp.Call(t.ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	t.must("focusing the tab", err)
	for _, option := range options {
		t.must("setting up the tab", option(t))
	}
	return t
}

// Complaints are the errors and warnings that the browser reported until now.
func (t *Tab) Complaints() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
complaints:
	for _, complaint := range t.complaints {
		for _, text := range t.allowed {
			if strings.Contains(complaint, text) {
				continue complaints
			}
		}
		list = append(list, complaint)
	}
	return list
}

// listen runs within the browser's event loop and must not wait.
func (t *Tab) listen(event any) {
	var complaint string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			complaint = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		complaint = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			complaint += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			said := make([]string, len(e.Args))
			for i, arg := range e.Args {
				said[i] = string(arg.Value)
			}
			complaint = "console: " + strings.Join(said, " ")
		}
	}
	if complaint != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.complaints = append(t.complaints, complaint)
	}
}

func (t *Tab) must(what string, err error) {
	t.tb.Helper()
	if err != nil {
		t.tb.Fatalf("%s: %v", what, err)
	}
}

// Open goes to an address and waits until it is loaded.
func (t *Tab) Open(url string) {
	t.tb.Helper()
	t.must("opening "+url, chromedp.Do(t.ctx, chromedp.Navigate(url)))
}

// Wait waits until the first element that the CSS selector finds is there to see.
func (t *Tab) Wait(selector string) {
	t.tb.Helper()
	t.must("waiting for "+selector, chromedp.Do(t.ctx, chromedp.WaitVisible(chromedp.CSS(selector))))
}

// Gone waits until nothing that the CSS selector finds is to be seen.
func (t *Tab) Gone(selector string) {
	t.tb.Helper()
	t.must("waiting for the end of "+selector, chromedp.Do(t.ctx, chromedp.WaitNotVisible(chromedp.CSS(selector))))
}

// Click clicks on an element.
func (t *Tab) Click(selector string) {
	t.tb.Helper()
	t.must("clicking "+selector, chromedp.Do(t.ctx, chromedp.Click(chromedp.CSS(selector))))
}

// Type types into a field.
func (t *Tab) Type(selector, text string) {
	t.tb.Helper()
	t.must("typing into "+selector, chromedp.Do(t.ctx, chromedp.SendKeys(chromedp.CSS(selector), text)))
}

// Press presses keys, wherever the focus is. Package kb of chromedp names those that are not characters.
func (t *Tab) Press(keys string) {
	t.tb.Helper()
	t.must("pressing a key", chromedp.Do(t.ctx, chromedp.KeyEvent(keys)))
}

// Upload chooses a file in a file input, which need not be visible.
func (t *Tab) Upload(selector, path string) {
	t.tb.Helper()
	t.must("choosing "+path, chromedp.Do(t.ctx,
		chromedp.SetUploadFiles(chromedp.CSS(selector), []string{path}, chromedp.NodeReady)))
}

// Pick does what trigger does, waits for the file chooser that it opens, and chooses a file there.
func (t *Tab) Pick(path string, trigger chromedp.Action[chromedp.Void]) {
	t.tb.Helper()
	_, err := chromedp.Call(t.ctx, page.SetInterceptFileChooserDialog, page.SetInterceptFileChooserDialogParams{Enabled: true})
	t.must("listening for a file chooser", err)
	opened, err := chromedp.Run(t.ctx, chromedp.WaitEvent(page.FileChooserOpened, nil, trigger))
	t.must("waiting for a file chooser", err)
	_, err = chromedp.Call(t.ctx, dom.SetFileInputFiles,
		dom.SetFileInputFilesParams{Files: []string{path}, BackendNodeID: opened.BackendNodeID})
	t.must("choosing "+path, err)
}

// Text is what can be read in the first element that the CSS selector finds, with single spaces. The element may be
// hidden.
func (t *Tab) Text(selector string) string {
	t.tb.Helper()
	text, err := chromedp.Run(t.ctx, chromedp.TextContent(chromedp.CSS(selector), chromedp.NodeReady))
	t.must("reading "+selector, err)
	return squeeze(text)
}

// squeeze makes every run of white space one plain space, the ones that do not break included.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// Eval runs JavaScript in the tab, waits for it, and returns its value.
func Eval[T any](t *Tab, expression string) T {
	t.tb.Helper()
	value, err := chromedp.Run(t.ctx, chromedp.Evaluate[T](expression, func(p *runtime.EvaluateParams) {
		p.AwaitPromise = &[]bool{true}[0]
		p.UserGesture = &[]bool{true}[0]
	}))
	t.must("evaluating "+expression, err)
	return value
}

// Until waits until a JavaScript expression is true. It asks from outside, again and again: the page's own timers stand
// still where JavaScript is switched off, and end with a page that loads itself again.
func (t *Tab) Until(expression string) {
	t.tb.Helper()
	for {
		yes, err := chromedp.Run(t.ctx, chromedp.Evaluate[bool](expression))
		if yes && err == nil {
			return
		}
		select {
		case <-t.ctx.Done():
			t.must("waiting until "+expression, errors.Join(t.ctx.Err(), err))
		case <-time.After(breath):
		}
	}
}

// settled is true when no animation runs but those that never end.
const settled = `document.getAnimations().every(a => a.playState !== "running" || a.effect.getTiming().iterations === Infinity)`

// Screenshot keeps a picture of the whole page as <name>.png in Screenshots(), once what moves has come to rest.
func (t *Tab) Screenshot(name string) {
	t.tb.Helper()
	t.Until(settled)
	t.must("keeping a screenshot", t.capture(name))
}

// keep is Screenshot for a test that failed already.
func (t *Tab) keep(name string) {
	if err := t.capture(name); err != nil {
		t.tb.Logf("no screenshot of the failure: %v", err)
	}
}

func (t *Tab) capture(name string) error {
	folder, err := Screenshots()
	if err != nil {
		return err
	}
	png, err := t.shoot()
	for err != nil && t.ctx.Err() == nil {
		png, err = t.shoot()
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600)
}

// shootTimeout bounds one attempt at a screenshot. Of a page that is left meanwhile, as one that loads itself again is, the
// browser may never make one.
const shootTimeout = 5 * time.Second

func (t *Tab) shoot() ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.ctx, shootTimeout)
	defer cancel()
	return chromedp.Run(ctx, full)
}

// full captures all of the page, also what is below the fold.
func full(ctx context.Context, target *chromedp.Target) ([]byte, error) {
	beyond := true
	shot, err := cdp.Call(ctx, target, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format:                page.CaptureScreenshotFormatPng,
		CaptureBeyondViewport: &beyond,
	})
	if err != nil {
		return nil, err
	}
	return shot.Data, nil
}

// Screenshots is the folder for screenshots, made if need be: $EBB_SCREENSHOTS, or .ebb/screenshots in the repository.
func Screenshots() (string, error) {
	folder := os.Getenv("EBB_SCREENSHOTS")
	if folder == "" {
		root, err := repository()
		if err != nil {
			return "", err
		}
		folder = filepath.Join(root, ".ebb", "screenshots")
	}
	if err := os.MkdirAll(folder, 0o750); err != nil { //nolint:gosec // whoever runs the test says where
		return "", err
	}
	return folder, nil
}

// repository is the folder with go.mod, above the test's own.
func repository() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("no go.mod above the working folder: set EBB_SCREENSHOTS")
		}
		folder = parent
	}
}
