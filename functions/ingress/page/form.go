package page

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
)

// What a form may have in it, besides the picture.
const (
	maxURL   = 2048     // bytes of an address
	maxName  = 253      // bytes of a model's name
	maxParts = 100      // fields, files included
	spill    = 64 << 20 // bytes above a picture's limit that are read and dropped, see read
)

// submission is what a person sent with the form.
type submission struct {
	picture []byte
	url     string
	models  []string
}

// read reads the form: the fields image (a file) or url, and any number of model. It is read as it arrives, and nothing
// of it touches the disk.
//
// A browser shows an answer only when it could send everything. So what is too much is read on, up to a bound, and
// dropped: the person gets a sentence instead of a broken connection.
func (h *handler) read(w http.ResponseWriter, r *http.Request) (submission, *problem.Details) {
	var s submission
	body := http.MaxBytesReader(w, r.Body, h.MaxBytes+spill)
	r.Body = body
	if h.origin.Check(r) != nil {
		return s, foreign()
	}
	form, err := r.MultipartReader()
	if err != nil {
		return s, notForm()
	}
	for range maxParts {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return s, s.check()
		}
		if err != nil {
			return s, h.unreadable(err)
		}
		if d := h.readPart(&s, part); d != nil {
			_, _ = io.Copy(io.Discard, body) // whatever is wrong with the rest, d is what to say
			return s, d
		}
	}
	return s, malformed("It has too many fields.")
}

// readPart takes one field into s.
func (h *handler) readPart(s *submission, part *multipart.Part) *problem.Details {
	var limit int64
	switch part.FormName() {
	case "image":
		limit = h.MaxBytes
	case "url":
		limit = maxURL
	case "model":
		limit = maxName
	default:
		return nil // the next part's reader skips it
	}
	data, err := io.ReadAll(io.LimitReader(part, limit+1))
	switch tooLong := int64(len(data)) > limit; {
	case err != nil:
		return h.unreadable(err)
	case part.FormName() == "image":
		if tooLong {
			return tooLarge(h.MaxBytes)
		}
		if s.picture != nil {
			return malformed("It has more than one picture. Send one at a time.")
		}
		if part.FileName() != "" || len(data) > 0 { // else: no file was chosen
			s.picture = data
		}
	case part.FormName() == "url":
		if tooLong {
			return malformed("The address is too long. Save the picture and choose the file instead.")
		}
		if s.url != "" {
			return malformed("It has more than one address. Send one at a time.")
		}
		s.url = strings.TrimSpace(string(data))
	default:
		if tooLong {
			return malformed("The name of a model is too long.")
		}
		s.models = append(s.models, string(data))
	}
	return nil
}

func (s *submission) check() *problem.Details {
	switch {
	case s.picture != nil && s.url != "":
		return malformed("It has a picture and an address. Remove one of them, so that it is clear which picture you mean.")
	case s.picture == nil && s.url == "":
		return noPicture()
	case len(s.models) == 0:
		return noQuestion()
	}
	return nil
}

// unreadable is the problem of a body that could not be read to its end.
func (h *handler) unreadable(err error) *problem.Details {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(h.MaxBytes)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return slow()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return incomplete()
	default:
		return malformed("It is not built as a form is.")
	}
}
