package histories

import "fmt"

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
	v := validator{clients: make(map[int]clientState)}
	for i := range events {
		if reason := v.event(i, &events[i]); reason != "" {
			return &InvalidError{Position: i, Event: events[i], Reason: reason}
		}
		v.last = &events[i]
	}
	return nil
}

type validator struct {
	last    *Event
	clients map[int]clientState
}

type clientState struct {
	open   *Event // the invoke without a completion yet
	closed bool   // an outcome was unknown: the number is used up
}

func (v *validator) event(position int, e *Event) string {
	if e.Index != position {
		return fmt.Sprintf("its index must be %d: events are missing, or stand twice or in another order", position)
	}
	if v.last != nil && e.Time < v.last.Time {
		return fmt.Sprintf("time goes back, from %s to %s", v.last.Time, e.Time)
	}
	if e.Time < 0 {
		return fmt.Sprintf("its time %s is before the start of the run", e.Time)
	}
	if e.Process < 0 {
		if e.Process < Observer {
			return "no such process"
		}
		if e.Type != Info {
			return "an event that is no operation must be info"
		}
		return ""
	}
	return v.client(e)
}

func (v *validator) client(e *Event) string {
	state := v.clients[e.Process]
	switch {
	case state.closed:
		return "its process had an operation of unknown outcome before and must not be used again"
	case e.Type == Invoke && state.open != nil:
		return fmt.Sprintf("the operation that the process invoked in event %d has no completion yet", state.open.Index)
	case e.Type == Invoke:
		state.open = e
	case state.open == nil:
		return "a completion without an invoke"
	case state.open.F != e.F || state.open.Key != e.Key:
		return fmt.Sprintf("it completes %s of key %q, but event %d invoked %s of key %q", e.F, e.Key, state.open.Index, state.open.F, state.open.Key)
	default:
		state.open = nil
		state.closed = e.Type == Info
	}
	v.clients[e.Process] = state
	return ""
}
