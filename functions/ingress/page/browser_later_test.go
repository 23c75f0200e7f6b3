package page_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

const (
	waiting    = "#answers[data-state=waiting]"
	catCard    = "#answers [data-model=cat]"
	dogCard    = "#answers [data-model=dog]"
	lostNote   = "The server cannot be reached just now. Your question is not lost: trying again …"
	forgetting = "[data-do=forget] button"
)

var failedDog = ask.Result{
	Model: "dog", Question: "Is it a dog?", Error: problem.New("no-answer-in-time", 504, "No answer in time", "It is safe to ask again."),
}

func path(tab *pagetest.Tab) string { return pagetest.Eval[string](tab, "location.pathname") }

// askBoth asks about a picture of the moon whether it is a cat and a dog, and waits until the page waits.
func askBoth(t *testing.T, tab *pagetest.Tab) {
	t.Helper()
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("[value=dog]")
	tab.Click("#go")
	tab.Wait(waiting)
}

func TestEachModelsCardIsAnsweredByItself(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	s := serveLater(t, l)
	tab := open(t, s)
	askBoth(t, tab)
	require.Equal(t, catSaid, tab.Text(catCard+" .verdict"))
	require.Regexp(t, `^Waiting \d:\d\d$`, tab.Text(dogCard+" .verdict"))
	require.Equal(t, "Waiting for one more answer …", tab.Text("[data-part=step]"))
	require.Equal(t, catSaid, tab.Text("#status"))
	require.Equal(t, "answers-title", focused(tab))
	require.Equal(t, firstPath, path(tab), "it can be loaded again")
	require.Equal(t, "Working on it · Ebb", pagetest.Eval[string](tab, "document.title"))
	tab.Click("#go")
	tab.Until(`document.querySelector('[data-model=dog] [data-part=elapsed]').textContent !== '0:00'`) // time passes

	pagetest.Eval[chromedp.Void](tab, `document.querySelector('#answers').mark = document.querySelector('[data-model=cat]').mark = true; document.querySelector('#url').focus()`)
	l.answer("dog")
	tab.Wait(answered)
	require.Equal(t, "No, not a dog: 1 %", tab.Text(dogCard+" .verdict"))
	require.Equal(t, "No, not a dog: 1 %", tab.Text("#status"), "only what is new is announced")
	require.True(t, pagetest.Eval[bool](tab, `document.querySelector('#answers').mark && document.querySelector('[data-model=cat]').mark`), "what has not changed stays")
	require.Equal(t, "url", pagetest.Eval[string](tab, "document.activeElement.id"), "and so does the focus")
	require.Equal(t, "Asked less than a minute ago.", tab.Text("[data-part=step]"))
	require.Equal(t, catSaid+" · Ebb", pagetest.Eval[string](tab, "document.title.replaceAll('\u00a0', ' ')"))
	tab.Until(`!document.querySelector("progress")`)
	require.Len(t, s.questions(), 1, "a second press while waiting asks nothing")
	tab.Screenshot("page-later-answered")

	tab.Open(s.url + firstPath[len(page.Path):])
	tab.Wait(answered)
	tab.Gone("#preview")
	require.Equal(t, catSaid, tab.Text(catCard+" .verdict"), "the answer stays where it is")
	tab.Screenshot("page-later-reloaded")
	tab.Click(forgetting)
	tab.Wait("#answers[data-state=empty]")
	require.Equal(t, "Forgotten.", tab.Text("#status"))
	require.Equal(t, page.Path, path(tab))
	require.Equal(t, "go", focused(tab))
	require.Equal(t, []string{firstID}, l.forgotten())
}

func TestAnAnswerInTimeNeedsNoAddress(t *testing.T) {
	t.Parallel()
	l := newLater("cat", "dog")
	s := serveLater(t, l)
	tab := open(t, s)
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Until(seen)
	tab.Click("#go")
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text("#answers .verdict"))
	require.Equal(t, page.Path, path(tab))
	s.stop() // what comes after the answer is done with, too
	require.Equal(t, 0, pagetest.Eval[int](tab, `document.querySelectorAll("#answers form").length`))
	require.Equal(t, []string{firstID}, l.forgotten())
}

