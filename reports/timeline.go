package reports

import (
	"fmt"
	"strings"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

const (
	pictureWidth  = 1150
	marginLeft    = 78
	marginRight   = 14
	notesHeight   = 20 // above all: what happened at a moment
	faultRow      = 19
	faultRowsMost = 5
	latencyHeight = 250
	rateHeight    = 84
	panelGap      = 30
	ratesMost     = 160
	linesMost     = 20 // of violations
	clipMargin    = 8  // so that signs at the ends of the axis are whole
)

// timeline is everything on one time axis: latencies, rate and the nodes' lanes, one below
// the other, and behind them the faults in force. What is in Fixed parts stays where it is
// when the script zooms.
type timeline struct {
	Width, Height   px
	Left, Right     px
	Top, Bottom     px
	ClipX, ClipW    px
	Fixed           []label
	Grid            []stroke
	Ticks           []label
	TickLines       []stroke
	Bands           []box
	Edges           []stroke
	FaultBars       []box
	FaultLabels     []label
	Moments         []stroke
	MomentLabels    []label
	Marks           []outline
	Rates           []box
	Lanes           *lanesPicture
	Cell            px // size of the marks' cells, 0 where every operation is drawn
	Drawn, Total    int
	BinWidth        time.Duration
	HasFail         bool
	HasInfo         bool
	HasGuilty       bool
	HasStatus       bool
	Script          timelineScript
	Table           []binView
	Changes         []changeView
	ChangesLeftOut  int
	GuiltyUnmatched int // operations of proofs that the history does not have

	axis  axis
	named [][2]px // from where to where names of moments stand
}

// timelineScript is what the page's script knows: enough to zoom and to name operations.
type timelineScript struct {
	Left  px       `json:"left"`
	Right px       `json:"right"`
	Begin float64  `json:"begin"` // s
	End   float64  `json:"end"`
	At    float64  `json:"at"` // of the first violation, s; below 0 for none
	Marks [][4]any `json:"marks"`
}

// drawTimeline returns nil where nothing was recorded.
func drawTimeline(r *Run, operations []histories.Operation, faults []faultView) *timeline {
	if len(r.History) == 0 {
		return nil
	}
	t := &timeline{Width: pictureWidth, Left: marginLeft, Right: pictureWidth - marginRight, Total: len(operations)}
	t.axis = axisOf(r.History, operations)
	t.Script = timelineScript{Left: t.Left, Right: t.Right, Begin: t.axis.begin.Seconds(), End: t.axis.end.Seconds(), At: -1}
	y := px(notesHeight)
	y = t.faultBars(faults, y)
	t.Top = y
	y = t.latency(r, operations, y)
	y = t.rate(operations, y+panelGap)
	stays := staysOf(r.History, t.axis.end)
	nodes := laneNodes(r.Nodes, stays)
	t.HasStatus = len(stays) > 0
	t.Lanes = drawLanes(t.axis, y+panelGap, nodes, stays, faults, r.History)
	t.title(y+panelGap-6, "nodes")
	t.Bottom = y + panelGap + px(len(nodes))*laneHeight
	t.Height, t.ClipX, t.ClipW = t.Bottom+22, t.Left-clipMargin, t.Right-t.Left+2*clipMargin
	t.bands(faults)
	t.moments(r.Results, operations)
	for _, mark := range t.axis.ticks(14) {
		x := t.axis.x(mark)
		t.TickLines = append(t.TickLines, stroke{"", x, t.Top, x, t.Bottom})
		t.Ticks = append(t.Ticks, textAt("tick", "middle", seconds(mark), x, t.Bottom+15))
	}
	t.Table = binsOf(t.axis, operations, faults, stays)
	t.Changes = changesOf(stays, r.History)
	if more := len(t.Changes) - changesMost; more > 0 {
		t.Changes, t.ChangesLeftOut = t.Changes[:changesMost], more
	}
	return t
}

// axisOf begins where the clients began: what came before is the cluster's start.
func axisOf(events []histories.Event, operations []histories.Operation) axis {
	a := axis{end: events[len(events)-1].Time, left: marginLeft, right: pictureWidth - marginRight}
	if len(operations) > 0 && operations[0].Call < a.end {
		a.begin = operations[0].Call
	}
	a.end = max(a.end, a.begin+time.Millisecond)
	return a
}

func (t *timeline) title(y px, text string) {
	t.Fixed = append(t.Fixed, textAt("title", "start", text, t.Left, y))
}

// faultBars lays a bar with its name for each fault, in as few rows as their names allow,
// and returns where they end. A name that has no room is left to the bar's title.
func (t *timeline) faultBars(faults []faultView, top px) px {
	var ends [faultRowsMost]px
	rows := 0
	for i := range faults {
		f := &faults[i]
		if f.end(t.axis.end) < t.axis.begin {
			continue
		}
		from, to := t.axis.x(f.Inject), t.axis.x(f.end(t.axis.end))
		if !f.HasLanded && !f.HasEnded {
			to = from + 6
		}
		text := f.Label()
		start := min(from+4, t.Right-textWidth(text))
		row, fits := freeRow(ends[:], min(from, start-4))
		if fits {
			ends[row] = max(to, start+textWidth(text)) + 6
		} else {
			ends[row] = max(ends[row], to+6)
		}
		rows = max(rows, row+1)
		y := top + px(row)*faultRow
		t.faultBar(f, from, to, y)
		if fits {
			t.FaultLabels = append(t.FaultLabels, label{"fault", "start", text, start, y + 12, from, to})
		}
	}
	if rows == 0 {
		return top
	}
	t.Fixed = append(t.Fixed, textAt("name", "end", "faults", t.Left-8, top+12))
	return top + px(rows)*faultRow + 8
}

// freeRow returns the first row that is free from x on, or the one that is free earliest.
func freeRow(ends []px, x px) (row int, free bool) {
	for i, end := range ends {
		if end <= x {
			return i, true
		}
		if end < ends[row] {
			row = i
		}
	}
	return row, false
}

// faultBar draws a fault's life: thin while it was being injected or healed, full while it
// was in force, an empty frame where it never landed.
func (t *timeline) faultBar(f *faultView, from, to, y px) {
	if !f.HasLanded {
		t.FaultBars = append(t.FaultBars, box{"missed", f.title(), from, y, max(6, to-from), faultRow - 4})
		return
	}
	landed, heal := t.axis.x(f.Landed), to
	if f.HasHeal {
		heal = max(landed, t.axis.x(f.Heal))
	}
	t.FaultBars = append(t.FaultBars,
		box{"moving", f.title(), from, y + faultRow - 6, max(1, to-from), 2},
		box{"force", f.title(), landed, y, max(1.5, heal-landed), faultRow - 4})
}

// bands shades the time in which each fault was in force: a full line where it landed, a
// broken one where it was healed.
func (t *timeline) bands(faults []faultView) {
	for i := range faults {
		f := &faults[i]
		if !f.HasLanded || f.end(t.axis.end) < t.axis.begin {
			continue
		}
		from, to := t.axis.x(f.Landed), t.axis.x(f.end(t.axis.end))
		t.Bands = append(t.Bands, box{"band", f.title(), from, t.Top, max(1, to-from), t.Bottom - t.Top})
		t.Edges = append(t.Edges, stroke{"landed", from, t.Top, from, t.Bottom})
		if f.HasEnded {
			t.Edges = append(t.Edges, stroke{"healed", to, t.Top, to, t.Bottom})
		}
	}
}

func (t *timeline) latency(r *Run, operations []histories.Operation, y px) px {
	const head = 16
	panel := newLatencyPanel(t.axis, y+head, latencyHeight, operations, r.History)
	t.title(y+head-5, "latency of each operation, by when it was called")
	for _, mark := range panel.decades() {
		at := panel.scale(mark)
		t.Grid = append(t.Grid, stroke{"", t.Left, at, t.Right, at})
		t.Fixed = append(t.Fixed, textAt("tick", "end", decade(mark), t.Left-8, at+4))
	}
	if panel.scaleTop > panel.top {
		t.Fixed = append(t.Fixed, textAt("tick", "end", "no end", t.Left-8, panel.unansweredY()+4))
	}
	guilty := guiltyOf(r.Results)
	marks, size := marksOf(panel, operations, guilty)
	t.Marks, t.Cell, t.Drawn = outlines(marks), size, len(marks)
	for _, m := range marks {
		t.HasFail = t.HasFail || m.kind == markFail
		t.HasInfo = t.HasInfo || m.kind == markInfo
		if m.kind == markGuilty {
			t.HasGuilty = true
			delete(guilty, operations[m.op].Invoked)
		}
		t.Script.Marks = append(t.Script.Marks, [4]any{m.x, m.y, m.kind, t.markText(&operations[m.op], panel, m)})
	}
	t.GuiltyUnmatched = len(guilty)
	return panel.bottom
}

// markText tells what a mark stands for, a line each.
func (t *timeline) markText(op *histories.Operation, panel *latencyPanel, m mark) string {
	lines := []string{short(describe(*op), 60) + ": " + outcome(op.Type)}
	if op.Key != "" {
		lines[0] = short(op.Key, 20) + ": " + lines[0]
	}
	when := "called at " + clock(op.Call)
	if d, ended := panel.waited(op); !ended {
		when += ", never ended"
	} else if op.Type == histories.Info {
		when += ", given up after " + duration(d)
	} else {
		when += ", took " + duration(d)
	}
	lines = append(lines, when, fmt.Sprintf("process %d on %s", op.Process, short(op.Node, 20)))
	if op.Error != "" {
		lines = append(lines, short(oneLine(op.Error), 100))
	}
	if m.kind == markGuilty {
		lines = append(lines, "part of the proof")
	}
	if m.more > 0 {
		lines = append(lines, "and "+grouped(m.more)+" more here")
	}
	return strings.Join(lines, "\n")
}

// guiltyOf returns the operations of all proofs, by the index of their invoke.
func guiltyOf(results []checkers.Result) map[int]bool {
	marked := make(map[int]bool)
	for _, v := range violationsOf(results) {
		for _, op := range v.Core {
			marked[op.Invoked] = true
		}
	}
	return marked
}

// violationsOf gathers the violations of all checkers.
func violationsOf(results []checkers.Result) []checkers.Violation {
	var all []checkers.Violation
	for _, result := range results {
		if result.Linearizability != nil {
			all = append(all, result.Linearizability.Violations...)
		}
		if result.Findings != nil {
			all = append(all, result.Findings.Violations...)
		}
	}
	return all
}

// rate draws how many operations returned ok, as a rate in each of equal parts of the time.
func (t *timeline) rate(operations []histories.Operation, top px) px {
	a := t.axis
	t.BinWidth = rateBin(a.end - a.begin)
	rates := ratesOf(a, operations, t.BinWidth)
	most := 1.0
	for _, rate := range rates {
		most = max(most, rate)
	}
	most = niceCeiling(most)
	t.title(top-6, fmt.Sprintf("ok operations per second, in parts of %s", plainDuration(t.BinWidth)))
	for i, rate := range rates {
		if rate == 0 {
			continue
		}
		begin := a.begin + time.Duration(i)*t.BinWidth
		end := min(begin+t.BinWidth, a.end)
		height := px(rate/most) * rateHeight
		t.Rates = append(t.Rates, box{"rate", fmt.Sprintf("%s to %s: %.0f ok operations per second", clock(begin), clock(end), rate), a.x(begin), top + rateHeight - height, max(0.5, a.x(end)-a.x(begin)-0.6), height})
	}
	for _, share := range []float64{0, 0.5, 1} {
		y := top + rateHeight*px(1-share)
		t.Grid = append(t.Grid, stroke{"", t.Left, y, t.Right, y})
		t.Fixed = append(t.Fixed, textAt("tick", "end", fmt.Sprintf("%g/s", share*most), t.Left-8, y+4))
	}
	return top + rateHeight
}

// rateBin returns 250 ms, more for long runs and less for short ones.
func rateBin(span time.Duration) time.Duration {
	if span > 5*time.Second && span <= ratesMost*250*time.Millisecond {
		return 250 * time.Millisecond
	}
	return niceStep(span, ratesMost)
}

// ratesOf counts the ok operations by when they returned. The last part of the time may be
// shorter than the others; its rate is that of the time that it has, but of half a part at
// least, so that a few operations do not seem a burst.
func ratesOf(a axis, operations []histories.Operation, width time.Duration) []float64 {
	rates := make([]float64, (a.end-a.begin+width-1)/width)
	last := len(rates) - 1
	for i := range operations {
		if op := &operations[i]; op.Type == histories.OK && op.Return >= a.begin {
			rates[min(int((op.Return-a.begin)/width), last)]++
		}
	}
	for i := range rates {
		length := width
		if i == last {
			length = max(width/2, a.end-a.begin-time.Duration(last)*width)
		}
		rates[i] /= length.Seconds()
	}
	return rates
}

// plainDuration writes a round duration: 250 ms, 2 s.
func plainDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d ms", d/time.Millisecond)
}

