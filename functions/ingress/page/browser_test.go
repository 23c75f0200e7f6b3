package page_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

var browser = sync.OnceValues(pagetest.Start)

// suite stops the browser after the last test and before goroutines are counted.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	if b, err := browser(); err == nil {
		if err := b.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// open opens the page in a tab of its own.
func open(t *testing.T, s site, options ...pagetest.Option) *pagetest.Tab {
	t.Helper()
	b, err := browser()
	require.NoError(t, err)
	tab := b.Tab(t, options...)
	tab.Open(s.url)
	return tab
}

const (
	answered = "#answers[data-state=answered]"
	failed   = "#answers[data-state=failed]"
	ready    = "#answers[data-state=ready]"
	working  = "#answers[data-state=working]"
	seen     = "document.querySelector('#preview').naturalWidth === 480"
	catSaid  = "Yes, a cat: 97 %, tabby"
)

func focused(tab *pagetest.Tab) string {
	return pagetest.Eval[string](tab, "document.activeElement.id || document.activeElement.value || document.activeElement.textContent")
}

func TestAChosenFileIsShownAndAnswered(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s)
	before, ok := pagetest.Find(tab.Tree(), "status", "")
	require.True(t, ok, "there is a live region before it has anything to say")

	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Wait(ready)
	tab.Until(seen)
	require.Contains(t, tab.Text("[data-part=facts]"), "moon.png")
	require.Contains(t, tab.Text("[data-part=facts]"), "480 × 320")
	tab.Screenshot("page-ready")
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text("#answers .verdict"))
	require.Equal(t, "Answered by inception_v3, version 1 · batch of 4", tab.Text("#answers .source"))
	require.Equal(t, "answers-title", focused(tab), "a keyboard and a screen reader go on at the answer")
	require.Equal(t, picture(t), s.questions()[0].Picture)

	require.Equal(t, catSaid, tab.Text("#status"), "and it is announced")
	after, ok := pagetest.Find(tab.Tree(), "status", "")
	require.True(t, ok)
	require.Equal(t, before.Backend, after.Backend, "by the same live region: a new one would be silent")
	require.Equal(t, "polite", after.Properties["live"])
	tab.Screenshot("page-answered")

	tab.Click("[data-do=remove]")
	tab.Wait("#answers[data-state=empty]")
	tab.Gone("#preview")
	tab.Gone("[data-part=facts]")
	require.Equal(t, 0, pagetest.Eval[int](tab, "document.querySelector('#image').files.length"))
}

// inPage is JavaScript for a File and a DataTransfer with it.
func inPage(t *testing.T, event string) string {
	t.Helper()
	return fmt.Sprintf(`(() => {
		const bytes = Uint8Array.from(atob(%q), (c) => c.charCodeAt(0));
		const data = new DataTransfer();
		data.items.add(new File([bytes], 'moon.png', {type: 'image/png'}));
		%s
	})()`, base64.StdEncoding.EncodeToString(picture(t)), event)
}

func TestADroppedFileIsTaken(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s)
	pagetest.Eval[chromedp.Void](tab, inPage(t, `document.body.dispatchEvent(new DragEvent('dragover', {dataTransfer: data, bubbles: true, cancelable: true}));`))
	tab.Wait("#zone[data-over]")
	stays := pagetest.Eval[bool](tab, inPage(t, `return !document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));`))
	require.True(t, stays, "a drop beside the zone does not leave the page")
	tab.Wait(ready)
	tab.Until(seen)
	tab.Until("!('over' in document.querySelector('#zone').dataset)")
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, picture(t), s.questions()[0].Picture)

	pagetest.Eval[chromedp.Void](tab, inPage(t, `
		data.items.add(new File([bytes], 'second.png', {type: 'image/png'}));
		document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));`))
	tab.Wait("[data-part=remark]")
	require.Equal(t, "One picture at a time: this is the first of them.", tab.Text("#status"))
	require.Contains(t, tab.Text("[data-part=facts]"), "moon.png")

	pagetest.Eval[chromedp.Void](tab, `(() => {
		const data = new DataTransfer();
		data.setData('text/uri-list', '# from another page\r\nhttps://example.org/cat.jpg\r\n');
		document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
	})()`)
	tab.Until("document.querySelector('#url').value === 'https://example.org/cat.jpg'")
	tab.Until("document.querySelector('#image').files.length === 0")
}

