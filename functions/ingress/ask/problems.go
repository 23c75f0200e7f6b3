package ask

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

// StatusClientGone is the status of a question whose caller went away: nobody reads it, but logs and metrics count it.
const StatusClientGone = 499

// The codes of the problems that Ask returns: the last part of problem.Details.Type.
const (
	CodeNoModel         = "no-model"           // 400: no model was named
	CodeTooManyModels   = "too-many-models"    // 400
	CodeUnknownModel    = "unknown-model"      // 404
	CodeNoPicture       = "no-picture"         // 400: empty
	CodeNotPicture      = "not-a-picture"      // 415
	CodePictureFormat   = "picture-format"     // 415: a picture, but in a form that is not supported
	CodePictureTooLarge = "picture-too-large"  // 422: too many pixels
	CodePictureDamaged  = "picture-damaged"    // 422
	CodeOverloaded      = "overloaded"         // 503
	CodeBrokerDown      = "broker-unavailable" // 503: the event was not stored, as far as anybody knows
	CodeBrokerRefused   = "broker-refused"     // 502: the broker will never take this event
	CodeRepliesDown     = "replies-down"       // 503: nothing was sent
	CodeReplyLost       = "reply-lost"         // 503: sent, but the answer cannot arrive any more
	CodeBadReply        = "bad-reply"          // 502
	CodeNoAnswerInTime  = "no-answer-in-time"  // 504: the outcome is unknown
	CodeStopping        = "stopping"           // 503
	CodeCallerGone      = "caller-gone"        // 499
	CodeNotLater        = "not-asynchronous"   // 501: there are no mailboxes, or no callbacks
	CodeRequestExists   = "request-exists"     // 409: an id that is taken
	CodeRequestID       = "bad-request-id"     // 400
	CodeUnknownRequest  = "unknown-request"    // 404
	CodeRequestGone     = "request-gone"       // 410
)

const (
	soon      = 1   // seconds until it is worth asking again
	aWhile    = 5   // the same, when something has to be got over first
	mostNames = 50  // of models, in one problem
	mostBytes = 100 // of a client's text, in one problem
)

var errStopping = errors.New("stopping")

func retry(d *problem.Details, seconds int) *problem.Details {
	d.RetryAfter = seconds
	return d
}

