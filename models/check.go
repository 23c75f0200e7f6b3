package models

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The limits of a definition. They are far above what networks need; beyond them is a slip of the hand.
const (
	maxText  = 256  // bytes of a name or a question
	maxSide  = 2048 // pixels of an input
	maxTop   = 1000
	maxSize  = 1024
	maxSlots = 256
	maxQueue = 1 << 20
)

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// tensorOnly are the fields of Input that say how pixels become a tensor.
var tensorOnly = []string{"dtype", "layout", "channels", "width", "height", "resize", "scale", "offset"}

// setDefaults fills in what the file leaves out. What does not apply stays zero.
func (d *decoder) setDefaults(m *Definition) {
	setDefault(d, "serving.signature", &m.Serving.Signature, "serving_default")
	if d.has("serving.source") {
		setDefault(d, "serving.source.keep", &m.Serving.Source.Keep, 3)
		setDefault(d, "serving.rollout.steps", &m.Serving.Rollout.Steps, []int{10, 50})
		setDefault(d, "serving.rollout.hold", &m.Serving.Rollout.Hold, Duration(time.Minute))
		setDefault(d, "serving.rollout.errors", &m.Serving.Rollout.Errors, 0.01)
		setDefault(d, "serving.rollout.latency", &m.Serving.Rollout.Latency, 1.5)
	}
	setDefault(d, "input.kind", &m.Input.Kind, KindTensor)
	if m.Input.Kind == KindTensor {
		setDefault(d, "input.layout", &m.Input.Layout, LayoutNHWC)
		setDefault(d, "input.channels", &m.Input.Channels, ChannelsRGB)
		setDefault(d, "input.resize.method", &m.Input.Resize.Method, MethodBilinear)
		setDefault(d, "input.resize.central_fraction", &m.Input.Resize.CentralFraction, 1)
		if m.Input.DType == DTypeFloat32 {
			setDefault(d, "input.scale", &m.Input.Scale, []float32{1})
			setDefault(d, "input.offset", &m.Input.Offset, []float32{0})
		}
	}
	setDefault(d, "output.scale", &m.Output.Scale, 1)
	setDefault(d, "output.activation", &m.Output.Activation, ActivationNone)
	if m.Question != "" {
		setDefault(d, "output.threshold", &m.Output.Threshold, 0.5)
	}
	setDefault(d, "output.top", &m.Output.Top, 5)
	setDefault(d, "batching.size", &m.Batching.Size, 8)
	setDefault(d, "batching.slots", &m.Batching.Slots, 2)
	setDefault(d, "batching.queue", &m.Batching.Queue, 256)
}

func setDefault[T any](d *decoder, field string, v *T, value T) {
	if !d.has(field) {
		*v = value
	}
}

// check reports whatever does not fit together, given that decode copied what had the right type.
func (d *decoder) check(m *Model) {
	if d.required("name", m.Name) && !dnsLabel.MatchString(m.Name) {
		d.failAt("name", "is %s, want a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
			clip(m.Name))
	}
	d.checkQuestion(m)
	d.checkServing(m.Serving)
	d.checkSource(m.Serving)
	d.checkRollout(m)
	d.checkInput(m.Input)
	d.checkOutput(m)
	d.between("batching.size", m.Batching.Size, 1, maxSize)
	d.between("batching.slots", m.Batching.Slots, 1, maxSlots)
	d.between("batching.queue", m.Batching.Queue, 1, maxQueue)
}

func (d *decoder) checkQuestion(m *Model) {
	if d.has("question") {
		d.required("question", m.Question)
	}
	if m.Question != "" {
		d.required("subject", m.Subject)
		if !d.has("output.yes") {
			d.failAt("output.yes", "is missing, want the classes that mean yes to the question, such as [282-286, 290]")
		}
		return
	}
	for _, field := range []string{"subject", "output.yes", "output.threshold"} {
		if d.has(field) && !d.has("question") {
			d.failAt(field, "belongs to a question, but there is none; add question or remove this")
		}
	}
}

func (d *decoder) checkServing(s Serving) {
	if d.required("serving.address", s.Address) {
		host, port, err := net.SplitHostPort(s.Address)
		if n, portErr := strconv.Atoi(port); err != nil || host == "" || portErr != nil || n < 1 || n > 65535 {
			d.failAt("serving.address", `is %s, want "host:port" with a port from 1 to 65535`, clip(s.Address))
		}
	}
	d.required("serving.model", s.Model)
	d.required("serving.signature", s.Signature)
	if s.Version < 0 {
		d.failAt("serving.version", "is %d, want 1 or more, or 0 for the latest", s.Version)
	}
	if d.has("serving.label") && d.required("serving.label", s.Label) && s.Version != 0 {
		d.failAt("serving.label", "is given besides serving.version; give one of them")
	}
}