func TestAPastedPictureOrAddressIsTaken(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s)
	pagetest.Eval[chromedp.Void](tab, inPage(t, `document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));`))
	tab.Wait(ready)
	tab.Until(seen)
	require.Contains(t, tab.Text("#status"), "moon.png")
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, picture(t), s.questions()[0].Picture)

	const text = `(() => {
		const data = new DataTransfer();
		data.setData('text/plain', %q);
		document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
	})()`
	pagetest.Eval[chromedp.Void](tab, fmt.Sprintf(text, "a word"))
	tab.Wait(answered)
	pagetest.Eval[chromedp.Void](tab, fmt.Sprintf(text, " https://example.org/cat.jpg\n"))
	tab.Wait(ready)
	tab.Until("document.querySelector('#url').value === 'https://example.org/cat.jpg'")
}

func TestAnAddressIsAskedAboutAndShown(t *testing.T) {
	t.Parallel()
	fetched := make(chan string, 1)
	s := serve(t, func(c *page.Config, _ *asker) {
		c.Fetcher = fetcher(func(_ context.Context, url string) ([]byte, error) {
			fetched <- url
			return picture(t), nil
		})
	})
	tab := open(t, s)
	tab.Click("[form=example]")
	tab.Wait(ready)
	require.Equal(t, "go", focused(tab), "the next thing to do is to ask")
	tab.Press(kb.Enter)
	tab.Wait(answered)
	require.Equal(t, example, <-fetched)
	tab.Until(seen)

	tab.Click("[data-do=remove]")
	tab.Gone("#preview")
	require.Empty(t, pagetest.Eval[string](tab, "document.querySelector('#url').value"))
	tab.Click("[form=example]")
	tab.Type("#url", "?again")
	tab.Wait(ready)
	tab.Press(kb.Enter)
	tab.Wait(answered)
	require.Equal(t, example+"?again", <-fetched)
}

func TestSeveralQuestionsAreAnsweredInTheOrderAsked(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s, pagetest.Still())
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("[value=dog]")
	tab.Click("[value=imagenet]")
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, []string{catSaid, "No, not a dog: 1 %", "Looks like tabby: 61 %"},
		pagetest.Eval[[]string](tab, `[...document.querySelectorAll('#answers [data-say]')].map((e) => e.textContent.replace(/\s+/g, ' '))`))
	require.Equal(t, "Yes, a cat: 97 %, tabby. No, not a dog: 1 %. Looks like tabby: 61 %", tab.Text("#status"))
	require.Equal(t, []string{"cat", "dog", "imagenet"}, s.questions()[0].Models)
	tab.Screenshot("page-several")
}

func TestTheKeyboardIsEnough(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s)
	next := func(want string) {
		t.Helper()
		tab.Press(kb.Tab)
		require.Contains(t, focused(tab), want)
		require.True(t, pagetest.Eval[bool](tab, `(() => {
			const rings = [document.activeElement, document.activeElement.nextElementSibling, document.activeElement.parentElement];
			return rings.some((e) => e && getComputedStyle(e).outlineStyle === 'solid');
		})()`), "the focus on %q is to be seen", want)
	}
	next("Skip to the answers")
	next("Ebb")
	next("API")
	next("image")
	tab.Pick(file(t, "moon.png", picture(t)), chromedp.KeyEvent(" "))
	tab.Wait(ready)
	next("Remove")
	next("url")
	next("Use this example")
	next("cat")
	tab.Press(" ")
	next("dog")
	tab.Press(" ")
	next("imagenet")
	next("go")
	tab.Press(kb.Enter)
	tab.Wait(answered)
	require.Equal(t, "answers-title", focused(tab))
	require.Equal(t, []string{"dog"}, s.questions()[0].Models)
}

func TestAFailureCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	var once sync.Once
	s := serve(t, func(_ *page.Config, a *asker) {
		a.answer = func(ctx context.Context, q ask.Question) (r *ask.Response, err error) {
			r, err = answerAll(ctx, q)
			once.Do(func() {
				r, err = nil, problem.New("overloaded", 503, "Too many requests are waiting", "As many requests wait as may wait. Try again in a moment.")
			})
			return r, err
		}
	})
	tab := open(t, s, pagetest.Still(), pagetest.Allow("status of 503"))
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(failed)
	require.Equal(t, "Too many requests are waiting. As many requests wait as may wait. Try again in a moment.", tab.Text("#status"))
	require.Equal(t, "answers-title", focused(tab))
	tab.Screenshot("page-failed")
	tab.Press(kb.Tab)
	require.Equal(t, "Try again", focused(tab), "what to do is next")
	tab.Press(kb.Enter)
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text("#answers .verdict"))
	require.Len(t, s.questions(), 2)
	require.Equal(t, s.questions()[0].Picture, s.questions()[1].Picture)
}

func TestASlowAnswerIsExplainedAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	s := serve(t, func(_ *page.Config, a *asker) {
		a.answer = func(ctx context.Context, _ ask.Question) (*ask.Response, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
	})
	tab := open(t, s, pagetest.Still())
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(working)
	require.Equal(t, "answers-title", focused(tab))
	require.Equal(t, []string{"Is it a cat?"}, pagetest.Eval[[]string](tab, `[...document.querySelectorAll('#answers h3')].map((e) => e.textContent)`))
	require.Equal(t, 0, pagetest.Eval[int](tab, "document.getAnimations().length"), "nothing moves for those who asked for that")
	_, ok := pagetest.Find(tab.Tree(), "progressbar", "Working on it")
	require.True(t, ok)
	tab.Click("#go")
	tab.Wait("[data-part=cold]")
	require.Contains(t, tab.Text("#status"), "cold start")
	tab.Screenshot("page-working")
	tab.Click("[data-do=cancel]")
	tab.Wait(ready)
	require.ErrorIs(t, <-ended, context.Canceled, "the server stops, too")
	require.Equal(t, "go", focused(tab))
	require.Equal(t, "Cancelled.", tab.Text("#status"))
	require.Len(t, s.questions(), 1, "a second press while waiting asks nothing")

	tab.Click("#go") // and it goes on from there
	tab.Wait(working)
	tab.Upload("#image", file(t, "other.png", picture(t)))
	tab.Wait(ready)
	require.ErrorIs(t, <-ended, context.Canceled, "another picture ends the question about this one")
}

func TestFilesThatWillNotDoAreNotSent(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *page.Config, _ *asker) { c.MaxBytes = 60_000 })
	tab := open(t, s, pagetest.Still())
	large := noise(t)
	require.Greater(t, len(large), 60_000)

	tab.Upload("#image", file(t, "notes.txt", []byte("not a picture")))
	tab.Wait(failed)
	require.Equal(t, "This is not a picture. Choose a JPEG, PNG, GIF, WebP, BMP or TIFF file.", tab.Text("#status"))

	tab.Upload("#image", file(t, "moon.png", large))
	tab.Wait("[data-do=shrink]")
	require.Equal(t, "The picture is too large. A picture may have 58.5 kB at most. Choose a smaller version of it.", tab.Text("#status"))
	tab.Screenshot("page-too-large")
	tab.Click("#go")
	tab.Wait(failed)
	require.Empty(t, s.questions(), "nothing was sent")

	tab.Click("[data-do=shrink]")
	tab.Wait(ready)
	require.Equal(t, "Made smaller in your browser; the answer is about this version.", tab.Text("[data-part=remark]"))
	require.Contains(t, tab.Text("[data-part=facts]"), "moon.jpg")
	tab.Click("#go")
	tab.Wait(answered)
	require.LessOrEqual(t, len(s.questions()[0].Picture), 60_000)
	require.Equal(t, "image/jpeg", http.DetectContentType(s.questions()[0].Picture))
}

func TestAServerThatIsGoneIsExplained(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s, pagetest.Still(), pagetest.Allow("ERR_CONNECTION_REFUSED"))
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	s.stop()
	tab.Click("#go")
	tab.Wait(failed)
	require.Equal(t, "The server cannot be reached. Nothing came back. Check that you are online, then try again: your picture is still here.", tab.Text("#status"))
	tab.Wait("[data-do=retry]")
}

