package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/picture"
)

func TestANoisePictureHasItsSizeAndCanBeDecoded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 << 10, 150 << 10} {
		data, err := noise(size)
		require.NoError(t, err)
		require.InEpsilon(t, size, len(data), 0.1)
		img, err := picture.Decode(data, picture.DefaultLimits)
		require.NoError(t, err)
		require.Equal(t, img.Bounds().Dx(), img.Bounds().Dy())
	}
}

// example is two transports of which the second takes three times as long and twice the CPU time.
func example() comparison {
	base := measured{Name: inMemory, times: []float64{2, 1, 3}, rates: []float64{100, 50, 200}}
	base.spend(map[string]int64{"Ebb": 5}, map[string]int64{"Ebb": 25}, 100)
	other := measured{Name: knative, times: []float64{6, 3, 9}, rates: []float64{90, 50, 160}}
	other.spend(map[string]int64{"Ebb": 5}, map[string]int64{"Ebb": 35, "RabbitMQ": 10}, 100)
	base.summarise(base, 1)
	other.summarise(base, 1)
	return comparison{Name: "dog, 1 KB", Transports: []measured{base, other}}
}

func TestAComparisonIsRelativeToTheFirstTransportRoundByRound(t *testing.T) {
	t.Parallel()
	c := example()
	m := c.Transports[1]
	require.InDelta(t, 6, m.P50, 1e-9)
	require.InDelta(t, 0.9, m.Throughput, 1e-9)
	require.InDelta(t, 0.8, m.Least, 1e-9)
	require.InDelta(t, 1, m.Most, 1e-9)
	require.InDelta(t, 2*c.Transports[0].cpu(), m.cpu(), 1e-9)
	require.Equal(t, "Ebb 3.0, RabbitMQ 1.0", m.cpuNote())

	figures := c.figures()
	require.Len(t, figures, 2)
	require.InDelta(t, 4, figures[0].Value, 1e-9)
	require.Equal(t, "≤ 10 ms: met", figures[0].goal())
	require.Equal(t, "≥ 0.9 ×: met", figures[1].goal())
}

func TestTheReportOfBrokersHasALineForEachTransportAndAChart(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := example()
	require.NoError(t, report(folder, c.figures(), []comparison{c}))
	table, err := os.ReadFile(filepath.Join(folder, "results.md"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(table), "| dog, 1 KB | "))
	chart, err := os.ReadFile(filepath.Join(folder, "brokers.svg"))
	require.NoError(t, err)
	require.Contains(t, string(chart), "Throughput at saturation")
	require.FileExists(t, filepath.Join(folder, "brokers.json"))
}

func TestTheCPUTimeOfThisProcessIsInThatOfItsFamily(t *testing.T) {
	t.Parallel()
	before, err := cpuOfFamily()
	require.NoError(t, err)
	require.Contains(t, before, "Ebb")
	after, err := cpuOfFamily()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after["Ebb"], before["Ebb"])
}
