package checkers

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"capsize/histories"
)

// Leaders checks election safety: at most one leader in a term (Raft paper, figure 3). It
// believes the nodes' traces, and what they answered when asked for their status.
type Leaders struct{}

// Name is "one-leader-a-term".
func (*Leaders) Name() string { return "one-leader-a-term" }

// Check gathers every claim to lead a term.
func (*Leaders) Check(ctx context.Context, run *Run) Result {
	claims := make(claims)
	evidence := &LeadersEvidence{}
	for _, node := range slices.Sorted(maps.Keys(run.Traces)) {
		if err := readLeaders(ctx, run.Traces[node], node, claims); err != nil {
			return Result{Verdict: Unknown, Summary: "a trace cannot be read: " + err.Error(), Leaders: evidence}
		}
		evidence.Sources = append(evidence.Sources, "trace of "+node)
	}
	polled := false
	for i := range run.History {
		e := &run.History[i]
		if e.Process != histories.Observer || e.Status == nil || !e.Status.Up {
			continue
		}
		polled = true
		if e.Status.Role == "leader" {
			claims.add(Leadership{e.Status.Term, e.Node, fmt.Sprintf("status of %s at %s", e.Node, clock(e.Time))})
		}
	}
	if polled {
		evidence.Sources = append(evidence.Sources, "status polls")
	}
	return claims.judge(evidence)
}

// claims holds, for each term, the first claim of each node.
type claims map[uint64]map[string]Leadership

func (c claims) add(l Leadership) {
	if c[l.Term] == nil {
		c[l.Term] = make(map[string]Leadership)
	}
	if _, known := c[l.Term][l.Node]; !known {
		c[l.Term][l.Node] = l
	}
}

func (c claims) judge(evidence *LeadersEvidence) Result {
	for _, term := range slices.Sorted(maps.Keys(c)) {
		all := slices.SortedFunc(maps.Values(c[term]), func(a, b Leadership) int { return cmp.Compare(a.Node, b.Node) })
		evidence.Terms = append(evidence.Terms, all...)
		if len(all) > 1 {
			evidence.Conflicts = append(evidence.Conflicts, LeaderConflict{term, all})
		}
	}
	result := Result{Leaders: evidence}
	switch {
	case len(evidence.Sources) == 0:
		result.Verdict, result.Summary = Unknown, "no node left a trace and none told its status: there is nothing to check"
	case len(evidence.Conflicts) > 0:
		conflict := evidence.Conflicts[0]
		var who []string
		for _, claim := range conflict.Claims {
			who = append(who, fmt.Sprintf("%s (%s)", claim.Node, claim.Source))
		}
		result.Verdict = Invalid
		result.Summary = fmt.Sprintf("term %d had %d leaders: %s", conflict.Term, len(conflict.Claims), strings.Join(who, " and "))
	case len(evidence.Terms) == 0:
		result.Verdict, result.Summary = Unknown, "no node ever led: there is nothing to check"
	default:
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("%d terms, each with one leader (%s)", len(evidence.Terms), strings.Join(evidence.Sources, ", "))
	}
	return result
}

// traceLine is what of a trace's line this checker reads.
type traceLine struct {
	Event string `json:"ev"`
	Term  uint64 `json:"t"`
}

var leaderMark = []byte(`"ev":"leader"`)

// traceLineMost is the longest line of a trace that is read, in bytes.
const traceLineMost = 1 << 20

// readLeaders adds the leaderships in a trace file. A last line without its end is
// tolerated: the node may have been killed while it wrote it.
func readLeaders(ctx context.Context, path, node string, claims claims) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewReaderSize(file, traceLineMost)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
		if number%10000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !bytes.Contains(line, leaderMark) {
			continue // cheap: traces are long, elections are few
		}
		var event traceLine
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
		if event.Event == "leader" {
			claims.add(Leadership{event.Term, node, fmt.Sprintf("%s:%d", filepath.Join(node, filepath.Base(path)), number)})
		}
	}
}
