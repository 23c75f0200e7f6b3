package index

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/ebb-inference/ebb/models/source"
)

// maxEntries bounds the links of one page.
const maxEntries = 20_000

// entry is what a page says of one thing in its folder.
type entry struct {
	name   string
	folder bool
}

// list reads the page by which a server shows a folder.
func (x *index) list(ctx context.Context, at *url.URL) ([]entry, error) {
	got, err := x.client.get(ctx, at, page{})
	if err != nil {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(got.kind); err != nil || kind != "text/html" {
		return nil, fmt.Errorf("there is no %s at the URL, and instead of a page that lists a folder the server sends %q", documentName, got.kind)
	}
	return links(got.body, got.at)
}

// links finds what is one step down from a page.
func links(body []byte, at *url.URL) ([]entry, error) {
	var found []entry
	seen := make(map[entry]bool)
	for tokens := html.NewTokenizer(bytes.NewReader(body)); tokens.Next() != html.ErrorToken; {
		// An error is the end: of the page, or of what can be made of it.
		token := tokens.Token()
		if token.DataAtom != atom.A || token.Type != html.StartTagToken {
			continue
		}
		for _, a := range token.Attr {
			if a.Key != "href" {
				continue
			}
			e, ok := step(a.Val, at)
			if !ok || seen[e] {
				continue
			}
			if len(found) == maxEntries {
				return nil, fmt.Errorf("%w: a page has more than %d links", source.ErrLimit, maxEntries)
			}
			seen[e] = true
			found = append(found, e)
		}
	}
	return found, nil
}

// step reads a link, if it leads one step down: others lead to the folder above, to other orders of the same page, or away.
func step(href string, at *url.URL) (entry, bool) {
	to, err := at.Parse(strings.TrimSpace(href))
	if err != nil || to.Scheme != at.Scheme || to.Host != at.Host || to.User != nil || to.RawQuery != "" || to.ForceQuery || to.Fragment != "" {
		return entry{}, false
	}
	rest, ok := strings.CutPrefix(to.EscapedPath(), folderOf(at))
	if !ok {
		return entry{}, false
	}
	rest, folder := strings.CutSuffix(rest, "/")
	name, err := url.PathUnescape(rest)
	if err != nil || strings.Contains(rest, "/") || strings.Contains(name, "/") || strings.Trim(name, ".") == "" {
		return entry{}, false
	}
	return entry{name, folder}, true
}

// folderOf returns the path of the folder that a page shows.
func folderOf(at *url.URL) string {
	p := at.EscapedPath()
	return p[:strings.LastIndexByte(p, '/')+1]
}
