package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/png"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/wire"
)

const (
	checkTimeout = 2 * time.Minute // for a server to answer all that it is asked
	againAfter   = 200 * time.Millisecond
)

// check asks a version, and it alone, whether it is what its models need: for its signature, and their golden pictures.
// ErrRefused says that it is not.
func (r *Rollout) check(ctx context.Context, address string, version int64) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	server, err := r.Dial(address)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }() // all answers are here
	for _, m := range r.Network.Models {
		if err := r.checkModel(ctx, server, version, m); err != nil {
			return fmt.Errorf("model %s: %w", m.Name, err)
		}
	}
	return nil
}

func (r *Rollout) checkModel(ctx context.Context, server Server, version int64, m *models.Model) error {
	spec := tfserving.Spec{Model: m.Serving.Model, Version: version, Signature: m.Serving.Signature}
	var signatures map[string]tfserving.Signature
	err := patiently(ctx, func() (err error) {
		signatures, err = server.Metadata(ctx, spec)
		return err
	})
	if err != nil {
		return faulty(err)
	}
	if err := fits(signatures, m); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	golden := m.Serving.Rollout.Golden
	if len(golden) == 0 {
		// There is no answer to hold it to, but it has to give one.
		var grey bytes.Buffer
		if err := png.Encode(&grey, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
			return err
		}
		_, err := ask(ctx, server, spec, m, grey.Bytes())
		return err
	}
	for _, g := range golden {
		if err := r.checkGolden(ctx, server, spec, m, g); err != nil {
			return fmt.Errorf("golden picture %s: %w", g.Picture, err)
		}
	}
	return nil
}

func (r *Rollout) checkGolden(ctx context.Context, server Server, spec tfserving.Spec, m *models.Model, g models.Golden) error {
	data, ok := m.Pictures[g.Picture]
	if !ok {
		var err error
		if data, err = r.Fetch(ctx, g.Picture); err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != g.SHA256 {
			return fmt.Errorf("what is at its URL has the SHA-256 %x, and the definition has %s", sum, g.SHA256)
		}
	}
	a, err := ask(ctx, server, spec, m, data)
	if err != nil {
		return err
	}
	if wrong := compare(a, g); wrong != "" {
		return fmt.Errorf("%w: %s", ErrRefused, wrong)
	}
	return nil
}

// ask asks the network one picture.
func ask(ctx context.Context, server Server, spec tfserving.Spec, m *models.Model, data []byte) (models.Answer, error) {
	input, err := item(data, m.Input)
	if err != nil {
		return models.Answer{}, err // the picture's fault, not the version's
	}
	var outputs map[string]tfserving.Tensor
	var version int64
	err = patiently(ctx, func() (err error) {
		outputs, version, err = server.Predict(ctx, spec, map[string]tfserving.Tensor{m.Input.Tensor: input}, m.Output.Tensor)
		return err
	})
	if err != nil {
		return models.Answer{}, faulty(err)
	}
	if version != spec.Version {
		return models.Answer{}, fmt.Errorf("version %d answers in place of version %d", version, spec.Version)
	}
	row, err := outputs[m.Output.Tensor].Floats()
	if err != nil {
		return models.Answer{}, fmt.Errorf("%w: output %q: %w", ErrRefused, m.Output.Tensor, err)
	}
	a, err := m.Interpret(row)
	if err != nil {
		return models.Answer{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return a, nil
}

// item is a batch of one picture.
func item(data []byte, in models.Input) (t tfserving.Tensor, err error) {
	dtype, shape := wire.Item(in)
	t = tfserving.Tensor{DType: dtype, Shape: append([]int64{1}, shape...)}
	if dtype == tfserving.String {
		t.Strings = make([][]byte, 1)
		t.Strings[0], err = picture.EncodeJPEG(data, picture.DefaultLimits)
		return t, err
	}
	img, err := picture.Decode(data, picture.DefaultLimits)
	if err != nil {
		return t, err
	}
	t.Data, err = picture.AppendTensor(nil, img, in)
	return t, err
}

// compare says what is wrong with an answer.
func compare(a models.Answer, g models.Golden) string {
	if g.Label != "" {
		switch best := a.Top[0]; {
		case best.Label != g.Label:
			return fmt.Sprintf("the answer is %s (%.3f), and %s is known", best.Label, best.Probability, g.Label)
		case best.Probability < g.Probability:
			return fmt.Sprintf("the answer is %s with a probability of %.3f, and at least %.3f is known", best.Label, best.Probability, g.Probability)
		}
		return ""
	}
	said, probability := models.AnswerNo, 1-*a.Probability
	if *a.Yes {
		said, probability = models.AnswerYes, *a.Probability
	}
	switch {
	case said != g.Answer:
		return fmt.Sprintf("the answer is %s (%.3f), and %s is known", said, probability, g.Answer)
	case probability < g.Probability:
		return fmt.Sprintf("the answer is %s with a probability of %.3f, and at least %.3f is known", said, probability, g.Probability)
	}
	return ""
}

// fits says what of a network's signatures a model's definition does not describe.
func fits(signatures map[string]tfserving.Signature, m *models.Model) error {
	signature, ok := signatures[m.Serving.Signature]
	if !ok {
		return fmt.Errorf("it has no signature %q", m.Serving.Signature)
	}
	dtype, shape := wire.Item(m.Input)
	in, ok := signature.Inputs[m.Input.Tensor]
	switch {
	case !ok:
		return fmt.Errorf("its signature %q has no input %q", m.Serving.Signature, m.Input.Tensor)
	case in.DType != dtype:
		return fmt.Errorf("its input %q is of type %v, and the definition's of %v", m.Input.Tensor, in.DType, dtype)
	case !in.UnknownRank && !matches(in.Shape, shape):
		return fmt.Errorf("its input %q has the shape %v, and the definition's is %v", m.Input.Tensor, in.Shape, append([]int64{-1}, shape...))
	}
	out, ok := signature.Outputs[m.Output.Tensor]
	switch {
	case !ok:
		return fmt.Errorf("its signature %q has no output %q", m.Serving.Signature, m.Output.Tensor)
	case !out.UnknownRank && !hasLabels(out.Shape, int64(len(m.Labels))):
		return fmt.Errorf("its output %q has the shape %v, and the definition has %d labels", m.Output.Tensor, out.Shape, len(m.Labels))
	}
	return nil
}

// anything is a dimension that a signature leaves open.
const anything = -1

// matches says whether batches of any size of such items may be given to an input.
func matches(input, item []int64) bool {
	if len(input) != len(item)+1 || input[0] != anything {
		return false
	}
	for i, n := range item {
		if is := input[i+1]; is != anything && is != n {
			return false
		}
	}
	return true
}

// hasLabels says whether each item of an output may have one value a label.
func hasLabels(output []int64, labels int64) bool {
	if len(output) == 0 || output[0] != anything {
		return false
	}
	n := int64(1)
	for _, dim := range output[1:] {
		if dim == anything {
			return true
		}
		n *= dim
	}
	return n == labels
}

// patiently calls again while there is no server, which may be starting.
func patiently(ctx context.Context, call func() error) error {
	for {
		err := call()
		if !errors.Is(err, tfserving.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(againAfter):
		}
	}
}

// faulty marks the errors of a server that are the network's own.
func faulty(err error) error {
	switch code := status.Code(err); {
	case errors.Is(err, tfserving.ErrInvalid), errors.Is(err, tfserving.ErrAnswer),
		code == codes.FailedPrecondition, code == codes.Unimplemented, code == codes.OutOfRange, code == codes.Internal, code == codes.DataLoss:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}
