package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

const (
	binsMost    = 40
	changesMost = 300
)

// binView is a line of the time axis's table: a part of the run, for readers who do not
// see the picture.
type binView struct {
	From           time.Duration
	OK, Fail, Info int // operations called in this part
	Median, Most   time.Duration
	Faults         string
	Leaders        string
}

// binsOf tells the run in equal parts.
func binsOf(a axis, operations []histories.Operation, faults []faultView, stays []stay) []binView {
	width := niceStep(a.end-a.begin, binsMost)
	first := a.begin.Truncate(width)
	bins := make([]binView, (a.end-first)/width+1)
	latencies := make([][]time.Duration, len(bins))
	for i := range operations {
		op := &operations[i]
		at := min(max(0, int((op.Call-first)/width)), len(bins)-1)
		switch op.Type {
		case histories.OK:
			bins[at].OK++
			latencies[at] = append(latencies[at], op.Return-op.Call)
		case histories.Fail:
			bins[at].Fail++
		default:
			bins[at].Info++
		}
	}
	for i := range bins {
		b := &bins[i]
		b.From = first + time.Duration(i)*width
		slices.Sort(latencies[i])
		if n := len(latencies[i]); n > 0 {
			b.Median, b.Most = latencies[i][(n-1)/2], latencies[i][n-1]
		}
		b.Faults = faultsIn(faults, b.From, b.From+width)
		b.Leaders = leadersIn(stays, b.From, b.From+width)
	}
	return bins
}

// listMost is how many faults or leaders a line of the table names.
const listMost = 6

func listed(names []string) string {
	if more := len(names) - listMost; more > 0 {
		names = append(slices.Clone(names[:listMost]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func faultsIn(faults []faultView, from, to time.Duration) string {
	var names []string
	for i := range faults {
		if f := &faults[i]; f.HasLanded && f.Landed < to && f.end(to) >= from {
			names = append(names, fmt.Sprintf("%d %s %s", f.ID, f.Name, f.Whom()))
		}
	}
	return listed(names)
}

func leadersIn(stays []stay, from, to time.Duration) string {
	var leaders []stay
	for _, s := range stays {
		if s.class() == "lead" && s.From < to && s.To > from {
			leaders = append(leaders, s)
		}
	}
	slices.SortStableFunc(leaders, func(a, b stay) int { return cmp.Compare(a.Status.Term, b.Status.Term) })
	var names []string
	for _, s := range leaders {
		if name := fmt.Sprintf("%s (term %d)", s.Node, s.Status.Term); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return listed(names)
}
