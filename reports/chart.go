package reports

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// The chart is laid by hand: one time axis for latency, rate, leadership and faults.
const (
	chartWidth    = 1160
	marginLeft    = 64
	marginRight   = 12
	latencyTop    = 46 // below the faults' labels
	latencyHeight = 220
	rateHeight    = 70
	laneHeight    = 16
	gap           = 26
	pointsMost    = 4000
	ratesMost     = 160
)

// chart lays one run on one time axis.
type chart struct {
	strings.Builder
	begin, end time.Duration
}

func (c *chart) x(t time.Duration) float64 {
	return marginLeft + float64(max(t, c.begin)-c.begin)/float64(c.end-c.begin)*(chartWidth-marginLeft-marginRight)
}

func drawChart(r *Run) template.HTML {
	operations := histories.Operations(r.History)
	if len(r.History) == 0 || r.History[len(r.History)-1].Time == 0 {
		return "<p>Nothing was recorded.</p>"
	}
	c := &chart{end: r.History[len(r.History)-1].Time}
	if len(operations) > 0 && operations[0].Call < c.end {
		c.begin = operations[0].Call // what came before is the cluster's start: nothing to see
	}
	rateTop := latencyTop + latencyHeight + gap
	lanesTop := rateTop + rateHeight + gap
	height := lanesTop + laneHeight*len(r.Nodes) + gap
	fmt.Fprintf(c, `<svg viewBox="0 0 %d %d" role="img" aria-label="Latency, rate, leadership and faults over time">`, chartWidth, height)
	c.faults(faultViews(r.History), height-gap)
	c.timeAxis(height - gap)
	c.latency(operations, guilty(r))
	c.rate(operations, rateTop)
	c.lanes(r, lanesTop)
	c.WriteString("</svg>")
	return template.HTML(c.String()) //nolint:gosec // every text in it went through html.EscapeString
}

func (c *chart) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
}

// faults shades the time in which each fault was in force. Labels take turns on three
// lines, so that neighbours do not cover each other.
func (c *chart) faults(faults []faultView, bottom int) {
	for i, f := range faults {
		if !f.HasLanded {
			continue
		}
		from, to := c.x(f.Landed), c.x(f.end(c.end))
		fmt.Fprintf(c, `<rect class="band" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s</title></rect>`,
			from, latencyTop-6, math.Max(1, to-from), bottom-latencyTop+6, html.EscapeString(fmt.Sprintf("%s %s, %s to %s", f.Name, f.Detail, clock(f.Landed), clock(f.end(c.end)))))
		line := float64(12 + 13*(i%2))
		label := f.Name
		if len(f.Nodes) > 0 {
			label += " " + strings.Join(f.Nodes, ",")
		}
		c.text(from+2, line, "label", "start", label)
		fmt.Fprintf(c, `<line class="bandline" x1="%.1f" x2="%.1f" y1="%.1f" y2="%d"/>`, from, from, line+2, latencyTop-6)
	}
}

func (c *chart) timeAxis(bottom int) {
	step := niceStep(c.end - c.begin)
	for t := c.begin.Truncate(step) + step; t <= c.end; t += step {
		fmt.Fprintf(c, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, c.x(t), c.x(t), latencyTop, bottom)
		c.text(c.x(t), float64(bottom+14), "soft", "middle", fmt.Sprintf("%g s", t.Seconds()))
	}
}

// niceStep returns the distance of the axis's marks: about a dozen of them.
func niceStep(span time.Duration) time.Duration {
	for unit := 100 * time.Millisecond; ; unit *= 10 {
		for _, times := range []time.Duration{1, 2, 5} {
			if span/(unit*times) <= 15 {
				return unit * times
			}
		}
	}
}

// latencyOf returns the height of a latency on a logarithmic scale from 0.1 ms to 10 s.
func latencyOf(d time.Duration) float64 {
	const decades = 5
	position := (math.Log10(math.Max(d.Seconds(), 1e-4)) + 4) / decades
	return latencyTop + latencyHeight*(1-math.Min(position, 1))
}

func (c *chart) latency(operations []histories.Operation, guilty map[int]bool) {
	for _, mark := range []time.Duration{100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		fmt.Fprintf(c, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, marginLeft, chartWidth-marginRight, latencyOf(mark), latencyOf(mark))
		c.text(marginLeft-6, latencyOf(mark)+4, "soft", "end", mark.String())
	}
	every := 1 + len(operations)/pointsMost
	for i, op := range operations {
		if i%every != 0 && !guilty[op.Invoked] && op.Type == histories.OK {
			continue
		}
		if every > 1 && op.Type != histories.OK && i%every != 0 && !guilty[op.Invoked] && len(operations) > 20*pointsMost {
			continue
		}
		c.point(op, guilty[op.Invoked])
	}
	if every > 1 {
		c.text(chartWidth-marginRight, latencyTop+latencyHeight-4, "soft", "end", fmt.Sprintf("one ok operation in %d is drawn", every))
	}
}

