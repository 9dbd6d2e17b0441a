package linearizability

import (
	"fmt"
	"hash/maphash"

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
	checker  *Checker
	keys     map[string]*liveKey
	order    []*liveKey // in order of last use, roughly: a queue in which a used key is put again at the end
	open     map[int]*liveKey
	past     map[uint64]struct{} // hashes of the keys that were forgotten
	seed     maphash.Seed
	unjudged map[string]string // key to reason
	alarm    *checkers.Alarm
}

const (
	keysMost = 4096  // known at a time
	waysMost = 4096  // in which the operations of a key can have taken effect
	named    = 20    // keys that are not judged any more and are named
	waiting  = 65536 // events of a key that wait for an operation to complete
)

var _ checkers.LiveChecker = (*Checker)(nil)

// Live begins to judge a run.
func (c *Checker) Live() checkers.Live {
	return &Live{
		checker: c, keys: make(map[string]*liveKey), open: make(map[int]*liveKey), past: make(map[uint64]struct{}),
		seed: maphash.MakeSeed(), unjudged: make(map[string]string),
	}
}

// liveKey is one key. Its judge is nil once it is not judged any more.
type liveKey struct {
	name   string
	judge  judge
	open   int
	queued int // how often it stands in the queue of keys
}

// judge decides the history of one key while it goes on.
type judge interface {
	// event takes the next event. It says why there is no order any more, or why the judge
	// gives up; both are empty else.
	event(e *histories.Event) (broken, gaveUp string)
}

// Event takes the next event of the history. After an alarm it returns the same one again.
func (l *Live) Event(e *histories.Event) *checkers.Alarm {
	if e.Process < 0 || l.alarm != nil || l.checker.Keys != nil && !l.checker.Keys(e.Key) {
		return l.alarm
	}
	k := l.open[e.Process]
	if e.Type == histories.Invoke {
		k = l.key(e.Key)
		k.open++
		l.open[e.Process] = k
	} else if k != nil {
		k.open--
		delete(l.open, e.Process)
	}
	if k == nil || k.judge == nil {
		return nil
	}
	broken, gaveUp := k.judge.event(e)
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

// key returns a key, and forgets those that were not used for longest when there are too many.
func (l *Live) key(name string) *liveKey {
	k := l.keys[name]
	if k == nil {
		k = &liveKey{name: name}
		if _, before := l.past[maphash.String(l.seed, name)]; before {
			l.giveUp(name, "it was used again after it had been forgotten")
		} else {
			k.judge = l.checker.newJudge()
		}
		l.keys[name] = k
	}
	l.order = append(l.order, k)
	k.queued++
	for len(l.keys) > keysMost || len(l.order) > 8*keysMost {
		oldest := l.order[0]
		l.order = l.order[1:]
		oldest.queued--
		switch {
		case oldest.queued > 0:
		case oldest.open > 0 || len(l.keys) <= keysMost/2:
			l.order = append(l.order, oldest)
			oldest.queued++
		default:
			delete(l.keys, oldest.name)
			l.past[maphash.String(l.seed, oldest.name)] = struct{}{}
		}
	}
	return k
}

func (c *Checker) newJudge() judge {
	if c.Object == Register {
		return &registerJudge{stream: registers.NewStream(), handles: make(map[int]registers.Handle)}
	}
	return &modelJudge{ways: search.NewLive(c.model(), waysMost), open: make(map[int]*pending)}
}

// registerJudge judges a register with unique values at each event.
type registerJudge struct {
	stream  *registers.Stream
	handles map[int]registers.Handle // by process
}

func (r *registerJudge) event(e *histories.Event) (broken, gaveUp string) {
	if e.Type == histories.Invoke {
		handle, ok := r.begin(e)
		if !ok {
			return "", fmt.Sprintf("%s of %s is no operation of a register", e.F, e.Value)
		}
		r.handles[e.Process] = handle
	} else if alarm := r.end(e); alarm != nil {
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

func (r *registerJudge) end(e *histories.Event) *registers.Alarm {
	handle := r.handles[e.Process]
	delete(r.handles, e.Process)
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
	open  map[int]*pending // by process
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

func (m *modelJudge) event(e *histories.Event) (broken, gaveUp string) {
	if e.Type == histories.Invoke {
		op := &pending{invoke: *e}
		m.open[e.Process] = op
		m.queue = append(m.queue, &moment{op: op})
	} else if p := m.open[e.Process]; p != nil {
		delete(m.open, e.Process)
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
