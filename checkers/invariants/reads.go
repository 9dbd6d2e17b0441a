package invariants

import (
	"cmp"
	"slices"
	"time"
)

// Reads without log entries (I16; dissertation 6.4) and liveness (I17).

// openRead is a round of reads that is not served yet.
type openRead struct {
	started   place
	committed mark // the highest index committed anywhere when it began
	confirmed mark // the index it was confirmed at
}

// readsMost bounds the rounds of a node that are never served; beyond it all are forgotten.
const readsMost = 1 << 13

func (c *Checker) read(n *node, e *Event) {
	if e.Kind == ReadStart {
		if n.reads == nil || len(n.reads) >= readsMost {
			n.reads = make(map[uint64]openRead)
		}
		n.reads[e.ID] = openRead{started: n.at(e), committed: c.committed}
		return
	}
	r, open := n.reads[e.ID]
	switch {
	case !open:
		if n.blind != "" {
			c.undecide(LinearizableReads, n.blind)
		}
	case e.Kind == ReadIndex:
		r.confirmed = mark{e.Index, n.at(e)}
		n.reads[e.ID] = r
		if !c.options.OneClock {
			return
		}
		c.checks[LinearizableReads]++
		if e.Index < r.committed.index {
			started := c.event(r.started)
			started.ID = e.ID
			c.violated(LinearizableReads, []Event{*e, c.indexEvent(r.committed), started}, "A read on %s was confirmed at %d, but %d was committed when it began.", n.name, e.Index, r.committed.index)
		}
	default:
		delete(n.reads, e.ID)
		c.checks[LinearizableReads]++
		if r.confirmed.place.kind == Other {
			c.violated(LinearizableReads, []Event{*e}, "%s served a read that was not confirmed.", n.name)
			return
		}
		if e.Applied < r.confirmed.index {
			confirmed := c.indexEvent(r.confirmed)
			confirmed.ID = e.ID
			c.violated(LinearizableReads, []Event{*e, confirmed}, "%s served a read that was confirmed at %d when it had applied only %d.", n.name, r.confirmed.index, e.Applied)
		}
	}
}

// heal is a moment at which all faults ended.
type heal struct {
	at     int64 // Unix nanoseconds
	commit bool  // a leader committed something within the bound
	led    Event // the first line of a leader within the bound; no kind: none
}

// Healed says that all faults ended at a moment of the hosts' clocks, and that clients
// went on writing. It is to be called before the events after that moment are added.
func (c *Checker) Healed(at time.Time) {
	c.heals = append(c.heals, heal{at: at.UnixNano()})
	slices.SortFunc(c.heals, func(a, b heal) int { return cmp.Compare(a.at, b.at) })
}

// healedBy notes what a leader did in time after a heal.
func (c *Checker) healedBy(e *Event) {
	for i := range c.heals {
		h := &c.heals[i]
		if e.Time <= h.at || e.Time-h.at > int64(c.options.LivenessBound) {
			continue
		}
		h.commit = h.commit || e.Kind == Commit
		if h.led.Kind == Other {
			h.led = *e
		}
	}
}

func (c *Checker) finishLiveness() {
	if c.options.LivenessBound <= 0 {
		return
	}
	for _, h := range c.heals {
		after := time.Unix(0, h.at).UTC().Format("15:04:05.000")
		switch {
		case h.commit:
			c.checks[Liveness]++
		case c.latest-h.at <= int64(c.options.LivenessBound):
			c.undecide(Liveness, "the traces end too soon after the heal at "+after)
		case len(c.holes) > 0:
			c.undecide(Liveness, "a trace is incomplete, so a commit may be missing")
		default:
			c.checks[Liveness]++
			what, evidence := "there was no leader", []Event(nil)
			if h.led.Kind != Other {
				what, evidence = "no leader committed anything", []Event{h.led}
			}
			c.violated(Liveness, evidence, "Within %s after the heal at %s %s.", c.options.LivenessBound, after, what)
		}
	}
}
