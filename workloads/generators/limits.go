package generators

import (
	"time"

	"capsize/histories"
	"capsize/workloads"
)

// Limit ends a generator after a number of operations, of all threads together.
func Limit(operations int, of workloads.Generator) workloads.Generator {
	return &limit{Generator: of, left: operations}
}

type limit struct {
	workloads.Generator
	left int
}

func (l *limit) Next(now workloads.Moment) workloads.Step {
	if l.left <= 0 {
		return workloads.End()
	}
	step := l.Generator.Next(now)
	if _, perform := step.Op(); perform {
		l.left--
	}
	return step
}

// TimeLimit ends a generator a while after it was first asked.
func TimeLimit(lasts time.Duration, of workloads.Generator) workloads.Generator {
	return &timeLimit{Generator: of, lasts: lasts}
}

type timeLimit struct {
	workloads.Generator
	lasts, until time.Duration
	begun        bool
}

func (t *timeLimit) Next(now workloads.Moment) workloads.Step {
	if !t.begun {
		t.begun, t.until = true, now.Now+t.lasts
	}
	if now.Now >= t.until {
		return workloads.End()
	}
	step := t.Generator.Next(now)
	if _, perform := step.Op(); perform || step.Ends() {
		return step
	}
	// Whatever it waits for, the end comes first.
	until, named := step.Until()
	switch {
	case named && until <= t.until:
		return step
	case step.Waits():
		return workloads.WaitAtMost(t.until)
	default:
		return workloads.Sleep(t.until)
	}
}

// Delay lets a generator begin a while after it was first asked.
func Delay(by time.Duration, of workloads.Generator) workloads.Generator {
	return &delay{Generator: of, by: by}
}

type delay struct {
	workloads.Generator
	by, from time.Duration
	begun    bool
}

func (d *delay) Next(now workloads.Moment) workloads.Step {
	if !d.begun {
		d.begun, d.from = true, now.Now+d.by
	}
	if now.Now < d.from {
		return workloads.Sleep(d.from)
	}
	return d.Generator.Next(now)
}

// Roam lets a thread ask the next node when a node has refused it, or left it without an
// answer, several times in a row: so threads follow the members of a cluster. A thread begins
// at the node of its number. Operations that name a node are left alone.
func Roam(nodes []string, patience int, of workloads.Generator) workloads.Generator {
	if len(nodes) == 0 {
		return of
	}
	return &roam{Generator: of, nodes: nodes, patience: max(patience, 1), stands: make(map[int]*stand), threads: make(map[int]int)}
}

type roam struct {
	workloads.Generator
	nodes    []string
	patience int
	stands   map[int]*stand // by thread
	threads  map[int]int    // by process, while it performs
}

// stand is where a thread is.
type stand struct{ node, failed int }

func (r *roam) Next(now workloads.Moment) workloads.Step {
	step := r.Generator.Next(now)
	op, perform := step.Op()
	if !perform {
		return step
	}
	s := r.stands[now.Thread]
	if s == nil {
		s = &stand{node: now.Thread}
		r.stands[now.Thread] = s
	}
	if op.Node == "" {
		op.Node = r.nodes[s.node%len(r.nodes)]
		r.threads[now.Process] = now.Thread
	}
	return workloads.Perform(op)
}

func (r *roam) Completed(op histories.Operation) {
	if thread, ours := r.threads[op.Process]; ours {
		delete(r.threads, op.Process)
		s := r.stands[thread]
		switch {
		case op.Type == histories.OK || op.Refused:
			s.failed = 0
		case s.failed+1 >= r.patience:
			s.node, s.failed = s.node+1, 0
		default:
			s.failed++
		}
	}
	r.Generator.Completed(op)
}