func TestAnAnswerThatIsNotThePagesIsExplained(t *testing.T) {
	t.Parallel()
	h := page.New(page.Config{Asker: &asker{models: catalogue, answer: answerAll}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			problem.Write(w, problem.New("busy", 503, "Busy", "A proxy says so."))
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	tab := open(t, site{url: server.URL + page.Path}, pagetest.Allow("status of 503"))
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(failed)
	require.Contains(t, tab.Text("#status"), "The server cannot answer just now")
}

func TestAPhotographIsTaken(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s, pagetest.Phone(360), pagetest.Still())
	require.Equal(t, "environment", pagetest.Eval[string](tab, "document.querySelector('#photo').getAttribute('capture')"))
	tab.Wait("label[for=photo]")
	tab.Pick(file(t, "photo.jpg", picture(t)), chromedp.Click(chromedp.CSS("label[for=photo]")))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, picture(t), s.questions()[0].Picture)
	tab.Screenshot("page-phone")
}

func TestTheFormWorksWithoutScript(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s, pagetest.NoScript())
	tab.Gone(".scripted")
	tab.Wait("#image")
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Click("[value=dog]")
	tab.Screenshot("page-without-script")
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text("#answers .verdict"))
	tab.Wait("#preview")
	require.Equal(t, []string{"cat", "dog"}, s.questions()[0].Models)
	require.Equal(t, picture(t), s.questions()[0].Picture)
	tab.Screenshot("page-without-script-answered")

	tab.Click("[form=example]")
	tab.Wait("#answers[data-state=empty]")
	require.Equal(t, example, pagetest.Eval[string](tab, "document.querySelector('#url').value"))
	tab.Click("#go")
	tab.Wait(answered)
	require.Len(t, s.questions(), 2)
}

