package pagetest

import (
	"encoding/json"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
)

// Node is one node of the accessibility tree: what a screen reader gets to know of an element.
type Node struct {
	Role        string
	Name        string
	Description string
	Properties  map[string]any
	Backend     cdp.BackendNodeID // stays the same as long as the element does
}

// Tree is the tab's accessibility tree in reading order, without what a screen reader is not told.
func (t *Tab) Tree() []Node {
	t.tb.Helper()
	all, err := chromedp.Call(t.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	t.must("reading the accessibility tree", err)
	byID := make(map[accessibility.NodeID]*accessibility.Node, len(all.Nodes))
	for _, n := range all.Nodes {
		byID[n.NodeID] = n
	}
	var list []Node
	var walk func(*accessibility.Node)
	walk = func(n *accessibility.Node) {
		if !n.Ignored {
			properties := make(map[string]any, len(n.Properties))
			for _, p := range n.Properties {
				properties[string(p.Name)] = value(p.Value)
			}
			list = append(list, Node{
				Role:        text(n.Role),
				Name:        squeeze(text(n.Name)),
				Description: squeeze(text(n.Description)),
				Properties:  properties,
				Backend:     n.BackendDOMNodeID,
			})
		}
		for _, id := range n.ChildIDs {
			if child := byID[id]; child != nil {
				walk(child)
			}
		}
	}
	if len(all.Nodes) > 0 {
		walk(all.Nodes[0])
	}
	return list
}

// Find is the first node of a role with a name, which an empty name leaves open.
func Find(tree []Node, role, name string) (Node, bool) {
	for _, n := range tree {
		if n.Role == role && (name == "" || n.Name == name) {
			return n, true
		}
	}
	return Node{}, false
}

func text(v *accessibility.Value) string {
	s, _ := value(v).(string)
	return s
}

func value(v *accessibility.Value) any {
	if v == nil {
		return nil
	}
	var out any
	if json.Unmarshal(v.Value, &out) != nil {
		return nil // no value
	}
	return out
}
