package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

const (
	envelopeBytes = 64 << 10 // what may be around a picture: a form's boundaries and fields, or JSON
	fieldBytes    = 4 << 10  // of one field of a form that is not the picture
	mostFields    = 64       // in one form
	typeMultipart = "multipart/form-data"
	fieldImage    = "image"
	fieldModel    = "model"
	fieldCallback = "callback"
	jsonFactor    = 4 // what decoding JSON takes, in its own size: its text, the decoder's copy with room to grow, what comes out
)

// infer answers POST /v1/infer: one picture, any number of models. The models are in the query, in the form or in the
// JSON, or in several of these; those of the query come first.
func (g *gateway) infer(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, r, badRequest("The query cannot be read: write it as ?model=cat&model=dog."))
		return
	}
	key, failure := idempotencyKey(r)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	later := g.prefersAsync(r)
	ctx := r.Context()
	if !later {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience(w, r))
		defer cancel()
	}
	question, hold, failure := g.question(ctx, w, r, ask.Question{Models: splitModels(query["model"]), Key: key}, query["callback"])
	if failure != nil {
		fail(w, r, failure)
		return
	}
	defer hold.release()
	question.ID = requestID(r)
	if later {
		g.accept(w, r, question)
		return
	}
	if question.Callback != "" {
		fail(w, r, badRequest("A callback is for who does not wait: send Prefer: respond-async with it."))
		return
	}

	response, err := g.Service.Ask(ctx, question)
	if err != nil {
		failNamed(w, r, problem.From(err))
		return
	}
	adopt(w, r, response.ID)
	writeResponse(w, response)
}

// writeResponse answers with a response, and with the status that it has.
func writeResponse(w http.ResponseWriter, response *ask.Response) {
	status := ask.Status(response)
	if first := response.Results[0].Error; status != http.StatusOK && first.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(first.RetryAfter))
	}
	writeJSON(w, status, response)
}

// question reads the picture, and the models and the callback that the body names beside those of the query, from any of
// the three forms.
func (g *gateway) question(ctx context.Context, w http.ResponseWriter, r *http.Request, q ask.Question, callbacks []string) (ask.Question, *hold, *problem.Details) {
	for _, c := range callbacks {
		if failure := setCallback(&q, c); failure != nil {
			return ask.Question{}, nil, failure
		}
	}
	switch t, parameters := mediaType(r); {
	case t == typeMultipart:
		return g.form(w, r, parameters["boundary"], q)
	case strings.HasPrefix(t, "multipart/"):
		return ask.Question{}, nil, wrongEncoding("Of the multipart forms only " + typeMultipart + " is accepted.")
	case isJSON(t):
		return g.document(ctx, w, r, q)
	}
	b, failure := g.read(w, r, g.MaxBytes, 1)
	if failure != nil {
		return ask.Question{}, nil, failure
	}
	q.Picture = b.data
	return q, b.hold, nil
}

// setCallback gives a question the one callback that it may have.
func setCallback(q *ask.Question, address string) *problem.Details {
	switch {
	case address == "":
		return badRequest("The callback is empty. Leave it out, or give its address.")
	case q.Callback != "" && q.Callback != address:
		return badRequest("There are several callbacks; a request can have one.")
	}
	q.Callback = address
	return nil
}

// form reads multipart/form-data: one field image, any number of fields model, and a field callback. It is read as it
// arrives.
func (g *gateway) form(w http.ResponseWriter, r *http.Request, boundary string, q ask.Question) (ask.Question, *hold, *problem.Details) {
	if boundary == "" {
		return ask.Question{}, nil, badRequest("The Content-Type has no boundary; let your HTTP library write it.")
	}
	hold, failure := g.admit(w, r, g.MaxBytes+envelopeBytes, 1)
	if failure != nil {
		return ask.Question{}, nil, failure
	}
	failure = g.readForm(r, multipart.NewReader(r.Body, boundary), &q)
	if failure != nil {
		hold.release()
		return ask.Question{}, nil, failure
	}
	hold.shrink(int64(len(q.Picture)))
	return q, hold, nil
}

func (g *gateway) readForm(r *http.Request, form *multipart.Reader, q *ask.Question) *problem.Details {
	for n := 0; ; n++ {
		part, err := form.NextPart()
		end := err == io.EOF //nolint:errorlint // wrapped, it is the end of what arrived and not of the form
		switch {
		case end && q.Picture == nil:
			return badRequest("The form has no field %q with a picture in it.", fieldImage)
		case end:
			return nil
		case err != nil:
			return badForm(r, err)
		case n == mostFields:
			return badRequest("The form has more than %d fields.", mostFields)
		}
		switch name := part.FormName(); {
		case name == fieldImage && q.Picture != nil:
			return badRequest("The form has several fields %q. Send one picture a request.", fieldImage)
		case name == fieldImage:
			q.Picture, err = readPart(part, r.ContentLength, g.MaxBytes)
		case name == fieldModel:
			var text []byte
			text, err = readPart(part, fieldBytes, fieldBytes)
			q.Models = append(q.Models, splitModels([]string{string(text)})...)
		case name == fieldCallback:
			var text []byte
			if text, err = readPart(part, fieldBytes, fieldBytes); err == nil {
				if failure := setCallback(q, string(text)); failure != nil {
					return failure
				}
			}
		default:
			return badRequest("The form has a field %.64q; it may have one %q, any number of %q, and one %q.", name, fieldImage, fieldModel, fieldCallback)
		}
		switch {
		case errors.Is(err, errPartTooLarge) && part.FormName() != fieldImage:
			return fieldTooLarge(part.FormName(), fieldBytes)
		case errors.Is(err, errPartTooLarge):
			return pictureTooLarge(g.MaxBytes)
		case err != nil:
			return badForm(r, err)
		}
	}
}

