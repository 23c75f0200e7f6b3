//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

// answersAPerson asks as people do: in a browser, at the address of the route, when nothing runs.
func answersAPerson(t *testing.T) {
	browser, err := pagetest.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, browser.Stop()) })
	picture, err := filepath.Abs(pictures + "chelsea.png")
	require.NoError(t, err)
	awaitZero(t)

	began := time.Now()
	// On a node that the test shares with pods, each that starts has a network of its own, and the browser breaks off what it was
	// loading. The page asks again.
	tab := browser.Tab(t, pagetest.Allow("net::ERR_NETWORK_CHANGED"))
	tab.Open(address(t) + "/home")
	loaded := time.Since(began)
	tab.Upload("#image", picture)
	tab.Until(`document.querySelector('#preview').naturalWidth > 0`)
	tab.Until(`(document.querySelectorAll('input[name=model]').forEach(b => b.checked = b.value !== 'imagenet'), true)`)
	began = time.Now()
	tab.Click("#go")
	tab.Until(`document.querySelector('#answers').dataset.state === 'answered'`)
	said := tab.Text("#answers")
	measured("the page in a browser, from zero", "loaded after %.2f s, two models answered %.2f s after the click", loaded.Seconds(), time.Since(began).Seconds())
	require.Contains(t, said, "Yes, a cat")
	require.Contains(t, said, "No, not a dog")
	require.Contains(t, said, "inception_v3, version 1")
	tab.Screenshot("cluster-page")
}
