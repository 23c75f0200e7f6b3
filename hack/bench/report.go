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

// report writes the table, the figures and the chart, and prints the table.
func report(folder string, figures []figure) error {
	var table strings.Builder
	fmt.Fprintf(&table, "Measured on %d cores (%s/%s, %s).\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	table.WriteString("| what | figure | goal | |\n|---|---|---|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&table, "| %s | %.3g %s | %s | %s |\n", f.Name, f.Value, f.Unit, f.goal(), f.Note)
	}
	fmt.Print("\n", table.String())
	if err := os.WriteFile(filepath.Join(folder, "results.md"), []byte(table.String()), 0o644); err != nil {
		return err
	}
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return chart(filepath.Join(folder, "chart.svg"), figures)
}

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
	p := plot.New()
	p.Title.Text = "Share of each goal that is used up (1 = just met)"
	p.X.Min, p.X.Max = 0, math.Max(1.1, slices.Max(values))
	bars, err := plotter.NewBarChart(values, vg.Points(14))
	if err != nil {
		return err
	}
	bars.Horizontal = true
	bars.Color = color.RGBA{R: 0x0b, G: 0x4f, B: 0x59, A: 0xff}
	bars.LineStyle.Width = 0
	line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(figures)) - 0.5}})
	if err != nil {
		return err
	}
	line.Color = color.RGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 0xff}
	p.Add(plotter.NewGrid(), bars, line)
	p.NominalY(names...)
	return p.Save(10*vg.Inch, vg.Length(len(figures))*0.35*vg.Inch+vg.Inch, file)
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
