package models_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

func model(labels int, question string, out models.Output) *models.Model {
	m := &models.Model{Definition: models.Definition{Name: "m", Question: question, Output: out}}
	if m.Output.Scale == 0 {
		m.Output.Scale = 1
	}
	for i := range labels {
		m.Labels = append(m.Labels, fmt.Sprintf("class %d", i))
	}
	return m
}

func TestInterpretSumsTheClassesThatMeanYes(t *testing.T) {
	t.Parallel()
	m := model(6, "Is it?", models.Output{
		Activation: "none", Yes: []models.Range{{From: 0, To: 1}, {From: 4, To: 4}}, Threshold: 0.5, Top: 2,
	})
	a, err := m.Interpret([]float32{0.125, 0.25, 0.3125, 0.0625, 0.25, 0})
	require.NoError(t, err)
	require.InDelta(t, 0.625, *a.Probability, 1e-9)
	require.True(t, *a.Yes)
	require.Equal(t, []models.Class{{Label: "class 2", Probability: 0.3125}, {Label: "class 1", Probability: 0.25}}, a.Top)

	a, err = m.Interpret([]float32{0.125, 0.125, 0.5, 0, 0.125, 0.125})
	require.NoError(t, err)
	require.InDelta(t, 0.375, *a.Probability, 1e-9)
	require.False(t, *a.Yes)
}

func TestInterpretSaysYesAtTheThreshold(t *testing.T) {
	t.Parallel()
	m := model(2, "Is it?", models.Output{Activation: "none", Yes: []models.Range{{From: 0, To: 0}}, Threshold: 0.75, Top: 1})
	a, err := m.Interpret([]float32{0.75, 0.25})
	require.NoError(t, err)
	require.True(t, *a.Yes)
	a, err = m.Interpret([]float32{0.74, 0.26})
	require.NoError(t, err)
	require.False(t, *a.Yes)
}

func TestInterpretWithoutAQuestionOnlyClassifies(t *testing.T) {
	t.Parallel()
	a, err := model(3, "", models.Output{Activation: "none", Top: 5}).Interpret([]float32{0, 1, 0})
	require.NoError(t, err)
	require.Nil(t, a.Yes)
	require.Nil(t, a.Probability)
	require.Equal(t, []models.Class{{"class 1", 1}, {"class 0", 0}, {"class 2", 0}}, a.Top)
}

func TestInterpretSoftmaxIsStable(t *testing.T) {
	t.Parallel()
	for _, shift := range []float32{0, 1e4, -1e4, 1e30} {
		a, err := model(3, "", models.Output{Activation: "softmax", Top: 3}).Interpret([]float32{shift, shift, shift})
		require.NoError(t, err)
		for _, c := range a.Top {
			require.InDelta(t, 1.0/3, c.Probability, 1e-12)
		}
	}
	a, err := model(2, "", models.Output{Activation: "softmax", Top: 2}).Interpret([]float32{-math.MaxFloat32, math.MaxFloat32})
	require.NoError(t, err)
	require.Equal(t, []models.Class{{"class 1", 1}, {"class 0", 0}}, a.Top)
}

func TestInterpretDequantisesBeforeSoftmax(t *testing.T) {
	t.Parallel()
	m := model(2, "", models.Output{Activation: "softmax", Scale: 0.5, Offset: -20, Top: 2})
	a, err := m.Interpret([]float32{44, 40}) // 2 and 0
	require.NoError(t, err)
	require.InDelta(t, math.Exp(2)/(math.Exp(2)+1), a.Top[0].Probability, 1e-12)
}

func TestInterpretRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	tests := []struct {
		name       string
		activation string
		row        []float32
		want       string
	}{
		{"short row", "none", []float32{1}, "models: m: the network's output has 1 values, but there are 2 labels (two)"},
		{"long row", "none", []float32{1, 0, 0}, "models: m: the network's output has 3 values, but there are 2 labels (two)"},
		{"no row", "none", nil, "models: m: the network's output has 0 values, but there are 2 labels (two)"},
		{"NaN", "softmax", []float32{0, nan}, "models: m: the network's output has the value NaN for class 1 (class 1)"},
		{"infinity", "softmax", []float32{inf, 0}, "models: m: the network's output has the value +Inf for class 0 (class 0)"},
		{"NaN among probabilities", "none", []float32{nan, 0}, "models: m: the network's output has the value NaN for class 0 (class 0)"},
		{"logits as probabilities", "none", []float32{0.5, 7.5},
			"models: m: the network's output has the value 7.5 for class 1 (class 1), which is no probability; for logits set output.activation to softmax, for a quantised output set output.scale"},
		{"negative probability", "none", []float32{-0.5, 0.5}, "models: m: the network's output has the value -0.5 for class 0 (class 0), which is no probability"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := model(2, "", models.Output{Activation: tt.activation, Labels: "two", Top: 2}).Interpret(tt.row)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestInterpretForgivesRounding(t *testing.T) {
	t.Parallel()
	m := model(3, "Is it?", models.Output{Activation: "none", Yes: []models.Range{{From: 0, To: 1}}, Threshold: 1, Top: 3})
	a, err := m.Interpret([]float32{1.0005, 0.0003, -0.0002})
	require.NoError(t, err)
	require.InDelta(t, 1, *a.Probability, 0)
	require.True(t, *a.Yes)
	require.Equal(t, []models.Class{{"class 0", 1}, {"class 1", float64(float32(0.0003))}, {"class 2", 0}}, a.Top)
}

func TestInterpretTopAgreesWithSorting(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n, k := 1+random.IntN(40), 1+random.IntN(12)
		row := make([]float32, n)
		order := make([]int, n)
		for i := range row {
			row[i], order[i] = float32(random.IntN(10))/16, i // many are equal
		}
		slices.SortStableFunc(order, func(a, b int) int { return int(16*row[b]) - int(16*row[a]) })
		want := []string{}
		for _, i := range order[:min(k, n)] {
			want = append(want, fmt.Sprintf("class %d", i))
		}
		a, err := model(n, "", models.Output{Activation: "none", Top: k}).Interpret(row)
		require.NoError(t, err)
		got := []string{}
		for _, c := range a.Top {
			got = append(got, c.Label)
		}
		require.Equal(t, want, got, "%v", row)
	}
}

func BenchmarkInterpret(b *testing.B) {
	m := model(1001, "Is it?", models.Output{
		Activation: "softmax", Scale: 0.075975, Offset: -4.02, Yes: []models.Range{{From: 282, To: 286}}, Threshold: 0.5, Top: 5,
	})
	random := rand.New(rand.NewPCG(1, 2))
	row := make([]float32, 1001)
	for i := range row {
		row[i] = float32(random.IntN(256))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Interpret(row); err != nil {
			b.Fatal(err)
		}
	}
}