func names(ms []*models.Model) string {
	var b strings.Builder
	for i, m := range ms {
		if i == mostNames {
			fmt.Fprintf(&b, " and %d more", len(ms)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.Name)
	}
	return b.String()
}

func noModel(known []*models.Model) *problem.Details {
	return problem.New(CodeNoModel, http.StatusBadRequest, "No model was named",
		"Say which model shall look at the picture. The models are: "+names(known)+".")
}

func tooManyModels(named, most int) *problem.Details {
	return problem.New(CodeTooManyModels, http.StatusBadRequest, "Too many models were named",
		fmt.Sprintf("The request names %d models; at most %d can look at one picture. Send several requests.", named, most))
}

func unknownModel(name string, known []*models.Model) *problem.Details {
	if len(name) > mostBytes {
		name = strings.ToValidUTF8(name[:mostBytes], "") + "…"
	}
	return problem.New(CodeUnknownModel, http.StatusNotFound, "Unknown model",
		fmt.Sprintf("There is no model %q. The models are: %s.", name, names(known)))
}

func badPicture(err error, l picture.Limits) *problem.Details {
	switch {
	case errors.Is(err, picture.ErrTooManyPixels):
		return problem.New(CodePictureTooLarge, http.StatusUnprocessableEntity, "The picture has too many pixels",
			fmt.Sprintf("A picture may have %d million pixels and sides of %d pixels at most. Send a smaller version.",
				l.MaxPixels/1_000_000, l.MaxSide))
	case errors.Is(err, picture.ErrUnsupported):
		return problem.New(CodePictureFormat, http.StatusUnsupportedMediaType, "This kind of picture is not supported",
			"Send the picture as JPEG, PNG, GIF, WebP, BMP or TIFF.")
	case errors.Is(err, picture.ErrNotPicture):
		return problem.New(CodeNotPicture, http.StatusUnsupportedMediaType, "This is not a picture",
			"The data is not a picture of a known kind. Send JPEG, PNG, GIF, WebP, BMP or TIFF.")
	default:
		return problem.New(CodePictureDamaged, http.StatusUnprocessableEntity, "The picture is damaged",
			"The picture's header cannot be read. It may have been cut off on its way; send the whole file.")
	}
}

func noPicture() *problem.Details {
	return problem.New(CodeNoPicture, http.StatusBadRequest, "There is no picture",
		"The request has no picture in it, or an empty one. Send the picture's bytes.")
}

func overloaded() *problem.Details {
	return retry(problem.New(CodeOverloaded, http.StatusServiceUnavailable, "Too many requests are waiting",
		"As many requests wait for their answer as may wait. Try again in a moment."), soon)
}

func brokerBusy(seconds int) *problem.Details {
	return retry(problem.New(CodeOverloaded, http.StatusServiceUnavailable, "The queue is full",
		"The queue takes no more requests at the moment. Try again in a moment."), seconds)
}

func brokerDown() *problem.Details {
	return retry(problem.New(CodeBrokerDown, http.StatusServiceUnavailable, "The queue cannot be reached",
		"The request could not be put into the queue, and nothing was computed. Try again in a moment."), soon)
}

func brokerBlocked() *problem.Details {
	return retry(problem.New(CodeOverloaded, http.StatusServiceUnavailable, "The queue takes no requests",
		"The queue is short of memory or disk and takes no requests until it has room again. Nothing was computed. Try again in a while."), aWhile)
}

func brokerFailed() *problem.Details {
	return retry(problem.New(CodeBrokerDown, http.StatusServiceUnavailable, "The queue did not take the request",
		"The queue is full, or it cannot be reached at the moment. Try again in a moment."), soon)
}

func brokerSilent() *problem.Details {
	return retry(problem.New(CodeBrokerDown, http.StatusServiceUnavailable, "The queue did not answer",
		"The queue did not say in time that it has the request, so the outcome is unknown: the model may look at the picture or not. "+
			"It is safe to ask again."), aWhile)
}

func brokerRefused() *problem.Details {
	return problem.New(CodeBrokerRefused, http.StatusBadGateway, "The queue refused the request",
		"The queue will not take this request as it is. If a smaller picture is refused too, tell the operator.")
}

func repliesDown() *problem.Details {
	return retry(problem.New(CodeRepliesDown, http.StatusServiceUnavailable, "Answers cannot be received",
		"The connection over which answers arrive is being made again. Nothing was sent. Try again in a moment."), soon)
}

func replyLost() *problem.Details {
	return retry(problem.New(CodeReplyLost, http.StatusServiceUnavailable, "The answer was lost",
		"The connection over which the answer would have arrived broke. Ask again."), soon)
}

func badReply() *problem.Details {
	return problem.New(CodeBadReply, http.StatusBadGateway, "The answer makes no sense",
		"What arrived is not an answer to this request. Ask again; if it happens twice, tell the operator.")
}

func noAnswerInTime() *problem.Details {
	return problem.New(CodeNoAnswerInTime, http.StatusGatewayTimeout, "No answer in time",
		"The model did not answer in time, so the outcome is unknown: it may have looked at the picture or not. "+
			"It is safe to ask again.")
}

func stopping() *problem.Details {
	return retry(problem.New(CodeStopping, http.StatusServiceUnavailable, "This server is stopping",
		"This server is being shut down. Ask again: another one will answer."), soon)
}

func callerGone() *problem.Details {
	return problem.New(CodeCallerGone, StatusClientGone, "The caller is gone",
		"The request was cancelled before the answer arrived.")
}

// UnknownModel is the problem of a name that no model has. It lists those that there are.
func (s *Service) UnknownModel(name string) *problem.Details { return unknownModel(name, s.cfg.Models) }

func notLater(what string) *problem.Details {
	return problem.New(CodeNotLater, http.StatusNotImplemented, "This is not offered here", what)
}

func requestExists() *problem.Details {
	return problem.New(CodeRequestExists, http.StatusConflict, "There is such a request already",
		"A request of this id can be collected already. Send another X-Request-Id or none; to ask the same again, send an Idempotency-Key.")
}

func badRequestID() *problem.Details {
	return problem.New(CodeRequestID, http.StatusBadRequest, "This is not a request's id",
		"A request's id is a UUID of 36 lower-case characters, as in the Location of the answer that accepted it.")
}

func unknownRequest() *problem.Details {
	return problem.New(CodeUnknownRequest, http.StatusNotFound, "Unknown request",
		"There is no request of this id to be collected: it was never accepted, or it was dropped, or it has expired.")
}

func requestGone() *problem.Details {
	return problem.New(CodeRequestGone, http.StatusGone, "The request is gone",
		"It was dropped, or it has expired. Ask again.")
}

func mailboxesDown() *problem.Details {
	return retry(problem.New(CodeRepliesDown, http.StatusServiceUnavailable, "Answers cannot be kept at the moment",
		"The queue that keeps them is being reached again. Try again in a moment."), soon)
}

func mailboxesFull() *problem.Details {
	return retry(problem.New(CodeOverloaded, http.StatusServiceUnavailable, "Too many requests are waiting",
		"As many requests are kept as may be. Try again in a moment, or collect and drop what you have asked."), soon)
}
