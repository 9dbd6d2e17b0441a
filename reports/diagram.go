package reports

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

const (
	diagramLane  = 34
	diagramLeft  = 150
	diagramRight = 20
)

// drawDiagram draws a few operations as bars in space and time: one lane a process.
func drawDiagram(operations []histories.Operation) template.HTML {
	if len(operations) == 0 {
		return ""
	}
	var lanes []int
	from, to := operations[0].Call, operations[0].Call
	for _, op := range operations {
		if !slices.Contains(lanes, op.Process) {
			lanes = append(lanes, op.Process)
		}
		from, to = min(from, op.Call), max(to, op.Call)
		if op.Return != histories.Forever {
			to = max(to, op.Return)
		}
	}
	span := max(to-from, time.Microsecond)
	x := func(t time.Duration) float64 {
		return diagramLeft + float64(t-from)/float64(span)*(chartWidth-diagramLeft-diagramRight)
	}
	var b strings.Builder
	height := diagramLane*len(lanes) + 30
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="The operations of the proof in time">`, chartWidth, height)
	for i, process := range lanes {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%d" y2="%d"/>`, diagramLeft, chartWidth-diagramRight, (i+1)*diagramLane, (i+1)*diagramLane)
		fmt.Fprintf(&b, `<text x="4" y="%d" class="soft">process %d</text>`, i*diagramLane+22, process)
	}
	for _, op := range operations {
		drawBar(&b, op, slices.Index(lanes, op.Process), x, x(to))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" class="soft">%s</text>`, diagramLeft, height-8, html.EscapeString(clock(from)))
	fmt.Fprintf(&b, `<text x="%d" y="%d" class="soft" text-anchor="end">%s</text></svg>`, chartWidth-diagramRight, height-8, html.EscapeString(clock(to)))
	return template.HTML(b.String()) //nolint:gosec // every text in it went through html.EscapeString
}

func drawBar(b *strings.Builder, op histories.Operation, lane int, x func(time.Duration) float64, edge float64) {
	class := "write"
	if op.F == "read" {
		class = "op"
	}
	left, right := x(op.Call), edge
	if op.Return != histories.Forever {
		right = x(op.Return)
	}
	width := math.Max(3, right-left)
	y := lane*diagramLane + 7
	fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="20" rx="2"/>`, class, left, y, width)
	label := describe(op) + " on " + op.Node
	if op.Return == histories.Forever {
		label += ", never returned"
		fmt.Fprintf(b, `<path class="info" d="M%.1f %dl8 10l-8 10" />`, left+width, y)
	}
	anchor, at := "start", left+4
	if left > chartWidth*0.75 {
		anchor, at = "end", left+width
	}
	fmt.Fprintf(b, `<text class="label" x="%.1f" y="%d" text-anchor="%s">%s</text>`, at, y+15, anchor, html.EscapeString(label))
}
