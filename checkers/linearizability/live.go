package linearizability

import (
	"fmt"

	"capsize/checkers"
	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// Live judges keys while the run goes on. Registers with unique values are judged at each
// event; what needs the model is judged when all that was under way at the time of an event
// has completed.
//
// It holds what overlaps the operations under way, and a little for each key of the last
// keysMost; of those before it keeps a hash only. A key that comes back from there is not
// judged any more, nor is one whose possibilities become too many.
type Live struct {
	checker   *Checker
	keys      knownKeys
	processes processes
	unjudged  map[string]string // key to reason
	alarm     *checkers.Alarm
}

const (
	waysMost = 4096  // in which the operations of a key can have taken effect
	named    = 20    // keys that are not judged any more and are named
	waiting  = 65536 // events of a key that wait for an operation to complete
)

var _ checkers.LiveChecker = (*Checker)(nil)

// Live begins to judge a run.
func (c *Checker) Live() checkers.Live {
	return &Live{
		checker: c, keys: newKnownKeys(), processes: processes{others: make(map[int]*underWay)}, unjudged: make(map[string]string),
	}
}

// judge decides the history of one key while it goes on.
type judge interface {
	// event takes the next event, of an operation under way. It says why there is no order any
	// more, or why the judge gives up; both are empty else.
	event(e *histories.Event, op *underWay) (broken, gaveUp string)
}

// Event takes the next event of the history. After an alarm it returns the same one again.
func (l *Live) Event(e *histories.Event) *checkers.Alarm {
	if e.Process < 0 || l.alarm != nil || !l.checker.judges(e.Key) {
		return l.alarm
	}
	var op *underWay
	if e.Type == histories.Invoke {
		k := l.key(e.Key)
		k.open++
		op = l.processes.begin(e.Process, k)
	} else if op = l.processes.find(e.Process); op == nil {
		return nil
	}
	k := op.key
	var broken, gaveUp string
	if k.judge != nil {
		broken, gaveUp = k.judge.event(e, op)
	}
	if e.Type != histories.Invoke {
		k.open--
		l.processes.end(op)
	}
	switch {
	case broken != "":
		l.alarm = &checkers.Alarm{Checker: l.checker.Name(), Key: e.Key, At: e.Time, Why: keyName(e.Key) + ": " + broken}
	case gaveUp != "":
		k.judge = nil
		l.giveUp(k.name, gaveUp)
	}
	return l.alarm
}

// Unjudged names keys that are not judged any more.
func (l *Live) Unjudged() []string {
	var list []string
	for key, reason := range l.unjudged {
		list = append(list, keyName(key)+": "+reason)
	}
	return list
}

func (l *Live) giveUp(key, reason string) {
	if len(l.unjudged) < named {
		l.unjudged[key] = reason
	}
}

// key returns a key, which is judged from now on if it was never used before.
func (l *Live) key(name string) *liveKey {
	if k := l.keys.use(name); k != nil {
		return k
	}
	k, before := l.keys.add(name)
	if before {
		l.giveUp(name, "it was used again after it had been forgotten")
	} else {
		k.judge = l.checker.newJudge()
	}
	return k
}

func (c *Checker) newJudge() judge {
	if c.Object == Register {
		return &registerJudge{stream: registers.NewStream()}
	}
	return &modelJudge{ways: search.NewLive(c.model(), waysMost)}
}

// registerJudge judges a register with unique values at each event.
type registerJudge struct{ stream *registers.Stream }

func (r *registerJudge) event(e *histories.Event, op *underWay) (broken, gaveUp string) {
	if e.Type == histories.Invoke {
		handle, ok := r.begin(e)
		if !ok {
			return "", fmt.Sprintf("%s of %s is no operation of a register", e.F, e.Value)
		}
		op.handle = handle
	} else if alarm := r.end(e, op.handle); alarm != nil {
		return r.why(e, alarm), ""
	}
	if value, twice := r.stream.Ambiguous(); twice {
		return "", fmt.Sprintf("the value %d was written twice", value)
	}
	return "", ""
}

func (r *registerJudge) begin(e *histories.Event) (registers.Handle, bool) {
	value, single := e.Value.Int()
	pair, _ := e.Value.Ints()
	switch {
	case e.F == "read" && e.Stale:
		return r.stream.StaleRead(), true
	case e.F == "read":
		return r.stream.Read(), true
	case e.F == "write" && single:
		return r.stream.Write(value), true
	case e.F == "cas" && len(pair) == 2:
		return r.stream.Swap(pair[0], pair[1]), true
	}
	return registers.NoHandle, false
}

func (r *registerJudge) end(e *histories.Event, handle registers.Handle) *registers.Alarm {
	found, said := heldValue(e.Value)
	switch {
	case e.Type == histories.Info:
		return r.stream.Crashed(handle)
	case e.Type == histories.Fail && e.Refused && said:
		return r.stream.Found(handle, found)
	case e.Type == histories.Fail && e.Refused:
		return r.stream.Refused(handle)
	case e.Type == histories.Fail:
		return r.stream.Failed(handle)
	case e.F == "read":
		return r.stream.Found(handle, found)
	}
	return r.stream.Done(handle)
}

func (r *registerJudge) why(e *histories.Event, alarm *registers.Alarm) string {
	return fmt.Sprintf("no order explains what %s by process %d on %s, which ended at %s, says (%s)", e.F, e.Process, e.Node, checkers.Clock(e.Time), alarm.Reason)
}

// modelJudge judges any object. An event is passed on when all operations that began before it
// have completed, since only then their outcomes are known.
type modelJudge struct {
	ways  *search.Live
	queue []*moment
}

// pending is an operation, from its invoke until its end is passed on.
type pending struct {
	invoke    histories.Event
	op        histories.Operation // once it is completed
	completed bool
	slot      int
}

// moment is an event that waits.
type moment struct {
	op      *pending
	returns bool
}

func (m *modelJudge) event(e *histories.Event, op *underWay) (broken, gaveUp string) {
	if e.Type == histories.Invoke {
		op.pending = &pending{invoke: *e}
		m.queue = append(m.queue, &moment{op: op.pending})
	} else if p := op.pending; p != nil {
		p.op, p.completed = histories.OperationOf(p.invoke, *e), true
		if e.Type != histories.Info && says(p.op) {
			m.queue = append(m.queue, &moment{op: p, returns: true})
		}
	}
	if len(m.queue) > waiting {
		return "", fmt.Sprintf("more than %d events waited for an operation to complete", waiting)
	}
	return m.pass()
}

// pass passes on what need not wait.
func (m *modelJudge) pass() (broken, gaveUp string) {
	for len(m.queue) > 0 && m.queue[0].op.completed {
		next := m.queue[0]
		m.queue = m.queue[1:]
		if !next.returns {
			m.begin(next.op)
			continue
		}
		switch m.ways.Return(next.op.slot) {
		case search.Illegal:
			op := &next.op.op
			return fmt.Sprintf("no order explains what %s by process %d on %s, which ended at %s, says", op.F, op.Process, op.Node, checkers.Clock(op.Return)), ""
		case search.Unknown:
			return "", fmt.Sprintf("there are more than %d ways in which its operations can have taken effect, or more than 64 under way", waysMost)
		}
	}
	return "", ""
}

func (m *modelJudge) begin(p *pending) {
	if says(p.op) {
		p.slot = m.ways.Add(forSearch(p.op), p.op.Type != histories.Info)
	}
}