func (d *decoder) checkInput(in Input) {
	d.required("input.tensor", in.Tensor)
	if !d.oneOf("input.kind", in.Kind, KindTensor, KindEncoded) {
		return
	}
	if in.Kind == KindEncoded {
		for _, name := range tensorOnly {
			if field := "input." + name; d.has(field) {
				d.failAt(field, "belongs to kind tensor; with kind encoded the network decodes and resizes the picture itself")
			}
		}
		return
	}
	d.oneOf("input.dtype", in.DType, DTypeUint8, DTypeFloat32)
	d.oneOf("input.layout", in.Layout, LayoutNHWC, LayoutNCHW)
	d.oneOf("input.channels", in.Channels, ChannelsRGB, ChannelsBGR)
	d.between("input.width", in.Width, 1, maxSide)
	d.between("input.height", in.Height, 1, maxSide)
	d.oneOf("input.resize.method", in.Resize.Method, MethodBilinear, MethodAntialias)
	if f := in.Resize.CentralFraction; f <= 0 || f > 1 {
		d.failAt("input.resize.central_fraction", "is %v, want more than 0 and at most 1", f)
	}
	if d.has("input.resize.shortest_side") {
		d.between("input.resize.shortest_side", in.Resize.ShortestSide, max(in.Width, in.Height, 1), 2*maxSide)
	}
	d.normalisation("input.scale", in.Scale, in.DType)
	d.normalisation("input.offset", in.Offset, in.DType)
	for i, s := range in.Scale {
		if s == 0 {
			d.failAt(fmt.Sprintf("input.scale[%d]", i), "is 0, which makes every picture the same")
		}
	}
}

func (d *decoder) normalisation(field string, values []float32, dtype string) {
	switch {
	case !d.has(field):
	case dtype == DTypeUint8:
		d.failAt(field, "belongs to dtype float32; uint8 takes the pixels as they are")
	case len(values) != 1 && len(values) != 3:
		d.failAt(field, "has %d numbers, want 1, or 3 for red, green and blue", len(values))
	}
}

func (d *decoder) checkOutput(m *Model) {
	out := m.Output
	d.required("output.tensor", out.Tensor)
	d.required("output.labels", out.Labels)
	d.oneOf("output.activation", out.Activation, ActivationNone, ActivationSoftmax)
	if out.Scale <= 0 {
		d.failAt("output.scale", "is %v, want more than 0", out.Scale)
	}
	if m.Question != "" && (out.Threshold <= 0 || out.Threshold > 1) {
		d.failAt("output.threshold", "is %v, want a probability: more than 0 and at most 1", out.Threshold)
	}
	d.between("output.top", out.Top, 1, maxTop)
	d.checkYes(out.Yes, len(m.Labels))
}

// checkYes reports ranges outside of the labels and classes named twice, which would count twice.
func (d *decoder) checkYes(yes []Range, labels int) {
	if d.has("output.yes") && len(yes) == 0 {
		d.failAt("output.yes", "is empty, want the classes that mean yes, such as [282-286, 290]")
	}
	order := make([]int, 0, len(yes))
	for i, r := range yes {
		if d.wrong[yesField(i)] {
			continue
		}
		if labels > 0 && r.To >= labels {
			d.failAt(yesField(i), "is %s, but the %d labels have the indices 0 to %d", r, labels, labels-1)
		}
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(yes[a].From, yes[b].From) })
	for i := 1; i < len(order); i++ {
		if a, b := yes[order[i-1]], yes[order[i]]; b.From <= a.To {
			d.failAt(yesField(max(order[i-1], order[i])), "%s and %s overlap; name each class once", a, b)
		}
	}
}

func yesField(i int) string { return fmt.Sprintf("output.yes[%d]", i) }

// required reports whether text is there and fit for a name: short, on one line, without space around it.
func (d *decoder) required(field, text string) bool {
	switch {
	case text == "" && !d.has(field):
		d.failAt(field, "is missing")
	case text == "":
		d.failAt(field, "is empty")
	case len(text) > maxText:
		d.failAt(field, "has %d bytes, want at most %d", len(text), maxText)
	case strings.ContainsFunc(text, unicode.IsControl):
		d.failAt(field, "is %s, want one line without control characters", clip(text))
	case strings.TrimSpace(text) != text:
		d.failAt(field, "is %q, want no space at its ends", text)
	default:
		return true
	}
	return false
}

func (d *decoder) oneOf(field, text string, allowed ...string) bool {
	if slices.Contains(allowed, text) {
		return true
	}
	want := strings.Join(allowed, " or ")
	switch {
	case !d.has(field):
		d.failAt(field, "is missing, want %s", want)
	default:
		d.failAt(field, "is %s, want %s", clip(text), want)
	}
	return false
}

func (d *decoder) between(field string, n, least, most int) {
	switch {
	case n >= least && n <= most:
	case !d.has(field):
		d.failAt(field, "is missing, want a number from %d to %d", least, most)
	default:
		d.failAt(field, "is %d, want a number from %d to %d", n, least, most)
	}
}

// String writes a range as a definition does.
func (r Range) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

var errRange = errors.New("want an index such as 290, or a range such as 282-286, the lower end first")

func (*Range) expects() string { return "an index such as 290 or a range such as 282-286" }

func (r *Range) unmarshal(text string) error {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	f, errFrom := strconv.ParseUint(from, 10, 31)
	t, errTo := strconv.ParseUint(to, 10, 31)
	if errFrom != nil || errTo != nil || f > t {
		return fmt.Errorf("is %s, %w", clip(text), errRange)
	}
	r.From, r.To = int(f), int(t)
	return nil
}
