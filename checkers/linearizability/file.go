package linearizability

import (
	"context"
	"fmt"
	"math"

	"capsize/checkers"
	"capsize/checkers/linearizability/registers"
	"capsize/histories"
)

// CheckFile judges the history in a file as [Checker.Check] judges that of the run, at which it
// does not look. It is for histories that are too long to be held: of registers it keeps 40
// bytes an operation while it reads. Then it reads once more, and holds, the keys that this
// does not decide: those whose values repeat or whose revisions go back as a whole, those that
// are violated until just after they are. Other objects it holds as a whole. The checker's
// limits are for what it holds.
//
// The error says why the file could not be read to its end.
func (c *Checker) CheckFile(ctx context.Context, run *checkers.Run, path string) (checkers.Result, error) {
	if c.Object != Register {
		return c.checkPart(ctx, run, path, func(*histories.Event) bool { return true })
	}
	keys, err := c.gather(ctx, path)
	if err != nil {
		return checkers.Result{}, err
	}
	evidence := &checkers.LinearizabilityEvidence{Keys: len(keys), Methods: make(map[string]int)}
	open := make(map[string]*held)
	for _, k := range keys {
		evidence.Operations += k.counted
		if until := k.undecided(ctx); until >= 0 {
			open[k.name] = &held{until: until}
		} else {
			evidence.Methods[string(ByValues)]++
		}
		k.ops = nil
	}
	if len(open) == 0 {
		return result(evidence), nil
	}
	part, err := c.checkPart(ctx, run, path, func(e *histories.Event) bool { return e.Process < 0 || open[e.Key].holds(e) })
	if err != nil {
		return checkers.Result{}, err
	}
	for method, keys := range part.Linearizability.Methods {
		evidence.Methods[method] += keys
	}
	evidence.Undecided, evidence.Violations = part.Linearizability.Undecided, part.Linearizability.Violations
	return result(evidence), nil
}

// undecided returns up to which event a key must be looked at whole, or -1 if it need not.
func (k *gathered) undecided(ctx context.Context) int {
	if k.odd || ctx.Err() != nil {
		return math.MaxInt
	}
	verdict := registers.Check(k.ops)
	switch {
	case verdict.Outcome == registers.Linearizable:
		return -1
	case verdict.Outcome != registers.Violation || verdict.Reason == registers.Unreplaced:
		return math.MaxInt
	}
	// Whatever else happened, the core is a violation when the last of it has ended.
	until := 0
	for _, i := range verdict.Core {
		if op := &k.ops[i]; op.Return == registers.Never {
			until = max(until, int(op.Call))
		} else {
			until = max(until, int(op.Return))
		}
	}
	return until
}

// held says what is held of a key: its events up to one, and some more to show what followed.
type held struct{ until, after int }

const heldAfter = 1000

func (h *held) holds(e *histories.Event) bool {
	if h == nil {
		return false
	}
	if e.Index > h.until {
		h.after++
	}
	return h.after <= heldAfter
}

// checkPart holds and judges a part of a history.
func (c *Checker) checkPart(ctx context.Context, run *checkers.Run, path string, part func(e *histories.Event) bool) (checkers.Result, error) {
	only := *run
	only.History = nil
	err := scan(ctx, path, func(_ *histories.Scanner, e *histories.Event) {
		if part(e) {
			only.History = append(only.History, *e)
		}
	})
	if err != nil {
		return checkers.Result{}, err
	}
	return c.Check(ctx, &only), nil
}

// scan reads a file, event after event.
func scan(ctx context.Context, path string, each func(s *histories.Scanner, e *histories.Event)) error {
	const look = 1 << 16 // events between two looks at the context
	s, err := histories.Scan(path)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // only read
	for s.Next() {
		e := s.Event()
		if e.Index%look == 0 && ctx.Err() != nil {
			return fmt.Errorf("read history %s: interrupted at event %d: %w", path, e.Index, context.Cause(ctx))
		}
		each(s, e)
	}
	return s.Err()
}

// gathered is what CheckFile keeps of a key.
type gathered struct {
	name    string
	ops     []registers.Op // in order of completion
	counted int            // operations that say something
	highest int64          // revision of those that have ended
	odd     bool           // it cannot be decided by this alone
}

// underway is an operation that has not ended.
type underway struct {
	invoke  histories.Event
	key     *gathered
	highest int64 // the revision that it must not go back behind
}

// gatherer pairs the events of registers into operations and forgets them.
type gatherer struct {
	scanner *histories.Scanner
	byName  map[string]*gathered
	keys    []*gathered
	open    map[int]*underway // by process
	free    []*underway
	total   int // operations that ended
}

// gather reads a file and returns its keys in the order in which they appear.
func (c *Checker) gather(ctx context.Context, path string) ([]*gathered, error) {
	g := &gatherer{byName: make(map[string]*gathered), open: make(map[int]*underway)}
	err := scan(ctx, path, func(s *histories.Scanner, e *histories.Event) {
		g.scanner = s
		switch {
		case e.Process < 0 || !c.judges(e.Key):
		case e.Type == histories.Invoke:
			g.begin(e)
		default:
			g.end(e)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, u := range g.open {
		op := histories.Operations([]histories.Event{u.invoke})[0] // without a completion
		g.add(u, &op)
	}
	return g.keys, nil
}

func (g *gatherer) begin(e *histories.Event) {
	k := g.byName[e.Key]
	if k == nil {
		k = &gathered{name: e.Key}
		g.byName[e.Key] = k
		g.keys = append(g.keys, k)
	}
	var u *underway
	if n := len(g.free); n > 0 {
		u, g.free = g.free[n-1], g.free[:n-1]
	} else {
		u = new(underway)
	}
	u.invoke, u.key, u.highest = *e, k, k.highest
	g.open[e.Process] = u
}

func (g *gatherer) end(e *histories.Event) {
	u := g.open[e.Process]
	if u == nil {
		return
	}
	delete(g.open, e.Process)
	op := histories.OperationOf(u.invoke, *e)
	g.total++
	g.add(u, &op)
	g.free = append(g.free, u)
}

// add keeps what an operation says.
func (g *gatherer) add(u *underway, op *histories.Operation) {
	if !says(*op) {
		return
	}
	k := u.key
	k.counted++
	if op.Revision > 0 && op.Type != histories.Info {
		k.odd = k.odd || lies(op, u.highest)
		k.highest = max(k.highest, op.Revision)
	}
	o, ok := registerOp(op)
	if k.odd = k.odd || !ok; k.odd {
		k.ops = nil
		return
	}
	if len(k.ops) == cap(k.ops) {
		k.ops = append(make([]registers.Op, 0, len(k.ops)+g.room(k)), k.ops...) // slices.Grow would touch what is not used
	}
	k.ops = append(k.ops, o)
}

// room is for how many more operations of a key to make room: as many as are likely to follow,
// once that can be judged. A long list that grew step by step would be held twice, while it is
// copied.
func (g *gatherer) room(k *gathered) int {
	const atFirst = 1024
	have := len(k.ops)
	if have < atFirst {
		return max(8, have)
	}
	follow := float64(g.scanner.Left()) / 2 * float64(have) / float64(g.total)
	return max(have/8, int(follow*1.02))
}