func (c *chart) point(op histories.Operation, guilty bool) {
	took := op.Return - op.Call
	if op.Return == histories.Forever {
		took = 10 * time.Second
	}
	x, y := c.x(op.Call), latencyOf(took)
	switch {
	case guilty:
		fmt.Fprintf(c, `<circle class="guilty" cx="%.1f" cy="%.1f" r="5"><title>%s</title></circle>`, x, y, html.EscapeString(fmt.Sprintf("in the proof: %s on %s by process %d", describe(op), op.Node, op.Process)))
	case op.Type == histories.OK:
		fmt.Fprintf(c, `<circle class="ok" cx="%.1f" cy="%.1f" r="1.3"/>`, x, y)
	case op.Type == histories.Fail:
		fmt.Fprintf(c, `<circle class="fail" cx="%.1f" cy="%.1f" r="2.6"/>`, x, y)
	default:
		fmt.Fprintf(c, `<path class="info" d="M%.1f %.1fl6 6m0-6l-6 6"/>`, x-3, y-3)
	}
}

func guilty(r *Run) map[int]bool {
	marked := make(map[int]bool)
	for _, result := range r.Results {
		if result.Linearizability == nil {
			continue
		}
		for _, v := range result.Linearizability.Violations {
			for _, op := range v.Core {
				marked[op.Invoked] = true
			}
		}
	}
	return marked
}

func (c *chart) rate(operations []histories.Operation, top int) {
	width := max((c.end-c.begin)/ratesMost, 250*time.Millisecond)
	counts := make([]int, int((c.end-c.begin)/width)+1)
	for _, op := range operations {
		if op.Type == histories.OK {
			counts[(op.Return-c.begin)/width]++
		}
	}
	most := max(1, slices.Max(counts))
	for i, n := range counts {
		height := float64(n) / float64(most) * rateHeight
		from := c.x(c.begin + time.Duration(i)*width)
		fmt.Fprintf(c, `<rect class="rate" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, from, float64(top+rateHeight)-height, math.Max(.5, c.x(c.begin+time.Duration(i+1)*width)-from-.5), height)
	}
	c.text(marginLeft-6, float64(top)+10, "soft", "end", fmt.Sprintf("%.0f/s", float64(most)/width.Seconds()))
	c.text(marginLeft-6, float64(top+rateHeight), "soft", "end", "0/s")
}

// lanes draws a lane for each node: what it was, and which term it led.
func (c *chart) lanes(r *Run, top int) {
	type span struct {
		node   string
		status histories.Status
		from   time.Duration
	}
	current := make(map[string]span)
	draw := func(s span, to time.Duration) {
		lane := slices.Index(r.Nodes, s.node)
		if lane < 0 {
			return
		}
		y := float64(top + lane*laneHeight)
		from, width := c.x(s.from), c.x(to)-c.x(s.from)
		fmt.Fprintf(c, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d"><title>%s</title></rect>`, laneClass(s.status), from, y+2, math.Max(.5, width), laneHeight-4, html.EscapeString(laneTitle(s.status)))
		if s.status.Role == "leader" && width > 22 {
			c.text(from+3, y+laneHeight-5, "label", "start", fmt.Sprintf("t%d", s.status.Term))
		}
	}
	for i := range r.History {
		e := &r.History[i]
		if e.Status == nil {
			continue
		}
		if s, ok := current[e.Node]; ok {
			draw(s, e.Time)
		}
		current[e.Node] = span{e.Node, *e.Status, e.Time}
	}
	spans := make([]span, 0, len(current))
	for _, s := range current {
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.node, b.node) })
	for _, s := range spans {
		draw(s, c.end)
	}
	for i, node := range r.Nodes {
		c.text(marginLeft-6, float64(top+(i+1)*laneHeight-4), "soft", "end", node)
	}
}

func laneClass(s histories.Status) string {
	switch {
	case !s.Up:
		return "down"
	case s.Role == "leader":
		return "lead"
	case s.Role == "follower" && s.Leader != "":
		return "follow"
	default:
		return "seek"
	}
}

func laneTitle(s histories.Status) string {
	if !s.Up {
		return "no answer"
	}
	leader := s.Leader
	if leader == "" {
		leader = "nobody"
	}
	return fmt.Sprintf("%s in term %d, follows %s", s.Role, s.Term, leader)
}