func TestAReloadedPageGoesOnWaiting(t *testing.T) {
	t.Parallel()
	l := newLater()
	s := serveLater(t, l)
	tab := open(t, s)
	askBoth(t, tab)
	at := s.url + path(tab)[len(page.Path):]
	tab.Open(at)
	tab.Wait(waiting)
	tab.Gone("#preview")
	tab.Until(`document.querySelector('#go').getAttribute('aria-disabled') === 'true'`)
	require.True(t, pagetest.Eval[bool](tab, `document.querySelector('[value=dog]').checked`))
	l.answer("cat")
	tab.Wait(catCard + "[data-kind=yes]")
	tab.Wait(dogCard + "[data-kind=waiting]")
	require.Equal(t, catSaid, tab.Text("#status"))
	l.put(failedDog)
	tab.Wait(answered)
	require.Equal(t, "No answer in time. It is safe to ask again.", tab.Text("#status"))
	require.False(t, pagetest.Eval[bool](tab, `!!document.querySelector("#answers [data-do=retry]")`), "the picture is not here")
	tab.Until(`!document.querySelector('#go').hasAttribute('aria-disabled')`)

	tab.Upload("#image", file(t, "moon.png", picture(t))) // and the next question is one of its own
	tab.Wait(ready)
	require.Equal(t, page.Path, path(tab))
	require.Equal(t, "Ebb · Ask a picture", pagetest.Eval[string](tab, "document.title"))
}

func TestAFailureCanBeTriedAgainAfterAWait(t *testing.T) {
	t.Parallel()
	l := newLater()
	s := serveLater(t, l)
	tab := open(t, s)
	askBoth(t, tab)
	l.answer("cat")
	l.put(failedDog)
	tab.Wait(answered)
	l.answer("dog")
	tab.Click("[data-do=retry]")
	tab.Wait(dogCard + "[data-kind=no]")
	require.Equal(t, page.Path, path(tab))
	require.Len(t, s.questions(), 2)
}

func TestALostConnectionIsToldAndTriedAgain(t *testing.T) {
	t.Parallel()
	busy := problem.New("replies-down", http.StatusServiceUnavailable, "For programs", "")
	busy.RetryAfter = 1
	for name, test := range map[string]struct {
		allow      string
		lose, find func(*later, *atomic.Bool)
	}{
		"the network": {
			"net::ERR", func(_ *later, broken *atomic.Bool) { broken.Store(true) }, func(_ *later, broken *atomic.Bool) { broken.Store(false) },
		},
		"the queue": {
			"status of 503", func(l *later, _ *atomic.Bool) { l.fail(busy) }, func(l *later, _ *atomic.Bool) { l.fail(nil) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLater("cat")
			a := &asker{models: catalogue, later: l}
			h := page.New(page.Config{Asker: a, MaxBytes: 1 << 20})
			var broken atomic.Bool
			s := host(t, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if broken.Load() {
					panic(http.ErrAbortHandler) // the connection breaks
				}
				h.ServeHTTP(w, r)
			}))
			tab := open(t, s, pagetest.Still(), pagetest.Allow(test.allow))
			askBoth(t, tab)
			test.lose(l, &broken)
			tab.Until(`document.querySelector('[data-part=step]').textContent === ` + "`" + lostNote + "`")
			require.Equal(t, lostNote, tab.Text("#status"))
			tab.Wait(catCard + "[data-kind=yes]")
			tab.Wait(dogCard + "[data-kind=waiting]")
			tab.Screenshot("page-later-lost")
			if broken.Load() {
				tab.Click(forgetting)
				tab.Until(`document.querySelector('#status').textContent.startsWith('It could not be forgotten')`)
			}
			l.answer("dog")
			test.find(l, &broken)
			tab.Wait(answered)
			require.Equal(t, "No, not a dog: 1 %", tab.Text("#status"))
		})
	}
}

func TestAPageThatCannotLookYetLooksAgain(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	s := serveLater(t, l)
	_, err := l.open(firstID, []string{"cat"})
	require.NoError(t, err)
	l.fail(&problem.Details{Status: http.StatusServiceUnavailable, Title: "For programs", RetryAfter: 1})
	tab := open(t, site{url: s.url + "/requests/" + firstID}, pagetest.Still(), pagetest.Allow("status of 503"))
	tab.Wait("#answers[data-state=unknown]")
	tab.Screenshot("page-later-unknown")
	l.fail(nil)
	tab.Wait(answered)
	require.Equal(t, catSaid, tab.Text("#status"))
}

func TestAnAnswerThatExpiresWhileItIsWaitedForIsExplained(t *testing.T) {
	t.Parallel()
	l := newLater()
	tab := open(t, serveLater(t, l), pagetest.Still(), pagetest.Allow("status of 404"))
	askBoth(t, tab)
	require.NoError(t, l.drop(firstID))
	tab.Wait(failed)
	require.Contains(t, tab.Text("#status"), "There is no such answer. It was forgotten")
	tab.Until(`!document.querySelector('#go').hasAttribute('aria-disabled')`)
	tab.Screenshot("page-later-gone")
}

