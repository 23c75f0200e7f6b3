package models

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The limits of a source and a roll-out.
const (
	maxURL     = 2048 // bytes
	leastKeep  = 2    // the version that serves, and the one to go back to
	maxKeep    = 100
	maxGolden  = 32
	maxSteps   = 20
	maxHold    = Duration(time.Hour)
	maxLatency = 1000
	hexOfSHA   = 64
)

// listOnly is the scheme of a source that says which versions there are, and does not have their files.
const listOnly = "grpc"

// withFiles are the schemes of sources that have the files of versions.
var withFiles = []string{"file", "http", "https", "gs", "s3", "oci"}

func (d *decoder) checkSource(s Serving) {
	const at, files = "serving.source.url", "serving.source.files"
	if !d.has("serving.source") {
		return
	}
	for _, field := range []string{"serving.version", "serving.label"} {
		if d.has(field) {
			d.failAt(field, "keeps the version as it is, but serving.source asks for newer ones; give one of them")
		}
	}
	scheme := d.sourceURL(at, s.Source.URL, append([]string{listOnly}, withFiles...))
	switch {
	case scheme == listOnly:
		d.sourceURL(files, s.Source.Files, withFiles)
	case scheme != "" && d.has(files):
		d.failAt(files, "belongs to a %s: URL, which only lists versions; %s has their files itself", listOnly, clip(s.Source.URL))
	}
	d.between("serving.source.keep", s.Source.Keep, leastKeep, maxKeep)
}

// sourceURL returns the scheme of a URL, or nothing when it is not of use.
func (d *decoder) sourceURL(field, text string, schemes []string) string {
	if text == "" {
		d.required(field, text)
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		d.failAt(field, "has %d bytes, want at most %d", len(text), maxURL)
	case err != nil || !slices.Contains(schemes, u.Scheme):
		d.failAt(field, "is %s, want a URL with one of the schemes %s", clip(text), strings.Join(schemes, ", "))
	case u.User != nil:
		d.failAt(field, "has a user; definitions are no place for credentials, a source finds them where it runs")
	case u.Scheme != "file" && u.Host == "":
		d.failAt(field, "is %s, want a host or a bucket after %s://", clip(text), u.Scheme)
	case u.Host+u.Path == "" || u.Opaque != "":
		d.failAt(field, "is %s, want a folder after file://", clip(text))
	case u.Fragment != "":
		d.failAt(field, "is %s, want no #fragment", clip(text))
	default:
		return u.Scheme
	}
	return ""
}

func (d *decoder) checkRollout(m *Model) {
	r := m.Serving.Rollout
	if len(r.Golden) > maxGolden {
		d.failAt("serving.rollout.golden", "has %d pictures, want at most %d", len(r.Golden), maxGolden)
	}
	for i, g := range r.Golden {
		d.checkGolden(m, goldenField(i), g)
	}
	if !d.has("serving.source") {
		for _, name := range []string{"steps", "hold", "errors", "latency"} {
			if field := "serving.rollout." + name; d.has(field) {
				d.failAt(field, "belongs to serving.source, but there is none; add it or remove this")
			}
		}
		return
	}
	d.checkSteps(r.Steps)
	if r.Hold < 0 || r.Hold > maxHold {
		d.failAt("serving.rollout.hold", "is %s, want a time from 0s to 1h", time.Duration(r.Hold))
	}
	if r.Errors < 0 || r.Errors > 1 {
		d.failAt("serving.rollout.errors", "is %v, want a share from 0 to 1", r.Errors)
	}
	if r.Latency < 1 || r.Latency > maxLatency {
		d.failAt("serving.rollout.latency", "is %v, want a factor from 1 to %d", r.Latency, maxLatency)
	}
}

func (d *decoder) checkSteps(steps []int) {
	const field = "serving.rollout.steps"
	if len(steps) > maxSteps {
		d.failAt(field, "has %d steps, want at most %d", len(steps), maxSteps)
	}
	for i, percent := range steps {
		at := fmt.Sprintf("%s[%d]", field, i)
		d.between(at, percent, 1, 99)
		if i > 0 && percent <= steps[i-1] {
			d.failAt(at, "is %d after %d, want more with each step", percent, steps[i-1])
		}
	}
}

func goldenField(i int) string { return fmt.Sprintf("serving.rollout.golden[%d]", i) }

func (d *decoder) checkGolden(m *Model, field string, g Golden) {
	d.required(field+".picture", g.Picture)
	sha := field + ".sha256"
	switch _, err := hex.DecodeString(g.SHA256); {
	case !isWeb(g.Picture) && d.has(sha):
		d.failAt(sha, "belongs to a picture by URL; a file beside the definition is a part of it")
	case !isWeb(g.Picture):
	case g.SHA256 == "":
		d.failAt(sha, "is missing, want that of the picture at the URL, which could become another")
	case err != nil || len(g.SHA256) != hexOfSHA || strings.ToLower(g.SHA256) != g.SHA256:
		d.failAt(sha, "is %s, want %d digits of 0-9a-f", clip(g.SHA256), hexOfSHA)
	}
	answer, label := field+".answer", field+".label"
	switch {
	case d.has(answer) && m.Question == "":
		d.failAt(answer, "belongs to a question, but there is none; give label, the most probable class")
	case d.has(answer):
		d.oneOf(answer, g.Answer, AnswerYes, AnswerNo)
	case !d.has(label) && m.Question != "":
		d.failAt(answer, "is missing, want %s or %s", AnswerYes, AnswerNo)
	case !d.has(label):
		d.failAt(label, "is missing, want the most probable class of the picture")
	}
	if d.has(label) && len(m.Labels) > 0 && !slices.Contains(m.Labels, g.Label) {
		d.failAt(label, "is %s, which is none of the labels (%s)", clip(g.Label), clip(m.Output.Labels))
	}
	if d.has(answer) && d.has(label) {
		d.failAt(label, "is given besides the answer; give one of them")
	}
	if g.Probability < 0 || g.Probability > 1 {
		d.failAt(field+".probability", "is %v, want a probability from 0 to 1", g.Probability)
	}
}

// pictures reads the golden pictures that are files.
func (d *decoder) pictures(golden []Golden, beside func(string) (source, error)) (pictures map[string][]byte, absent []error) {
	pictures = make(map[string][]byte)
	for i, g := range golden[:min(len(golden), maxGolden)] {
		field := goldenField(i) + ".picture"
		switch {
		case g.Picture == "" || isWeb(g.Picture) || pictures[g.Picture] != nil:
		case !isFileName(g.Picture):
			d.failAt(field, "is %s, want the name of a file in the same folder, or an http: or https: URL", clip(g.Picture))
		default:
			src, err := beside(g.Picture)
			if err != nil {
				absent = append(absent, &fieldError{d.file, d.lineOf(field), field, "want a file in the same folder, or an http: or https: URL: " + err.Error()})
				continue
			}
			pictures[g.Picture] = src.data
		}
	}
	if len(pictures) == 0 {
		return nil, absent
	}
	return pictures, absent
}

func isWeb(picture string) bool {
	return strings.HasPrefix(picture, "https://") || strings.HasPrefix(picture, "http://")
}

func (*Duration) expects() string { return "a time such as 30s or 1m30s" }

func (t *Duration) unmarshal(text string) error {
	took, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("is %s, want %s", clip(text), t.expects())
	}
	*t = Duration(took)
	return nil
}
