package worker

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/models/picture"
)

const tellOperator = " Asking again will not help; tell the operator."

func malformed(err error) *problem.Details {
	return problem.New("malformed-event", http.StatusBadRequest, "The request event is malformed", err.Error()+".")
}

func tooLarge(most int64) *problem.Details {
	return problem.New("picture-too-large", http.StatusRequestEntityTooLarge, "The picture is too large",
		fmt.Sprintf("A picture may have %d bytes at most. Send a smaller version.", most))
}

func badAddress() *problem.Details {
	return problem.New("bad-reply-address", http.StatusBadRequest, "The request event names no reply queue",
		"The attribute replyto must be the name of a reply queue that the broker named.")
}

func misrouted(event, worker string) *problem.Details {
	return problem.New("misrouted", http.StatusInternalServerError, "The request went to the wrong model",
		fmt.Sprintf("A request for the model %q was delivered to %q.", event, worker)+tellOperator)
}

// badPicture only knows of what ingress cannot see in a header; the rest is for requests that came another way.
func badPicture(err error) *problem.Details {
	switch {
	case errors.Is(err, picture.ErrTooManyPixels):
		return problem.New("picture-too-large", http.StatusUnprocessableEntity, "The picture has too many pixels", "Send a smaller version.")
	case errors.Is(err, picture.ErrUnsupported):
		return problem.New("picture-format", http.StatusUnsupportedMediaType, "This kind of picture is not supported",
			"Send the picture as JPEG, PNG, GIF, WebP, BMP or TIFF.")
	case errors.Is(err, picture.ErrNotPicture):
		return problem.New("not-a-picture", http.StatusUnsupportedMediaType, "This is not a picture",
			"The data is not a picture of a known kind. Send JPEG, PNG, GIF, WebP, BMP or TIFF.")
	default:
		return problem.New("picture-damaged", http.StatusUnprocessableEntity, "The picture is damaged",
			"The picture's header is fine, but what follows cannot be decoded. It may have been cut off on its way; send the whole file.")
	}
}

func inputRefused() *problem.Details {
	return problem.New("input-refused", http.StatusUnprocessableEntity, "The network refused the picture",
		"The network cannot take this picture as its input. Try another form of it, such as a baseline JPEG; if that is refused too, tell the operator.")
}

func badOutput() *problem.Details {
	return problem.New("bad-output", http.StatusBadGateway, "The network's output makes no sense",
		"The network answered with values that its model's definition does not allow."+tellOperator)
}

func serverAway() *problem.Details {
	p := problem.New("model-unavailable", http.StatusServiceUnavailable, "The model is not available",
		"Its model server could not be reached for as long as the request could wait: it is starting, overloaded or away. Try again in a while.")
	p.RetryAfter = 10
	return p
}

func badServing() *problem.Details {
	return problem.New("bad-serving", http.StatusBadGateway, "The network cannot be called",
		"The model server does not have what the model's definition names."+tellOperator)
}

func tooLate() *problem.Details {
	return problem.New("no-answer-in-time", http.StatusGatewayTimeout, "There was no answer in time",
		"The model did not come to the request before its time was over: it is overloaded, or away. Try again in a while.")
}
