package picture

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// other is a kind of data that people send in place of a picture that is decoded here.
type other struct {
	magic string // how it begins; ? stands for any byte
	name  string
	err   error
}

var others = []other{
	{"????ftypheic", "a HEIC photo (an iPhone can save JPEG: Settings, Camera, Formats, Most Compatible)", ErrUnsupported},
	{"????ftyphei", "a HEIF picture", ErrUnsupported},
	{"????ftyphev", "a HEIF picture", ErrUnsupported},
	{"????ftypmif1", "a HEIF picture", ErrUnsupported},
	{"????ftypmsf1", "a HEIF picture", ErrUnsupported},
	{"????ftypavi", "an AVIF picture", ErrUnsupported},
	{"????ftypcrx", "a camera's raw file", ErrUnsupported},
	{"????ftyp", "a video (MP4 or QuickTime)", ErrNotPicture},
	{"\xff\x0a", "a JPEG XL picture", ErrUnsupported},
	{"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", ErrUnsupported},
	{"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", ErrUnsupported},
	{"\xff\x4f\xff\x51", "a JPEG 2000 picture", ErrUnsupported},
	{"II+\x00", "a BigTIFF picture", ErrUnsupported},
	{"MM\x00+", "a BigTIFF picture", ErrUnsupported},
	{"\x00\x00\x01\x00", "a Windows icon", ErrUnsupported},
	{"8BPS", "a Photoshop file", ErrUnsupported},
	{"qoif", "a QOI picture", ErrUnsupported},
	{"v/1\x01", "an OpenEXR picture", ErrUnsupported},
	{"FUJIFILM", "a camera's raw file", ErrUnsupported},
	{"%PDF-", "a PDF document", ErrNotPicture},
	{"%!PS", "a PostScript document", ErrNotPicture},
	{"PK\x03\x04", "a ZIP archive or an office document", ErrNotPicture},
	{"\x1f\x8b", "gzip-compressed data", ErrNotPicture},
	{"\x1a\x45\xdf\xa3", "a video (WebM or Matroska)", ErrNotPicture},
	{"RIFF????AVI ", "a video (AVI)", ErrNotPicture},
	{"RIFF????WAVE", "a sound", ErrNotPicture},
	{"OggS", "a sound or a video (Ogg)", ErrNotPicture},
	{"ID3", "a sound (MP3)", ErrNotPicture},
	{"\x7fELF", "a program", ErrNotPicture},
	{"MZ", "a program", ErrNotPicture},
}

// texts are kinds of text, by how they begin in lower case.
var texts = []other{
	{"<!doctype html", "a web page (HTML), not the picture on it", ErrNotPicture},
	{"<html", "a web page (HTML), not the picture on it", ErrNotPicture},
	{"<svg", "an SVG drawing", ErrUnsupported},
	{"data:image/", "a data: URL; send the bytes that it encodes", ErrNotPicture},
	{"/9j/", "base64 text; send the bytes that it encodes", ErrNotPicture},
	{"ivborw0kggo", "base64 text; send the bytes that it encodes", ErrNotPicture},
	{"http://", "an address; send the picture itself", ErrNotPicture},
	{"https://", "an address; send the picture itself", ErrNotPicture},
	{"{", "JSON", ErrNotPicture},
	{"[", "JSON", ErrNotPicture},
}

// refuse returns the error for data that is of no format that is decoded: what it looks like, and what would work.
func refuse(data []byte) error {
	if len(data) == 0 {
		return fmt.Errorf("%w: it is empty; %s", ErrNotPicture, supported)
	}
	what := identify(data)
	return fmt.Errorf("%w: it looks like %s; %s", what.err, what.name, supported)
}

func identify(data []byte) other {
	for _, o := range others {
		if begins(data, o.magic) {
			return o
		}
	}
	head := data[:min(len(data), 1024)]
	text := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(string(head), "\ufeff")))
	for _, o := range texts {
		if strings.HasPrefix(text, o.magic) {
			return o
		}
	}
	switch {
	case !isText(head):
		return other{name: "unknown binary data", err: ErrNotPicture}
	case strings.HasPrefix(text, "<") && strings.Contains(text, "<svg"):
		return other{name: "an SVG drawing", err: ErrUnsupported}
	case strings.HasPrefix(text, "<"):
		return other{name: "XML", err: ErrNotPicture}
	}
	return other{name: "text", err: ErrNotPicture}
}

// isText reports whether data is UTF-8 without control characters, but for a character that is cut at its end.
func isText(data []byte) bool {
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			return !utf8.FullRune(data)
		}
		if r < ' ' && !bytes.ContainsRune([]byte("\t\r\n\f"), r) {
			return false
		}
		data = data[size:]
	}
	return true
}
