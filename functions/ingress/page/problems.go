package page

import (
	"net/http"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// The names under which the page's script finds the problems that only it can see.
const (
	problemTooLarge   = "too-large"
	problemNotPicture = "not-a-picture"
	problemOffline    = "offline"
	problemStrange    = "strange-answer"
)

func tooLarge(limit int64) *problem.Details {
	return problem.New(problemTooLarge, http.StatusRequestEntityTooLarge, "The picture is too large",
		"A picture may have "+size(limit)+" at most. Choose a smaller version of it.")
}

func notPicture() *problem.Details {
	return problem.New(problemNotPicture, http.StatusUnsupportedMediaType, "This is not a picture",
		"Choose a JPEG, PNG, GIF, WebP, BMP or TIFF file.")
}

func offline() *problem.Details {
	return problem.New(problemOffline, http.StatusServiceUnavailable, "The server cannot be reached",
		"Nothing came back. Check that you are online, then try again: your picture is still here.")
}

func strange() *problem.Details {
	return problem.New(problemStrange, http.StatusBadGateway, "The server cannot answer just now",
		"It may be busy or starting again. Wait a moment, then try again: your picture is still here.")
}

func malformed(detail string) *problem.Details {
	return problem.New("bad-request", http.StatusBadRequest, "The form could not be read", detail)
}

func incomplete() *problem.Details {
	return problem.New("incomplete", http.StatusBadRequest, "The form did not arrive whole", "It ended early. Send it again.")
}

func slow() *problem.Details {
	return problem.New("too-slow", http.StatusRequestTimeout, "The picture took too long to arrive",
		"Try again with a smaller picture, or over a faster connection.")
}

func noPicture() *problem.Details {
	return problem.New("no-picture", http.StatusBadRequest, "No picture yet",
		"Choose a picture or give its address, then ask again.")
}

func noQuestion() *problem.Details {
	return problem.New("no-model", http.StatusBadRequest, "No question yet", "Tick at least one question, then ask again.")
}

func notForm() *problem.Details {
	return problem.New("encoding-not-accepted", http.StatusUnsupportedMediaType, "This is not the page's form",
		"Send multipart/form-data, or use POST /v1/infer, which takes a picture as it is.")
}

func foreign() *problem.Details {
	return problem.New("cross-origin", http.StatusForbidden, "This form came from another site",
		"Another site tried to ask in your name, so nothing was sent. Ask again with the form on this page.")
}

func unknownAnswer() *problem.Details {
	return problem.New(ask.CodeUnknownRequest, http.StatusNotFound, "There is no such answer",
		"It was forgotten, its time is over, or its address is not whole. Choose the picture and ask again.")
}

func goneAnswer() *problem.Details {
	return problem.New(ask.CodeRequestGone, http.StatusGone, "This answer is gone",
		"Answers are kept for a while only, or until somebody forgets them. Choose the picture and ask again.")
}

func notNow() *problem.Details {
	return problem.New("not-now", http.StatusServiceUnavailable, "The answer cannot be looked up just now",
		"Where answers are kept cannot be reached. This page looks again by itself.")
}

func left() *problem.Details {
	return problem.New(ask.CodeCallerGone, ask.StatusClientGone, "Nobody waits any more", "The page was left before the answer arrived.")
}