// moments marks what happened at one time: the violations, the last heal, the last reads.
func (t *timeline) moments(results []checkers.Result, operations []histories.Operation) {
	for i, v := range violationsOf(results) {
		if i == linesMost {
			break
		}
		if t.Script.At >= 0 {
			t.moment("violated", v.At, "")
			continue
		}
		t.Script.At = v.At.Seconds()
		text := "✗ impossible from " + clock(v.At)
		if v.Key != "" {
			text = "✗ key " + short(v.Key, 16) + " impossible from " + clock(v.At)
		}
		t.moment("violated", v.At, text)
	}
	if healed := healedAt(results); healed > 0 {
		t.moment("moment", healed, "all healed")
	}
	for i := range operations {
		if operations[i].Final {
			t.moment("moment", operations[i].Call, "last reads")
			break
		}
	}
}

// moment draws a line at one time, and its name above it where that covers no other.
func (t *timeline) moment(class string, at time.Duration, text string) {
	if at < t.axis.begin || at > t.axis.end {
		return
	}
	x, width := t.axis.x(at), textWidth(text)
	t.Moments = append(t.Moments, stroke{class, x, notesHeight - 4, x, t.Bottom})
	for _, side := range []struct {
		anchor string
		from   px
	}{{"start", x}, {"end", x - width}} {
		free := text != "" && side.from >= t.Left && side.from+width <= t.Right
		for _, taken := range t.named {
			free = free && (side.from > taken[1] || side.from+width < taken[0])
		}
		if free {
			t.named = append(t.named, [2]px{side.from - 8, side.from + width + 8})
			t.MomentLabels = append(t.MomentLabels, textAt(class, side.anchor, text, x, 11))
			return
		}
	}
}

func healedAt(results []checkers.Result) time.Duration {
	for _, result := range results {
		if result.Liveness != nil {
			return result.Liveness.HealedAt
		}
	}
	return 0
}
