package models

import (
	"fmt"
	"math"
)

// Class is one class of a network with its probability, 0 to 1.
type Class struct {
	Label       string
	Probability float64
}

// Answer is what a network's output says about one picture.
type Answer struct {
	Yes         *bool    // nil for a model without a question
	Probability *float64 // that the answer is yes, 0 to 1; nil with Yes
	Top         []Class  // most probable first; of equals, the lower index first
}

// slack is how far outside 0 to 1 rounding may put a probability that a network gives.
const slack = 1e-3

// Interpret turns one row of the network's output, one raw value a label, into an answer: scale and offset, then the
// activation, then the classes that mean yes summed and compared with the threshold, and the top classes.
//
// It is an error when the row has not one value a label, when a value is NaN or infinite, or when values that should be
// probabilities are not: a network whose definition does not fit it must not answer.
func (m *Model) Interpret(row []float32) (Answer, error) {
	if len(row) != len(m.Labels) {
		return Answer{}, fmt.Errorf("models: %s: the network's output has %d values, but there are %d labels (%s)",
			m.Name, len(row), len(m.Labels), m.Output.Labels)
	}
	highest := math.Inf(-1)
	for i := range row {
		v := m.value(row[i])
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Answer{}, fmt.Errorf("models: %s: the network's output has the value %v for class %d (%s)",
				m.Name, row[i], i, m.Labels[i])
		}
		highest = max(highest, v)
	}
	probability := m.probability
	if m.Output.Activation == ActivationSoftmax {
		// Relative to the highest value no exponential overflows and their sum is at least 1.
		sum := 0.0
		for _, raw := range row {
			sum += math.Exp(m.value(raw) - highest)
		}
		probability = func(raw float32) float64 { return math.Exp(m.value(raw)-highest) / sum }
	} else {
		for i, raw := range row {
			if v := m.value(raw); v < -slack || v > 1+slack {
				return Answer{}, fmt.Errorf("models: %s: the network's output has the value %v for class %d (%s), which is no "+
					"probability; for logits set output.activation to softmax, for a quantised output set output.scale",
					m.Name, v, i, m.Labels[i])
			}
		}
	}

	var a Answer
	if m.Question != "" {
		sum := 0.0
		for _, r := range m.Output.Yes {
			for _, raw := range row[r.From : r.To+1] {
				sum += probability(raw)
			}
		}
		sum = min(sum, 1) // rounding, or classes that do not exclude each other
		yes := sum >= m.Output.Threshold
		a.Yes, a.Probability = &yes, &sum
	}
	top := largest(row, m.Output.Top)
	a.Top = make([]Class, len(top))
	for i, index := range top {
		a.Top[i] = Class{Label: m.Labels[index], Probability: probability(row[index])}
	}
	return a, nil
}

// value undoes the output's quantisation. It keeps order: the scale is positive.
func (m *Model) value(raw float32) float64 {
	return float64(raw)*m.Output.Scale + m.Output.Offset
}

// probability is value for a network that gives probabilities.
func (m *Model) probability(raw float32) float64 {
	return min(max(m.value(raw), 0), 1)
}

// largest returns the indices of the n largest values, largest first. n is small: it inserts, it does not sort.
func largest(row []float32, n int) []int {
	top := make([]int, 0, min(n, len(row))+1)
	for i, v := range row {
		if len(top) == min(n, len(row)) && (len(top) == 0 || v <= row[top[len(top)-1]]) {
			continue
		}
		at := len(top)
		for at > 0 && v > row[top[at-1]] {
			at--
		}
		top = append(top, 0)
		copy(top[at+1:], top[at:])
		top[at] = i
		top = top[:min(n, len(top))]
	}
	return top
}
