package index

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

func TestLinksOnTheServersPages(t *testing.T) {
	t.Parallel()
	folder := func(name string) entry { return entry{name, true} }
	file := func(name string) entry { return entry{name, false} }
	for _, c := range []struct {
		name, at, page string
		want           []entry
	}{
		{
			"nginx", "http://h/models/net/",
			`<html><head><title>Index of /models/net/</title></head><body><h1>Index of /models/net/</h1><hr><pre><a href="../">../</a>
<a href="1/">1/</a>                  31-Jan-2026 12:00       -
<a href="20260131120000/">20260131120000/</a>     31-Jan-2026 12:00       -
<a href="read%20me.txt">read me.txt</a>         31-Jan-2026 12:00      12
</pre><hr></body></html>`,
			[]entry{folder("1"), folder("20260131120000"), file("read me.txt")},
		},
		{
			"Apache, with orders of the same page", "http://h/models/net/",
			`<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><table>
<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td><a href="/models/">Parent Directory</a></td></tr>
<tr><td><a href="2/">2/</a></td></tr><tr><td><a href="a&amp;b">a&amp;b</a></td></tr></table>`,
			[]entry{folder("2"), file("a&b")},
		},
		{
			"Python", "http://h/models/net/",
			`<ul><li><a href="3/">3/</a></li><li><a href="link/">link@</a></li><li><a href="%C3%9C.pb">Ü.pb</a></li></ul>`,
			[]entry{folder("3"), folder("link"), file("Ü.pb")},
		},
		{
			"Caddy", "http://h/models/net/",
			`<a href=".."><span>Go up</span></a><a href="./4/"><span class="name">4</span></a><a href="./model.onnx">model.onnx</a>`,
			[]entry{folder("4"), file("model.onnx")},
		},
		{
			"Go", "http://h/models/net/", `<!doctype html><pre><a href="5/">5/</a><a href="model">model</a></pre>`,
			[]entry{folder("5"), file("model")},
		},
		{
			"absolute links", "http://h/models/net/",
			`<a href="/models/net/6/">6</a><a href="http://h/models/net/7/">7</a><a HREF='//h/models/net/8/'>8</a>`,
			[]entry{folder("6"), folder("7"), folder("8")},
		},
		{"a page that has lost its slash", "http://h/models/net", `<a href="net/">up</a>`, []entry{folder("net")}},
		{"a name twice", "http://h/", `<a href="1/"></a><a href="1/">1</a>`, []entry{folder("1")}},
		{
			"what leads elsewhere", "http://h/models/net/",
			`<a href="http://evil/models/net/1/">1</a><a href="https://h/models/net/2/">2</a><a href="http://h:81/models/net/3/">3</a>
<a href="http://u:p@h/models/net/4/">4</a><a href="5/6/">deep</a><a href="../7/">up</a><a href="8/../../9/">up</a><a href="10/?x">q</a>
<a href="11/#x">f</a><a href="%2e%2e/">up</a><a href="%2e%2e%2f12">up</a><a href="javascript:13">js</a><a href="">self</a><a href="./">self</a>
<a href="%zz">bad</a><a href="a%2Fb">slash</a><a>none</a><a href="...">dots</a>`,
			nil,
		},
		{"broken markup", "http://h/", `<a href="1/">1<a href="2/">2</pre><a href="3/`, []entry{folder("1"), folder("2")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, err := url.Parse(c.at)
			require.NoError(t, err)
			got, err := links([]byte(c.page), at)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestAPageOfTooManyLinksIsOverTheLimit(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	for i := range maxEntries + 1 {
		_, _ = fmt.Fprintf(&page, `<a href="%d/">`, i) // a Builder never fails
	}
	_, err := links([]byte(page.String()), &url.URL{Scheme: "http", Host: "h", Path: "/"})
	require.ErrorIs(t, err, source.ErrLimit)
}

func FuzzLinks(f *testing.F) {
	f.Add(`<a href="1/">1</a>`)
	f.Add(`<a href="%2e%2e%2f">`)
	f.Fuzz(func(t *testing.T, page string) {
		found, err := links([]byte(page), &url.URL{Scheme: "http", Host: "h", Path: "/models/"})
		if err != nil {
			return
		}
		for _, e := range found {
			require.NotContains(t, e.name, "/")
			require.NotEmpty(t, strings.Trim(e.name, "."))
		}
	})
}