// contrasts is JavaScript for every text on the page whose contrast is below WCAG's AA.
const contrasts = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
	const paint = (...colors) => {
		canvas.clearRect(0, 0, 1, 1);
		for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
		return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((c) => c / 255);
	};
	const luminance = (rgb) => {
		const [r, g, b] = rgb.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const bad = [];
	let count = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.textContent.trim() || !e.checkVisibility() || e.closest('.unseen, .skip')) continue;
		count++;
		const style = getComputedStyle(e);
		const backs = [];
		for (let p = e; p; p = p.parentElement) backs.unshift(getComputedStyle(p).backgroundColor);
		const back = luminance(paint('Canvas', ...backs));
		const front = luminance(paint('Canvas', ...backs, style.color));
		const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
		const size = parseFloat(style.fontSize);
		const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
		if (ratio < (large ? 3 : 4.5)) bad.push(e.textContent.trim().slice(0, 40) + ': ' + ratio.toFixed(2));
	}
	return count < 15 ? ['only ' + count + ' texts were found'] : bad;
})()`

func TestEverythingCanBeReadInLightAndDark(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]pagetest.Option{
		"light": {pagetest.Still()},
		"dark":  {pagetest.Still(), pagetest.Dark()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(_ *page.Config, a *asker) {
				a.answer = func(ctx context.Context, q ask.Question) (*ask.Response, error) {
					r, err := answerAll(ctx, q)
					r.Results[1].Error = problem.New("no-answer-in-time", 504, "No answer in time", "It is safe to ask again.")
					return r, err
				}
			})
			tab := open(t, s, options...)
			require.Empty(t, pagetest.Eval[[]string](tab, contrasts), "empty")
			tab.Screenshot("page-" + name + "-empty")
			tab.Upload("#image", file(t, "moon.png", picture(t)))
			tab.Until(seen)
			tab.Click("[value=dog]")
			tab.Click("#go")
			tab.Wait(answered)
			require.Empty(t, pagetest.Eval[[]string](tab, contrasts), "answered")
			tab.Screenshot("page-" + name + "-answered")
			light := pagetest.Eval[bool](tab, `getComputedStyle(document.body).backgroundColor === 'rgb(245, 243, 236)'`)
			require.Equal(t, name == "light", light)
		})
	}
}

func TestNothingIsCutOffOnASmallPhone(t *testing.T) {
	t.Parallel()
	const long = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft<b onclick='alert(1)'>"
	s := serve(t, func(_ *page.Config, a *asker) {
		a.answer = func(ctx context.Context, q ask.Question) (*ask.Response, error) {
			r, err := answerAll(ctx, q)
			r.Results = append(r.Results,
				ask.Result{Model: long, Question: long, Top: []events.Class{{Label: long, Probability: 0.5}}, ServedBy: &events.ServedBy{Model: long}},
				ask.Result{Model: long, Question: long, Error: problem.New("x", 500, long, long)})
			return r, err
		}
	})
	tab := open(t, s, pagetest.Phone(320), pagetest.Still())
	narrow := func() {
		t.Helper()
		require.LessOrEqual(t, pagetest.Eval[int](tab, "document.documentElement.scrollWidth"), 320)
		require.Empty(t, pagetest.Eval[[]string](tab, `[...document.querySelectorAll('button, .button, input:not(.camera input, [type=file]), a, label.question')]
			.filter((e) => e.checkVisibility() && !e.closest('.skip, p'))
			.filter((e) => { const b = (e.closest('label') ?? e).getBoundingClientRect(); return b.height < 24 || b.width < 24 || b.right > 320; })
			.map((e) => e.outerHTML.slice(0, 60))`), "what a finger must hit")
	}
	narrow()
	tab.Upload("#image", file(t, strings.Repeat("long", 30)+".png", picture(t)))
	tab.Until(seen)
	narrow()
	tab.Click("#go")
	tab.Wait(answered)
	narrow()
	tab.Screenshot("page-phone-320")
	tab.Until("document.querySelector('#answers').getBoundingClientRect().top < innerHeight / 2") // the answer is in view
}

func TestAScreenReaderIsToldWhatEverythingIs(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	tab := open(t, s)
	tree := tab.Tree()
	for _, want := range []pagetest.Node{
		{Role: "RootWebArea", Name: "Ebb · Ask a picture"},
		{Role: "banner"},
		{Role: "navigation", Name: "More"},
		{Role: "link", Name: "Skip to the answers"},
		{Role: "main"},
		{Role: "heading", Name: "Ask a picture."},
		{Role: "group", Name: "Your picture"},
		{Role: "button", Name: "Choose a picture"},
		{Role: "textbox", Name: "or its address"},
		{Role: "button", Name: "Use this example"},
		{Role: "group", Name: "Your questions"},
		{Role: "checkbox", Name: "Is it a cat? cat"},
		{Role: "checkbox", Name: "Is it a dog? dog"},
		{Role: "checkbox", Name: "What is it? imagenet"},
		{Role: "button", Name: "Ask"},
		{Role: "region", Name: "Answers surface here"},
		{Role: "contentinfo"},
		{Role: "status"},
	} {
		_, ok := pagetest.Find(tree, want.Role, want.Name)
		require.True(t, ok, "%s %q is missing in %v", want.Role, want.Name, tree)
	}
	choose, _ := pagetest.Find(tree, "button", "Choose a picture")
	require.Contains(t, choose.Description, "JPEG, PNG, GIF, WebP, BMP or TIFF")

	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(answered)
	tree = tab.Tree()
	for _, want := range []pagetest.Node{
		{Role: "image", Name: "Your picture"},
		{Role: "region", Name: "Answer"},
		{Role: "heading", Name: "Is it a cat?"},
		{Role: "article"},
		{Role: "list"},
		{Role: "term", Name: ""},
		{Role: "heading", Name: "Where the 48 ms went"},
	} {
		_, ok := pagetest.Find(tree, want.Role, want.Name)
		require.True(t, ok, "%s %q is missing in %v", want.Role, want.Name, tree)
	}
	for _, n := range tree {
		switch n.Role {
		case "button", "link", "checkbox", "textbox", "image":
			require.NotEmpty(t, n.Name, "%s without a name", n.Role)
		}
	}
	levels := pagetest.Eval[[]int](tab, `[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))`)
	require.Equal(t, 1, levels[0])
	for i := range levels[1:] {
		require.LessOrEqual(t, levels[i+1], levels[i]+1, "no level of headings is left out")
	}
}
