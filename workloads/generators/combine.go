package generators

import (
	"fmt"
	"math/rand/v2"
	"time"

	"capsize/histories"
	"capsize/workloads"
)

// parts are generators that share the threads. A process has one operation under way at a
// time, so whose it is tells whom to tell of its end.
type parts struct {
	list []workloads.Generator
	of   map[int]int // process to the part whose operation it performs
}

func newParts(list []workloads.Generator) parts { return parts{list: list, of: make(map[int]int)} }

// next asks a part.
func (p *parts) next(part int, now workloads.Moment) workloads.Step {
	step := p.list[part].Next(now)
	if _, perform := step.Op(); perform {
		p.of[now.Process] = part
	}
	return step
}

// completed tells a part, and returns which one that was; -1: nobody's.
func (p *parts) completed(op histories.Operation) int {
	part, known := p.of[op.Process]
	if !known {
		return -1
	}
	delete(p.of, op.Process)
	p.list[part].Completed(op)
	return part
}

// Final returns the last reads of all parts.
func (p *parts) Final() []workloads.Op {
	var ops []workloads.Op
	for _, g := range p.list {
		ops = append(ops, g.Final()...)
	}
	return ops
}

// Share is a generator and how much of the operations it gives, relative to the others.
type Share struct {
	Weight int
	Of     workloads.Generator
}

// Mix gives each operation from one of several generators, chosen at random by their weights. A
// thread stays with its choice while that one lets it wait, and chooses among the others once
// it has ended.
func Mix(seed uint64, shares ...Share) workloads.Generator {
	m := &mix{seed: seed, dice: make(map[int]*rand.Rand), chosen: make(map[int]int), ended: make(map[place]bool)}
	var list []workloads.Generator
	for _, s := range shares {
		if s.Weight < 1 {
			panic(fmt.Sprintf("generators: a mix with a weight of %d: want at least 1", s.Weight))
		}
		list, m.weights = append(list, s.Of), append(m.weights, s.Weight)
	}
	m.parts = newParts(list)
	return m
}

// place is a thread in a part.
type place struct{ thread, part int }

type mix struct {
	parts
	seed    uint64
	weights []int
	dice    map[int]*rand.Rand // by thread
	chosen  map[int]int        // by thread: the part that it waits for
	ended   map[place]bool
}

func (m *mix) Next(now workloads.Moment) workloads.Step {
	for {
		part, waits := m.chosen[now.Thread]
		if !waits {
			if part = m.choose(now.Thread); part < 0 {
				return workloads.End()
			}
		}
		delete(m.chosen, now.Thread)
		step := m.next(part, now)
		if step.Ends() {
			m.ended[place{now.Thread, part}] = true
			continue
		}
		if _, perform := step.Op(); !perform {
			m.chosen[now.Thread] = part
		}
		return step
	}
}

// choose draws a part that has not ended for the thread; -1: there is none.
func (m *mix) choose(thread int) int {
	total := 0
	for part, weight := range m.weights {
		if !m.ended[place{thread, part}] {
			total += weight
		}
	}
	if total == 0 {
		return -1
	}
	if m.dice[thread] == nil {
		m.dice[thread] = rand.New(rand.NewPCG(m.seed, uint64(thread)))
	}
	drawn := m.dice[thread].IntN(total)
	for part, weight := range m.weights {
		if m.ended[place{thread, part}] {
			continue
		}
		if drawn -= weight; drawn < 0 {
			return part
		}
	}
	return -1
}

func (m *mix) Completed(op histories.Operation) { m.completed(op) }

// Reserve gives the first threads to one generator, the next to another, and so on; those that
// are left belong to the last one.
func Reserve(of ...Reserved) workloads.Generator {
	r := &reserve{}
	var list []workloads.Generator
	for _, one := range of {
		list, r.counts = append(list, one.Of), append(r.counts, one.Threads)
	}
	r.parts = newParts(list)
	return r
}

// Reserved is a generator and how many threads it has. Of the last one the number does not
// matter.
type Reserved struct {
	Threads int
	Of      workloads.Generator
}

type reserve struct {
	parts
	counts []int
}

func (r *reserve) Next(now workloads.Moment) workloads.Step {
	part, first := 0, 0
	for ; part < len(r.counts)-1 && now.Thread >= first+r.counts[part]; part++ {
		first += r.counts[part]
	}
	return r.next(part, now)
}

func (r *reserve) Completed(op histories.Operation) { r.completed(op) }

// Phases lets generators work one after the other: each begins when the one before it has ended
// for all of a number of threads and none of its operations is under way.
func Phases(threads int, of ...workloads.Generator) workloads.Generator {
	return &phases{parts: newParts(of), threads: threads, ended: make(map[int]bool)}
}

type phases struct {
	parts
	threads int
	at      int          // the phase
	ended   map[int]bool // threads, in this phase
}

func (p *phases) Next(now workloads.Moment) workloads.Step {
	for p.at < len(p.list) {
		if !p.ended[now.Thread] {
			step := p.next(p.at, now)
			if !step.Ends() {
				return step
			}
			p.ended[now.Thread] = true
		}
		if len(p.ended) < p.threads || len(p.of) > 0 {
			return workloads.WaitAtMost(now.Now + phasePoll)
		}
		p.at++
		clear(p.ended)
	}
	return workloads.End()
}

// phasePoll is how often a thread that waits for a phase asks again: the last one to end may
// do so without an operation that would wake the others.
const phasePoll = 5 * time.Millisecond

func (p *phases) Completed(op histories.Operation) { p.completed(op) }