func TestWaitingIsCancelled(t *testing.T) {
	t.Parallel()
	l := newLater()
	tab := open(t, serveLater(t, l))
	askBoth(t, tab)
	tab.Click(forgetting)
	tab.Wait(ready)
	require.Equal(t, "Cancelled.", tab.Text("#status"))
	require.Equal(t, "go", focused(tab))
	require.Equal(t, page.Path, path(tab))
	require.Equal(t, []string{firstID}, l.forgotten())
	tab.Until(seen) // the picture is still here
}

func TestAPageThatNobodySeesForLongDoesNotLook(t *testing.T) {
	t.Parallel()
	l := newLater()
	tab := open(t, serveLater(t, l))
	askBoth(t, tab)
	pagetest.Eval[chromedp.Void](tab, `(() => {
		const real = performance.now.bind(performance);
		window.passed = 0;
		performance.now = () => real() + passed;
		window.see = (yes) => {
			Object.defineProperty(document, 'hidden', {value: !yes, configurable: true});
			document.dispatchEvent(new Event('visibilitychange'));
		};
		see(false);
	})()`)
	<-l.look // for a while it goes on
	<-l.look

	pagetest.Eval[chromedp.Void](tab, `passed = 6e5`)
	clock := `document.querySelector('[data-part=elapsed]').textContent`
	tab.Until(clock + `.startsWith('10:')`)
	before := l.looked()
	now := pagetest.Eval[string](tab, clock)
	tab.Until(clock + ` !== '` + now + `'`)
	now = pagetest.Eval[string](tab, clock)
	tab.Until(clock + ` !== '` + now + `'`)
	require.LessOrEqual(t, l.looked(), before+1, "then only what was under way is finished")

	l.answer("cat", "dog")
	pagetest.Eval[chromedp.Void](tab, `see(true)`)
	tab.Wait(answered)
}

func TestASlowAnswerWithoutScript(t *testing.T) {
	t.Parallel()
	l := newLater("cat")
	s := serveLater(t, l)
	tab := open(t, s, pagetest.NoScript())
	tab.Upload("#image", file(t, "moon.png", picture(t)))
	tab.Click("[value=dog]")
	tab.Click("#go")
	sees := func(selector string) { // whichever of the pages that follow each other it is
		t.Helper()
		tab.Until("!!document.querySelector('" + selector + "')?.checkVisibility()")
	}
	sees(waiting)
	tab.Until("location.pathname === '" + firstPath + "'")
	sees(catCard + "[data-kind=yes]")
	sees(dogCard + "[data-kind=waiting]")
	sees(".unscripted a")
	tab.Screenshot("page-later-without-script")
	<-l.look
	<-l.look // it loads itself again and again
	l.answer("dog")
	sees(answered)
	require.Equal(t, "No, not a dog: 1 %", tab.Text(dogCard+" .verdict"))
	tab.Click(forgetting)
	tab.Wait("#answers[data-state=empty]")
	require.Equal(t, "Forgotten", tab.Text("#answers h2"))
	require.Equal(t, []string{firstID}, l.forgotten())
}

func TestAWaitCanBeReadAndHeardEverywhere(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]pagetest.Option{
		"light": {pagetest.Still()},
		"dark":  {pagetest.Still(), pagetest.Dark()},
		"phone": {pagetest.Still(), pagetest.Phone(320)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tab := open(t, serveLater(t, newLater("cat")), options...)
			askBoth(t, tab)
			tab.Wait("[data-part=cold]")
			require.Empty(t, pagetest.Eval[[]string](tab, contrasts))
			require.LessOrEqual(t, pagetest.Eval[int](tab, "document.documentElement.scrollWidth - innerWidth"), 0)
			tree := tab.Tree()
			for _, want := range []pagetest.Node{
				{Role: "progressbar", Name: "Working on it"}, {Role: "heading", Name: "Is it a dog?"},
				{Role: "button", Name: "Cancel"}, {Role: "link", Name: "its own address"},
			} {
				_, ok := pagetest.Find(tree, want.Role, want.Name)
				require.True(t, ok, "%s %q is missing in %v", want.Role, want.Name, tree)
			}
			heard := tab.Text("#status")
			elapsed := pagetest.Eval[string](tab, `document.querySelector('[data-part=elapsed]').textContent`)
			tab.Until(`document.querySelector('[data-part=elapsed]').textContent !== '` + elapsed + `'`)
			require.Equal(t, heard, tab.Text("#status"), "the seconds are not read out")
			tab.Screenshot("page-later-" + name)
		})
	}
}
