package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// What is better for a figure.
const (
	lower  = "lower"
	higher = "higher"
)

// figure is one result.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Goal   float64 `json:"goal,omitempty"` // 0: there is none
	Better string  `json:"better"`
	Note   string  `json:"note,omitempty"`
}

// ofGoal is how much of the goal is used up: at most 1 when it is met.
func (f figure) ofGoal() float64 {
	if f.Better == higher {
		return f.Goal / f.Value
	}
	return f.Value / f.Goal
}

func (f figure) goal() string {
	if f.Goal == 0 {
		return ""
	}
	sign, met := "≤", "met"
	if f.Better == higher {
		sign = "≥"
	}
	if f.ofGoal() > 1 {
		met = "missed"
	}
	return fmt.Sprintf("%s %g %s: %s", sign, f.Goal, f.Unit, met)
}

// report writes the tables, the figures and the charts, and prints the tables.
func report(folder string, figures []figure, comparisons []comparison) error {
	var table strings.Builder
	fmt.Fprintf(&table, "Measured on %d cores (%s/%s, %s).\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	table.WriteString("| what | figure | goal | |\n|---|---|---|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&table, "| %s | %.3g %s | %s | %s |\n", f.Name, f.Value, f.Unit, f.goal(), f.Note)
	}
	if len(comparisons) > 0 {
		compared(&table, comparisons)
	}
	fmt.Print("\n", table.String())
	if err := os.WriteFile(filepath.Join(folder, "results.md"), []byte(table.String()), 0o644); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(folder, "results.json"), figures); err != nil {
		return err
	}
	if err := chart(filepath.Join(folder, "chart.svg"), figures); err != nil || len(comparisons) == 0 {
		return err
	}
	if err := writeJSON(filepath.Join(folder, "brokers.json"), comparisons); err != nil {
		return err
	}
	return chartBrokers(filepath.Join(folder, "brokers.svg"), comparisons)
}

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// The colours of charts.
var (
	dark  = color.RGBA{R: 0x0b, G: 0x4f, B: 0x59, A: 0xff}
	light = color.RGBA{R: 0x8f, G: 0xc1, B: 0xc9, A: 0xff}
	red   = color.RGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 0xff}
)

// chart draws how much of each goal is used up.
func chart(file string, figures []figure) error {
	figures = slices.DeleteFunc(slices.Clone(figures), func(f figure) bool { return f.Goal == 0 })
	if len(figures) == 0 {
		return nil
	}
	slices.Reverse(figures) // the first one on top
	values, names := make(plotter.Values, len(figures)), make([]string, len(figures))
	for i, f := range figures {
		values[i], names[i] = f.ofGoal(), f.Name
	}
	p := newPlot(names)
	p.Title.Text = "Share of each goal that is used up (1 = just met)"
	p.X.Min, p.X.Max = 0, math.Max(1.1, slices.Max(values))
	bars, err := plotter.NewBarChart(values, vg.Points(14))
	if err != nil {
		return err
	}
	bars.Horizontal = true
	bars.Color = dark
	bars.LineStyle.Width = 0
	line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(figures)) - 0.5}})
	if err != nil {
		return err
	}
	line.Color = red
	p.Add(plotter.NewGrid(), bars, line)
	return p.Save(10*vg.Inch, vg.Length(len(figures))*0.35*vg.Inch+vg.Inch, file)
}

// newPlot is a chart with a name for each bar, from the bottom upwards.
func newPlot(names []string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	wide := slices.Clone(names)
	for i := range wide {
		// Viewers that do not have the font take a wider one. Blanks at the end are not shown, but there is room for them.
		wide[i] += strings.Repeat(" ", 2+len(wide[i])/3)
	}
	p.NominalY(wide...)
	return p
}

// quantile is the value below which a share q of the values lies.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(values []float64) float64 { return quantile(values, 0.5) }