var errPartTooLarge = errors.New("part too large")

// readPart reads a field of at most limit bytes. expect is how many may come at most; negative when nothing says so.
func readPart(part io.Reader, expect, limit int64) ([]byte, error) {
	room := min(max(expect, 0), limit) + bytes.MinRead // so that finding the end does not need more
	buf := bytes.NewBuffer(make([]byte, 0, room))
	n, err := buf.ReadFrom(io.LimitReader(part, limit+1))
	if err == nil && n > limit {
		err = errPartTooLarge
	}
	return buf.Bytes(), err
}

func badForm(r *http.Request, err error) *problem.Details {
	if errors.Is(err, io.EOF) { // the body is whole, and the form is not
		return badRequest("The form does not end with the boundary that the Content-Type names; let your HTTP library write both.")
	}
	if p := unreadable(r, err); p.Type != badRequest("").Type {
		return p
	}
	return badRequest("The form cannot be read. Send multipart/form-data with one field %q.", fieldImage)
}

// inferJSON is the body of POST /v1/infer as JSON.
type inferJSON struct {
	URL    *string  `json:"url"`
	Image  []byte   `json:"image"` // base64
	Models []string `json:"models"`
	// Callback is a pointer to tell an empty one from none.
	Callback *string `json:"callback"`
}

// document reads JSON: the picture's address, or the picture itself.
func (g *gateway) document(ctx context.Context, w http.ResponseWriter, r *http.Request, q ask.Question) (ask.Question, *hold, *problem.Details) {
	b, failure := g.read(w, r, base64Bytes(g.MaxBytes)+envelopeBytes, jsonFactor)
	if failure != nil {
		return ask.Question{}, nil, failure
	}
	var d inferJSON
	if failure := decodeJSON(b.data, &d); failure != nil {
		b.release()
		return ask.Question{}, nil, failure
	}
	q.Models, q.Picture = append(q.Models, splitModels(d.Models)...), d.Image
	if d.Callback != nil {
		if failure := setCallback(&q, *d.Callback); failure != nil {
			b.release()
			return q, nil, failure
		}
	}
	switch {
	case (d.URL == nil) == (d.Image == nil):
		b.release()
		return q, nil, badRequest(`The JSON needs either "url", a picture's address, or "image", the picture in base64.`)
	case d.URL == nil && int64(len(d.Image)) > g.MaxBytes:
		b.release()
		return q, nil, pictureTooLarge(g.MaxBytes)
	case d.URL == nil:
		b.hold.shrink(int64(len(d.Image)))
		return q, b.hold, nil
	}
	b.release()
	return g.fetched(ctx, q, *d.URL)
}

// fetched adds the picture at an address to a question.
func (g *gateway) fetched(ctx context.Context, q ask.Question, address string) (ask.Question, *hold, *problem.Details) {
	if g.Fetcher == nil {
		return q, nil, noFetching()
	}
	if err := g.Service.Expect(q.Models); err != nil {
		return q, nil, problem.From(err) // before anything is fetched for nothing
	}
	hold := g.memory.take(g.MaxBytes)
	if hold == nil {
		return q, nil, busy()
	}
	picture, err := g.Fetcher.Fetch(ctx, address)
	if err != nil {
		hold.release()
		return q, nil, problem.From(err)
	}
	hold.shrink(int64(len(picture)))
	q.Picture = picture
	return q, hold, nil
}

// decodeJSON reads one JSON value strictly: members that are not known are mistakes.
func decodeJSON(data []byte, into any) *problem.Details {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("The JSON goes on after its end.")
	}
	return nil
}

// badJSON says what is wrong for who wrote the JSON, who does not know Go's types.
func badJSON(err error) *problem.Details {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	var notBase64 base64.CorruptInputError
	switch {
	case errors.As(err, &syntax):
		return badRequest("The JSON has a mistake after %d bytes: %.100s.", syntax.Offset, syntax.Error())
	case errors.As(err, &wrongType):
		if wrongType.Field == "" {
			return badRequest("The JSON has to be an object, and is of the type %.32s.", wrongType.Value)
		}
		return badRequest("In the JSON, %q cannot be of the type %.32s.", wrongType.Field, wrongType.Value)
	case errors.As(err, &notBase64):
		return badRequest("In the JSON, what should be base64 is not: use the standard alphabet, with its padding and without a prefix such as data:.")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("The JSON ends too early.")
	default:
		return badRequest("The JSON does not fit here: %.100s.", strings.TrimPrefix(err.Error(), "json: "))
	}
}

// base64Bytes is how many characters so many bytes have.
func base64Bytes(n int64) int64 { return (n + 2) / 3 * 4 }

// splitModels takes names apart that are separated by commas.
func splitModels(lists []string) []string {
	var names []string
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}
