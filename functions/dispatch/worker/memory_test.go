package worker_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/jpeg"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// The memory of pictures that were decoded serves the next ones, while what was made of them still waits.
func TestWhatWaitsIsNotOverwrittenByWhatComesLater(t *testing.T) {
	t.Parallel()
	const pictures = 8
	t.Run("tensors", func(t *testing.T) {
		t.Parallel()
		m := newModel(t, pixels)
		files := make([][]byte, pictures)
		for i := range files {
			files[i] = picture(t, i*7000)
		}
		synctest.Test(t, func(t *testing.T) {
			p := newBlocked()
			w := newWorld(t, worker.Config{Model: m, Predictor: p})
			requireOwnAnswers(t, w, p.let, files, func(i int) float64 { return float64(i*7000) / 65535 })
		})
	})
	t.Run("files as they came", func(t *testing.T) {
		t.Parallel()
		m := newModel(t, "input: {tensor: image, kind: encoded}\n")
		files := make([][]byte, pictures)
		for i := range files {
			var b bytes.Buffer
			require.NoError(t, jpeg.Encode(&b, grey(uint8(i*20)), nil))
			files[i] = b.Bytes()
		}
		synctest.Test(t, func(t *testing.T) {
			p := newBlocked()
			p.predict = func(_ context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
				<-p.let
				rows := make([][]float32, len(in.Strings))
				for row, file := range in.Strings {
					for i := range files {
						if bytes.Equal(file, files[i]) {
							rows[row] = []float32{1 - float32(i)/pictures, float32(i) / pictures}
						}
					}
					if rows[row] == nil {
						return tfserving.Tensor{}, errors.New("a file that nobody sent")
					}
				}
				return floats(rows...), nil
			}
			w := newWorld(t, worker.Config{Model: m, Predictor: p})
			requireOwnAnswers(t, w, p.let, files, func(i int) float64 { return float64(i) / pictures })
		})
	})
}

// requireOwnAnswers delivers each picture while those before it wait, lets the model server answer, and wants the answer to
// each to be its own.
func requireOwnAnswers(t *testing.T, w *world, let chan struct{}, files [][]byte, want func(i int) float64) {
	t.Helper()
	delivered := make([]<-chan int, len(files))
	number := map[string]int{}
	for i, file := range files {
		r := w.event(file)
		number[r.CorrelationID] = i
		delivered[i] = w.begin(w.request(r))
	}
	close(let)
	for _, status := range delivered {
		require.Equal(t, http.StatusNoContent, <-status)
	}
	for range files {
		r := <-w.replies
		i, asked := number[r.CorrelationID]
		require.True(t, asked)
		delete(number, r.CorrelationID)
		require.NotNil(t, r.Answer, "%v", r.Problem)
		require.InDelta(t, want(i), *r.Answer.Probability, 1e-6)
	}
}

// grey is a small picture of one colour.
func grey(y uint8) image.Image {
	img := image.NewGray(image.Rect(0, 0, 4, 4))
	for i := range img.Pix {
		img.Pix[i] = y
	}
	return img
}
