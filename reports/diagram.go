package reports

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// diagram shows a few operations in space and time: a lane for each process, a bar from
// call to return. The order of the calls and returns is exact, their distance is not: it
// grows with the logarithm of the time between them, and every name has room. What makes
// a history impossible is order alone, and calls that are microseconds and seconds apart
// would not be seen in one picture otherwise.
type diagram struct {
	Width, Height px
	Lanes         []stroke
	Events        []stroke
	Bars          []box
	Open          []outline // the ends of bars that never returned
	Labels        []label
	End           []stroke // where it became impossible
}

const (
	diagramLeft = 96
	barLane     = 46
	diagramHead = 20
	timesRows   = 3
)

// moment is the call or the return of an operation in the diagram.
type moment struct {
	op     int
	at     time.Duration
	event  int // index in the history: orders what has the same time
	isCall bool
}

func drawDiagram(core []histories.Operation, impossible time.Duration) *diagram {
	if len(core) == 0 {
		return nil
	}
	lanes := processesOf(core)
	moments := momentsOf(core)
	names := make([]string, len(core))
	for i, op := range core {
		names[i] = fmt.Sprintf("%d  %s", i+1, describe(op))
		if op.Node != "" {
			names[i] += " on " + short(op.Node, 20)
		}
		if op.Return == histories.Forever {
			names[i] += ", never returned"
		}
	}
	x, width := spread(core, moments, names)
	d := &diagram{Width: width, Height: diagramHead + px(len(lanes))*barLane + timesRows*14 + 6}
	bottom := diagramHead + px(len(lanes))*barLane
	for i, process := range lanes {
		y := diagramHead + px(i+1)*barLane
		d.Lanes = append(d.Lanes, stroke{"", 0, y, width, y})
		d.Labels = append(d.Labels, textAt("name", "start", fmt.Sprintf("process %d", process), 4, y-12))
	}
	for i, op := range core {
		d.bar(op, names[i], x[i], diagramHead+px(slices.Index(lanes, op.Process))*barLane)
	}
	var ends [timesRows]px
	for _, m := range moments {
		at := x[m.op][1]
		if m.isCall {
			at = x[m.op][0]
		}
		d.Events = append(d.Events, stroke{"", at, diagramHead, at, bottom})
		text := clock(m.at)
		if row, free := freeRow(ends[:], at-textWidth(text)/2); free {
			ends[row] = at + textWidth(text)/2 + 6
			d.Labels = append(d.Labels, textAt("tick", "middle", text, at, bottom+14+px(row)*14))
		}
		if !m.isCall && m.at == impossible && len(d.End) == 0 {
			d.End = append(d.End, stroke{"", at, diagramHead - 4, at, bottom})
			anchor := "start"
			const text = "✗ impossible from here"
			if at+textWidth(text) > width {
				anchor = "end"
			}
			d.Labels = append(d.Labels, textAt("violated", anchor, text, at, diagramHead-8))
		}
	}
	return d
}

// processesOf returns the processes in order of their first operation.
func processesOf(core []histories.Operation) []int {
	var processes []int
	for _, op := range core {
		if !slices.Contains(processes, op.Process) {
			processes = append(processes, op.Process)
		}
	}
	return processes
}

// momentsOf returns the calls and returns in the order in which they happened.
func momentsOf(core []histories.Operation) []moment {
	var moments []moment
	for i, op := range core {
		moments = append(moments, moment{i, op.Call, op.Invoked, true})
		if op.Return != histories.Forever {
			moments = append(moments, moment{i, op.Return, op.Returned, false})
		}
	}
	slices.SortStableFunc(moments, func(a, b moment) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.event, b.event))
	})
	return moments
}

// spread places the moments and returns each operation's call and return, and the
// diagram's width: that of the page, or more where the names need it.
func spread(core []histories.Operation, moments []moment, names []string) (x [][2]px, width px) {
	x = make([][2]px, len(core))
	before := make(map[int]int) // process to its operation before
	at, last := px(0), moments[0].at
	edge := px(0)
	for _, m := range moments {
		at += 10 + 9*px(math.Log10(1+float64((m.at-last).Microseconds())))
		last = m.at
		if !m.isCall {
			x[m.op][1] = at
			continue
		}
		process := core[m.op].Process
		if previous, ok := before[process]; ok {
			at = max(at, x[previous][0]+textWidth(names[previous])+14)
		}
		before[process] = m.op
		x[m.op][0] = at
		edge = max(edge, at+textWidth(names[m.op]))
	}
	edge = max(edge, at+40)
	room := px(pictureWidth - diagramLeft - 14)
	stretch := max(1, room/edge)
	for i := range x {
		x[i][0] = diagramLeft + x[i][0]*stretch
		x[i][1] = diagramLeft + x[i][1]*stretch
		if core[i].Return == histories.Forever {
			x[i][1] = diagramLeft + edge*stretch
		}
	}
	return x, diagramLeft + edge*stretch + 14
}

// bar draws one operation: its name, and below it the time in which it was under way. A
// bar whose operation never returned has no end.
func (d *diagram) bar(op histories.Operation, name string, x [2]px, y px) {
	class := "bar other"
	if op.F == "read" {
		class = "bar read"
	}
	title := []string{name, outcome(op.Type), "called at " + clock(op.Call), "returned: " + returned(op)}
	if op.Error != "" {
		title = append(title, short(oneLine(op.Error), 200))
	}
	width := max(3, x[1]-x[0])
	if op.Return == histories.Forever {
		class += " open"
		tip, middle := x[0]+width, y+31
		d.Open = append(d.Open, outline{"open", fmt.Sprintf("M%s %sl9 9l-9 9", tip, middle-9), ""})
	}
	d.Bars = append(d.Bars, box{class, strings.Join(title, ", "), x[0], y + 24, width, 14})
	d.Labels = append(d.Labels, textAt("op", "start", name, x[0], y+18))
}
