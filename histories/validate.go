package histories

import (
	"fmt"
	"time"
)

// InvalidError is an event that contradicts those before it: the history cannot be what
// a recorder wrote, and no verdict can rest on it.
type InvalidError struct {
	Position int // in the list of events, from 0
	Event    Event
	Reason   string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("event %d (%s %s by %s): %s", e.Event.Index, e.Event.Type, e.Event.F, processName(e.Event.Process), e.Reason)
}

func processName(p int) string {
	switch p {
	case Nemesis:
		return "the nemesis"
	case Observer:
		return "the observer"
	default:
		return fmt.Sprintf("process %d", p)
	}
}

// Validate reports the first event that breaks a rule of histories, as an
// [*InvalidError]: indices without gaps, time that never goes back, for each process
// invokes and completions in turn, and no process used after an Info. A history may end
// in the middle of operations.
func Validate(events []Event) error {
	v := newValidator()
	for i := range events {
		if err := v.event(&events[i]); err != nil {
			return err
		}
	}
	return nil
}

// validator applies the rules of [Validate] to one event after the other. It remembers the
// operations that are open, a bit of each process that is used up, and nothing else that
// grows with the history.
type validator struct {
	seen    int // events
	last    time.Duration
	clients map[int]*client
	most    int                    // of clients, before some are forgotten
	recent  [clientsRecent]*client // by the process's number; nearly every look ends here
	used    processSet             // those that had an Info
}

const (
	clientsRecent = 256
	// clientsMost is how many processes are remembered before those that have nothing open are
	// forgotten: of them nothing needs to be known.
	clientsMost = 4096
)

// client is a process that had an operation lately.
type client struct {
	process int
	open    bool // an invoke without a completion yet: the next three tell of it
	index   int
	f, key  string
}

func newValidator() *validator { return &validator{clients: make(map[int]*client), most: clientsMost} }

func (v *validator) event(e *Event) error {
	if reason := v.breaks(e); reason != "" {
		return &InvalidError{Position: v.seen, Event: *e, Reason: reason}
	}
	v.seen++
	v.last = e.Time
	return nil
}

// breaks says which rule e breaks, if it does.
func (v *validator) breaks(e *Event) string {
	switch {
	case e.Index != v.seen:
		return fmt.Sprintf("its index must be %d: events are missing, or stand twice or in another order", v.seen)
	case e.Time < 0:
		return fmt.Sprintf("its time %s is before the start of the run", e.Time)
	case e.Time < v.last:
		return fmt.Sprintf("time goes back, from %s to %s", v.last, e.Time)
	case e.Type > Info:
		return "no such type"
	case e.Process >= 0:
		return v.operation(e)
	case e.Process < Observer:
		return "no such process"
	case e.Type != Info:
		return "an event that is no operation must be info"
	default:
		return ""
	}
}

func (v *validator) operation(e *Event) string {
	c := v.recent[e.Process%clientsRecent]
	if c == nil || c.process != e.Process {
		if c = v.clients[e.Process]; c == nil {
			if v.used.has(e.Process) {
				return "its process had an operation of unknown outcome before and must not be used again"
			}
			c = v.remember(e.Process)
		}
		v.recent[e.Process%clientsRecent] = c
	}
	switch {
	case e.Type == Invoke && c.open:
		return fmt.Sprintf("the operation that the process invoked in event %d has no completion yet", c.index)
	case e.Type == Invoke:
		c.open, c.index, c.f, c.key = true, e.Index, e.F, e.Key
	case !c.open:
		return "a completion without an invoke"
	case c.f != e.F || c.key != e.Key:
		return fmt.Sprintf("it completes %s of key %q, but event %d invoked %s of key %q", e.F, e.Key, c.index, c.f, c.key)
	case e.Type == Info:
		v.used.add(e.Process)
		delete(v.clients, e.Process)
		v.recent[e.Process%clientsRecent] = nil
	default:
		c.open = false
	}
	return ""
}

func (v *validator) remember(process int) *client {
	if len(v.clients) >= v.most {
		v.forget()
	}
	c := &client{process: process}
	v.clients[process] = c
	return c
}

// forget drops the processes that have nothing open. The next time is when as many are
// remembered again as stay now, so that an event takes constant time on average.
func (v *validator) forget() {
	for process, c := range v.clients {
		if !c.open {
			delete(v.clients, process)
		}
	}
	v.most = clientsMost + 2*len(v.clients)
	v.recent = [clientsRecent]*client{}
}

// processSet is a set of process numbers, a bit for each where they lie close together, as
// they do where each crashed process is followed by one of the next number.
type processSet struct {
	pages map[int]*[processPage / 64]uint64
}

const processPage = 4096

func (s *processSet) add(process int) {
	page := s.pages[process/processPage]
	if page == nil {
		if s.pages == nil {
			s.pages = make(map[int]*[processPage / 64]uint64)
		}
		page = new([processPage / 64]uint64)
		s.pages[process/processPage] = page
	}
	page[process%processPage/64] |= 1 << (process % 64)
}

func (s *processSet) has(process int) bool {
	page := s.pages[process/processPage]
	return page != nil && page[process%processPage/64]&(1<<(process%64)) != 0
}
