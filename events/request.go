package events

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The longest values that a request's attributes may have, in bytes. They keep a hostile event from costing more than its
// picture does.
const (
	MaxModelLength         = 63    // a DNS label
	MaxSourceLength        = 256   //
	MaxReplyToLength       = 255   // what AMQP allows a queue's name
	MaxCorrelationIDLength = 128   //
	MaxContentTypeLength   = 127   //
	MaxTraceParentLength   = 128   // 55 in version 00; later versions may add fields
	MaxTraceStateLength    = 16447 // 32 members of the longest form: no valid one is refused
)

// Validate says whether r may be sent, or was worth receiving. Its error names the attribute and what is wrong with it.
//
// ReplyTo is only bounded here: its form belongs to the reply queue, and the Responder checks it before it sends. Whether
// Deadline has passed is the receiver's question, not one of form.
func (r *Request) Validate() error {
	return firstError(
		checkUUID("id", r.ID),
		checkSource(r.Source),
		checkTime("time", r.Time),
		checkModel(r.Model),
		checkVisible(ExtReplyTo, r.ReplyTo, MaxReplyToLength),
		checkVisible(ExtCorrelationID, r.CorrelationID, MaxCorrelationIDLength),
		checkTime(ExtDeadline, r.Deadline),
		checkTrace(r.TraceParent, r.TraceState),
		checkPictureType(r.ContentType),
		checkData(r.Data),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func attributeError(name, format string, args ...any) error {
	return fmt.Errorf("attribute %s: %s", name, fmt.Sprintf(format, args...))
}

// checkUUID wants the canonical form and no other of those that uuid.Parse takes, so that equal ids are equal strings.
func checkUUID(name, s string) error {
	if u, err := uuid.Parse(s); err != nil || len(s) != 36 || u.String() != s {
		return attributeError(name, "is not a UUID of 36 lower-case characters")
	}
	return nil
}

// checkVisible wants 1 to limit characters that no header, log line or queue name needs to escape.
func checkVisible(name, s string, limit int) error {
	if s == "" {
		return attributeError(name, "is missing")
	}
	if len(s) > limit {
		return attributeError(name, "has %d bytes; at most %d are allowed", len(s), limit)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return attributeError(name, "has a character at offset %d that is not visible ASCII", i)
		}
	}
	return nil
}

// checkSource wants a URI reference, as CloudEvents does.
func checkSource(s string) error {
	if err := checkVisible("source", s, MaxSourceLength); err != nil {
		return err
	}
	if _, err := url.Parse(s); err != nil {
		return attributeError("source", "is not a URI reference")
	}
	return nil
}

// checkTime refuses what RFC 3339 cannot say, and year 1: the zero time, which brokers make of a missing attribute.
func checkTime(name string, t time.Time) error {
	if t.IsZero() {
		return attributeError(name, "is missing")
	}
	if y := t.UTC().Year(); y <= 1 || y > 9999 {
		return attributeError(name, "is in year %d; should be in 2 to 9999", y)
	}
	return nil
}

func checkModel(s string) error {
	if s == "" {
		return attributeError(ExtModel, "is missing")
	}
	if len(s) > MaxModelLength {
		return attributeError(ExtModel, "has %d bytes; at most %d are allowed", len(s), MaxModelLength)
	}
	for i := range len(s) {
		c := s[i]
		inner := i > 0 && i < len(s)-1
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || !inner) {
			return attributeError(ExtModel, "is not a DNS label (a-z, 0-9 and, not first or last, '-')")
		}
	}
	return nil
}

func checkTrace(parent, state string) error {
	if parent == "" {
		if state != "" {
			return attributeError(ExtTraceState, "is set without %s", ExtTraceParent)
		}
		return nil
	}
	if !validTraceParent(parent) {
		return attributeError(ExtTraceParent, "has not the form of W3C trace context (00-<32 hex>-<16 hex>-<2 hex>)")
	}
	if len(state) > MaxTraceStateLength {
		return attributeError(ExtTraceState, "has %d bytes; at most %d are allowed", len(state), MaxTraceStateLength)
	}
	for i := range len(state) {
		if state[i] < ' ' || state[i] >= 0x7f {
			return attributeError(ExtTraceState, "has a character at offset %d that is not printable ASCII", i)
		}
	}
	return nil
}

// validTraceParent knows version 00 exactly and takes what a later version may append, as W3C asks.
func validTraceParent(s string) bool {
	const zeros = "00000000000000000000000000000000"
	if len(s) < 55 || len(s) > MaxTraceParentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, traceID, spanID, flags, rest := s[:2], s[3:35], s[36:52], s[53:55], s[55:]
	if !isHex(version) || !isHex(traceID) || !isHex(spanID) || !isHex(flags) || version == "ff" {
		return false
	}
	if traceID == zeros || spanID == zeros[:16] {
		return false
	}
	if rest == "" {
		return true
	}
	return version != "00" && checkVisible(ExtTraceParent, rest, MaxTraceParentLength) == nil && rest[0] == '-'
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

func checkPictureType(s string) error {
	if s == "" {
		return attributeError("datacontenttype", "is missing")
	}
	if len(s) > MaxContentTypeLength {
		return attributeError("datacontenttype", "has %d bytes; at most %d are allowed", len(s), MaxContentTypeLength)
	}
	t, params, err := mime.ParseMediaType(s)
	if err != nil || len(params) > 0 || !strings.HasPrefix(t, "image/") || t != s {
		return attributeError("datacontenttype", "is not a picture's media type, such as image/jpeg, in lower case and without parameters")
	}
	return nil
}

func checkData(data []byte) error {
	if len(data) == 0 {
		return errors.New("data is empty; it should be the encoded picture")
	}
	return nil
}
