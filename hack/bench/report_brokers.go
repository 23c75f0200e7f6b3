package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// compared writes a table of what every transport made of every kind of request.
func compared(table *strings.Builder, comparisons []comparison) {
	table.WriteString("\nThe transports of events, for the same functions; × is relative to the first line of each kind.\n\n" +
		"| request | events travel | p50, one at a time | p99 | throughput | | CPU a request, ms |\n|---|---|---|---|---|---|---|\n")
	for _, c := range comparisons {
		base := c.Transports[0]
		for _, m := range c.Transports {
			fmt.Fprintf(table, "| %s | %s | %.2f ms, %.2f × | %.2f ms, %.2f × | %.0f/s, %.3f × | %.3f to %.3f | %.1f, %.2f ×: %s |\n",
				c.Name, m.Name, m.P50, m.P50/base.P50, m.P99, m.P99/base.P99, m.Rate, m.Throughput, m.Least, m.Most, m.cpu(), m.cpu()/base.cpu(), m.cpuNote())
		}
	}
}

// chartBrokers draws throughput and latency of the transports, relative to those of the first.
func chartBrokers(file string, comparisons []comparison) error {
	panels := []struct {
		title string
		value func(m, base measured) float64
	}{
		{"Throughput at saturation, to that in memory", func(m, _ measured) float64 { return m.Throughput }},
		{"Latency one at a time, p50, to that in memory", func(m, base measured) float64 { return m.P50 / base.P50 }},
	}
	height := vg.Length(len(comparisons))*0.7*vg.Inch + 1.3*vg.Inch
	canvas := vgsvg.New(10*vg.Inch, vg.Length(len(panels))*height)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadX: vg.Points(8), PadY: vg.Points(8)}
	var plots [][]*plot.Plot
	for _, panel := range panels {
		p, err := groupedBars(panel.title, comparisons, panel.value)
		if err != nil {
			return err
		}
		plots = append(plots, []*plot.Plot{p})
	}
	for row, canvases := range plot.Align(plots, tiles, draw.New(canvas)) {
		plots[row][0].Draw(canvases[0])
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(out); err != nil {
		_ = out.Close() // it is of no use
		return err
	}
	return out.Close()
}

// groupedBars draws a bar for each transport but the first, which is the line at 1, in a group for each kind of request.
func groupedBars(title string, comparisons []comparison, value func(m, base measured) float64) (*plot.Plot, error) {
	comparisons = slices.Clone(comparisons)
	slices.Reverse(comparisons) // the first one on top
	names := make([]string, len(comparisons))
	for i, c := range comparisons {
		names[i] = c.Name
	}
	p := newPlot(names)
	p.Title.Text = title
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Padding = true, vg.Points(3)
	const width = 14
	most := 1.1
	for t := range comparisons[0].Transports[1:] {
		values := make(plotter.Values, len(comparisons))
		for i, c := range comparisons {
			values[i] = value(c.Transports[t+1], c.Transports[0])
			most = math.Max(most, values[i])
		}
		bars, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return nil, err
		}
		bars.Horizontal, bars.Offset = true, vg.Points(width*(0.5-float64(t)))
		bars.LineStyle.Width = 0
		bars.Color = dark
		if t == 0 {
			bars.Color = light
		}
		p.Add(bars)
		p.Legend.Add(comparisons[0].Transports[t+1].Name, bars)
	}
	line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(comparisons)) - 0.5}})
	if err != nil {
		return nil, err
	}
	line.Color = red
	p.Add(line)
	p.Legend.Add(comparisons[0].Transports[0].Name, line)
	p.X.Min, p.X.Max = 0, 1.3*most // room for the legend
	return p, nil
}
