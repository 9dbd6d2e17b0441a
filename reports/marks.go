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

// mark is one sign in the picture of latencies: one operation, or the first of several that
// would lie on top of each other.
type mark struct {
	op   int // position in the operations
	x, y px
	kind markKind
	more int // operations that the mark stands for besides
}

// markKind is how an operation is drawn: by its outcome, or as part of a proof.
type markKind uint8

const (
	markFail markKind = iota // below ok: a failed compare-and-swap is nothing out of the ordinary
	markOK
	markInfo
	markGuilty
	markKinds
)

// markClasses are the kinds' names in style sheet and script.
var markClasses = [markKinds]string{"fail", "ok", "info", "guilty"}

func kindOf(t histories.Type) markKind {
	switch t {
	case histories.OK:
		return markOK
	case histories.Fail:
		return markFail
	default:
		return markInfo
	}
}

// outline draws the sign of a kind around its middle. The script draws the same ones.
func (k markKind) outline(b *strings.Builder, x, y px) {
	switch k {
	case markFail: // a square
		fmt.Fprintf(b, "M%s %sh4v4h-4z", x-2, y-2)
	case markOK: // a dot: a line of no length with round ends
		fmt.Fprintf(b, "M%s %sh0", x, y)
	case markInfo: // a cross
		fmt.Fprintf(b, "M%s %sl6 6m0-6l-6 6", x-3, y-3)
	default: // a diamond
		fmt.Fprintf(b, "M%s %sl7 7l-7 7l-7-7z", x, y-7)
	}
}

const (
	marksMost = 4000 // of operations that are in no proof; those are all drawn
	cell      = 2    // px: the finest cell in which signs of one kind become one
)

// marksOf lays the operations out, without more than marksMost signs besides the guilty
// ones. Above that it thins out where signs cover each other anyway: of the operations of
// one outcome in a cell only the first is drawn, with cells as small as possible. So every
// outlier stays, and the same history gives the same picture. It returns the cells' size, 0
// where each operation has its own sign.
func marksOf(l *latencyPanel, operations []histories.Operation, guilty map[int]bool) (marks []mark, size px) {
	for i := range operations {
		op := &operations[i]
		m := mark{op: i, x: l.x(op.Call), y: l.y(op), kind: kindOf(op.Type)}
		if guilty[op.Invoked] {
			m.kind = markGuilty
		}
		marks = append(marks, m)
	}
	if len(marks) > marksMost {
		marks, size = thin(l, marks)
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.kind, b.kind) })
	return marks, size
}

func thin(l *latencyPanel, marks []mark) ([]mark, px) {
	columns, rows := int((l.right-l.left)/cell)+1, int((l.bottom-l.top)/cell)+1
	grid := make([]int32, columns*rows*int(markGuilty)) // 1 + position in cells; 0 for none
	var cells, guilty []mark
	for _, m := range marks {
		if m.kind == markGuilty {
			guilty = append(guilty, m)
			continue
		}
		column, row := int((m.x-l.left)/cell), int((m.y-l.top)/cell)
		at := &grid[(int(m.kind)*rows+row)*columns+column]
		if *at == 0 {
			cells = append(cells, m)
			*at = int32(len(cells)) //nolint:gosec // there are fewer cells than 1<<31
		} else {
			cells[*at-1].more++
		}
	}
	for factor := 1; ; factor++ {
		if merged := merge(l, cells, factor); len(merged) <= marksMost {
			return append(merged, guilty...), px(factor * cell)
		}
	}
}

// merge joins the signs of cells into those of cells factor times as wide and high.
func merge(l *latencyPanel, cells []mark, factor int) []mark {
	type place struct {
		kind        markKind
		column, row int
	}
	size := px(factor * cell)
	at := make(map[place]int)
	var merged []mark
	for _, m := range cells {
		p := place{m.kind, int((m.x - l.left) / size), int((m.y - l.top) / size)}
		if i, taken := at[p]; taken {
			merged[i].more += 1 + m.more
			continue
		}
		at[p] = len(merged)
		merged = append(merged, m)
	}
	return merged
}

// outlines draws all signs, one path for each kind, the guilty on top.
func outlines(marks []mark) []outline {
	var paths [markKinds]strings.Builder
	for _, m := range marks {
		m.kind.outline(&paths[m.kind], m.x, m.y)
	}
	var list []outline
	for kind := range paths {
		list = append(list, outline{Class: markClasses[kind], D: paths[kind].String()})
	}
	return list
}

// latencyPanel is the picture of the operations' latencies: time to the right, latency
// upwards on a logarithmic scale, and above it a strip for operations that have none,
// because nobody waited for their answer to the end.
type latencyPanel struct {
	axis
	top, bottom px // of the panel, the strip included
	scaleTop    px // of the scale
	low, high   float64
	waited      func(*histories.Operation) (time.Duration, bool)
}

const unansweredStrip = 22

// newLatencyPanel chooses the scale's ends: whole decades around the latencies.
func newLatencyPanel(a axis, top, height px, operations []histories.Operation, events []histories.Event) *latencyPanel {
	l := &latencyPanel{axis: a, top: top, bottom: top + height, scaleTop: top}
	l.waited = func(op *histories.Operation) (time.Duration, bool) { return waited(op, events) }
	shortest, longest, unanswered := time.Millisecond, time.Millisecond, false
	for i := range operations {
		d, ended := l.waited(&operations[i])
		if !ended {
			unanswered = true
			continue
		}
		shortest, longest = min(shortest, d), max(longest, d)
	}
	l.low = math.Floor(math.Log10(max(shortest, time.Microsecond).Seconds()))
	l.high = math.Max(l.low+2, math.Ceil(math.Log10(longest.Seconds())))
	if unanswered {
		l.scaleTop += unansweredStrip
	}
	return l
}

// waited returns how long the client waited for an operation's end: its latency, or until
// it gave up; false where it never did before the recording ended.
func waited(op *histories.Operation, events []histories.Event) (time.Duration, bool) {
	switch {
	case op.Return != histories.Forever:
		return op.Return - op.Call, true
	case op.Returned >= 0 && op.Returned < len(events):
		return max(0, events[op.Returned].Time-op.Call), true
	default:
		return 0, false
	}
}

func (l *latencyPanel) y(op *histories.Operation) px {
	d, ended := l.waited(op)
	if !ended {
		return l.unansweredY()
	}
	return l.scale(d)
}

func (l *latencyPanel) unansweredY() px { return l.top + unansweredStrip/2 - 3 }

func (l *latencyPanel) scale(d time.Duration) px {
	position := (math.Log10(max(d, time.Nanosecond).Seconds()) - l.low) / (l.high - l.low)
	return l.bottom - px(min(max(position, 0), 1))*(l.bottom-l.scaleTop)
}

// decades returns the marks of the scale.
func (l *latencyPanel) decades() []time.Duration {
	var marks []time.Duration
	for exponent := l.low; exponent <= l.high; exponent++ {
		marks = append(marks, time.Duration(math.Round(math.Pow(10, exponent+9))))
	}
	return marks
}

// decade writes a mark of the scale: 100 µs, 1 ms, 10 s.
func decade(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%d s", d/time.Second)
	case d >= time.Millisecond:
		return fmt.Sprintf("%d ms", d/time.Millisecond)
	default:
		return fmt.Sprintf("%d µs", d/time.Microsecond)
	}
}
