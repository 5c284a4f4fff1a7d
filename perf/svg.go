package perf

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Plot says how the rows of a report that belong to a series are drawn.
type Plot struct {
	Title, X, Y string
	LogX, LogY  bool
	Tails       bool // draw the latencies of each row instead of its value, by how rare they are
}

// point of a series.
type point struct{ x, y float64 }

// points are what a row adds to which series.
func (p *Plot) points(row *Row) (series string, list []point) {
	if !p.Tails {
		return row.Series, []point{{row.X, row.Value}}
	}
	if row.P999 == 0 {
		return "", nil
	}
	return row.Name, []point{{0.5, row.P50}, {0.99, row.P99}, {0.999, row.P999}}
}

// Sizes of a plot in pixels.
const (
	plotWidth, plotHeight                            = 800, 420
	plotLeft, plotRight, plotTop, plotBottom         = 70, 270, 40, 55
	plotTicks                                        = 6 // at most on an axis, about
	innerWidth, innerHeight                  float64 = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
)

var plotColors = []string{"#1f6fb4", "#d9541e", "#2e8b57", "#8b5fbf", "#b8860b", "#555555", "#c2317e"}

// axis maps values to 0..1.
type axis struct {
	low, high float64
	log       bool
}

func newAxis(values []float64, log bool) axis {
	a := axis{slices.Min(values), slices.Max(values), log}
	if log {
		a.low, a.high = math.Pow(10, math.Floor(math.Log10(a.low))), math.Pow(10, math.Ceil(math.Log10(a.high)))
	} else {
		step := tickStep(a.high - a.low)
		a.low, a.high = math.Floor(a.low/step)*step, math.Ceil(a.high/step)*step
	}
	if a.high == a.low {
		a.high = a.low + 1
	}
	return a
}

func (a axis) place(v float64) float64 {
	if a.log {
		return (math.Log10(v) - math.Log10(a.low)) / (math.Log10(a.high) - math.Log10(a.low))
	}
	return (v - a.low) / (a.high - a.low)
}

func (a axis) ticks() (list []float64) {
	if a.log {
		for v := a.low; v <= a.high*1.001; v *= 10 {
			list = append(list, v)
		}
		return list
	}
	step := tickStep(a.high - a.low)
	for v := a.low; v <= a.high+step/1000; v += step {
		list = append(list, v)
	}
	return list
}

// tickStep is 1, 2 or 5 times a power of ten, so that a span has few of them.
func tickStep(span float64) float64 {
	if span <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(span/plotTicks)))
	for _, k := range []float64{1, 2, 5} {
		if span/(unit*k) <= plotTicks {
			return unit * k
		}
	}
	return unit * 10
}

// SVG draws the rows that belong to a series.
func (r *Report) SVG(w io.Writer) error {
	series := make(map[string][]point)
	var names []string
	var xs, ys []float64
	for i := 0; r.Plot != nil && i < len(r.Rows); i++ {
		name, list := r.Plot.points(&r.Rows[i])
		if name == "" {
			continue
		}
		if series[name] == nil {
			names = append(names, name)
		}
		for _, p := range list {
			if r.Plot.Tails {
				p.x = -math.Log10(1 - p.x)
			}
			series[name] = append(series[name], p)
			xs, ys = append(xs, p.x), append(ys, p.y)
		}
	}
	if len(xs) == 0 {
		return fmt.Errorf("there is nothing to draw of '%s'", r.What)
	}
	if !r.Plot.LogY {
		ys = append(ys, 0)
	}
	p := &painter{x: newAxis(xs, r.Plot.LogX), y: newAxis(ys, r.Plot.LogY)}
	p.frame(r.Plot, fmt.Sprintf("Linux %s, %s, %d CPUs, %s", r.Kernel, r.Go, r.CPUs, r.Time.Format("2006-01-02")))
	for i, name := range names {
		p.line(name, plotColors[i%len(plotColors)], i, series[name])
	}
	p.printf("</svg>\n")
	_, err := io.WriteString(w, p.b.String())
	return err
}

// painter collects the text of a drawing.
type painter struct {
	b    strings.Builder
	x, y axis
}

func (p *painter) printf(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

func (p *painter) text(x, y float64, more, s string) {
	p.printf(`<text x="%.1f" y="%.1f" %s>`, x, y, more)
	xml.EscapeText(&p.b, []byte(s))
	p.printf("</text>\n")
}

func (p *painter) at(x, y float64) (float64, float64) {
	return plotLeft + p.x.place(x)*innerWidth, plotTop + (1-p.y.place(y))*innerHeight
}

// frame draws the axes.
func (p *painter) frame(plot *Plot, machine string) {
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, plotHeight, plotWidth, plotHeight)
	p.printf(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	p.text(plotLeft, 24, `font-size="15"`, plot.Title)
	p.text(plotLeft+innerWidth/2, plotHeight-20, `text-anchor="middle"`, plot.X)
	p.text(plotWidth-6, plotHeight-6, `text-anchor="end" font-size="10" fill="#777"`, machine)
	p.text(16, plotTop+innerHeight/2, fmt.Sprintf(`text-anchor="middle" transform="rotate(-90 16 %.1f)"`, plotTop+innerHeight/2), plot.Y)
	for _, v := range p.x.ticks() {
		x, _ := p.at(v, p.y.low)
		p.printf(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", x, plotTop, x, plotTop+innerHeight)
		p.text(x, plotTop+innerHeight+16, `text-anchor="middle"`, tickText(v))
	}
	for _, v := range p.y.ticks() {
		_, y := p.at(p.x.low, v)
		p.printf(`<line x1="%d" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", plotLeft, y, plotLeft+innerWidth, y)
		p.text(plotLeft-6, y+4, `text-anchor="end"`, tickText(v))
	}
}

func tickText(v float64) string { return fmt.Sprintf("%.7g", v) }

// line draws a series and its place in the legend.
func (p *painter) line(name, color string, n int, list []point) {
	slices.SortStableFunc(list, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	var points []string
	for _, at := range list {
		x, y := p.at(at.x, at.y)
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		p.printf(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x, y, color)
	}
	p.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), color)
	x, y := plotLeft+innerWidth+12, float64(plotTop+10+18*n)
	p.printf(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="3"/>`+"\n", x, y, x+18, y, color)
	p.text(x+24, y+4, "", name)
}
