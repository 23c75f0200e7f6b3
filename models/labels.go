package models

import (
	"bufio"
	"bytes"
	_ "embed" // the built-in labels
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The limits of a label file.
const (
	maxLabels = 65536 // lines
	maxLabel  = 256   // bytes a line
)

// imagenet is the 1001 classes that the Inception and MobileNet families were trained with: index 0 is "background", the
// rest are the 1000 classes of ILSVRC 2012 in their usual order.
//
//go:embed labels/imagenet.txt
var imagenet []byte

// builtIn are the sets of labels that a definition can name without a file. Models share them.
var builtIn = map[string]func() []string{
	"imagenet-1001": imagenet1001,
	"imagenet-1000": func() []string { return imagenet1001()[1:] },
}

var imagenet1001 = sync.OnceValue(func() []string {
	labels, err := parseLabels(source{file: "labels/imagenet.txt", data: imagenet})
	if err != nil {
		panic(err) // it is part of the program
	}
	return labels
})

// parseLabels reads one label a line. The last line may lack its end, a line's end may be CR LF, and a byte order mark is
// not part of the first label.
func parseLabels(src source) ([]string, error) {
	data := bytes.TrimPrefix(src.data, []byte("\ufeff"))
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxBesideBytes+1)
	labels := make([]string, 0, bytes.Count(data, []byte("\n"))+1)
	for lines.Scan() {
		label := lines.Text()
		wrong := ""
		switch {
		case len(labels) == maxLabels:
			return nil, fmt.Errorf("%s has more than %d lines", src.file, maxLabels)
		case strings.TrimSpace(label) == "":
			wrong = "is empty, want one label a line"
		case len(label) > maxLabel:
			wrong = fmt.Sprintf("has %d bytes, a label has at most %d", len(label), maxLabel)
		case !utf8.ValidString(label):
			wrong = "is not UTF-8"
		case strings.ContainsFunc(label, unicode.IsControl):
			wrong = "has a control character"
		}
		if wrong != "" {
			return nil, fmt.Errorf("%s:%d: %s", src.file, src.line(len(labels)+1), wrong)
		}
		labels = append(labels, strings.TrimSpace(label))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", src.file, err)
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("%s is empty, want one label a line", src.file)
	}
	return labels, nil
}
