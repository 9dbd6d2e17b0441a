package histories

import (
	"encoding/json"
	"time"
)

// Operation is one call with both its ends: the pair of an Invoke and its completion.
type Operation struct {
	Process  int
	F        string
	Key      string
	Node     string
	Input    Value         // the argument, from the Invoke
	Output   Value         // the result, from the completion; Nil unless Type is OK, or Refused
	Revision int64         // what came with the result, as in Event; 0: none
	Stale    bool          // as in Event
	Refused  bool          // as in Event
	Type     Type          // OK, Fail or Info; an invoke without a completion counts as Info
	Call     time.Duration // time of the Invoke
	Return   time.Duration // time of the completion; Forever where Type is Info
	Error    string
	Attempts int
	Final    bool
	Invoked  int // index of the Invoke event
	Returned int // index of the completion event; -1 where there is none
}

// Forever is the Return of an operation whose outcome is unknown: it may take effect
// at any later time.
const Forever = time.Duration(1<<63 - 1)

// Operations pairs the events of a history into operations, in order of invoke. Events of
// the nemesis and the observer are none. An invoke without a completion is an operation
// of unknown outcome. The events must satisfy [Validate].
func Operations(events []Event) []Operation {
	ops := make([]Operation, 0, len(events)/2)
	open := make(map[int]int) // process to its position in ops
	for i := range events {
		e := &events[i]
		if e.Process < 0 {
			continue
		}
		if e.Type == Invoke {
			open[e.Process] = len(ops)
			ops = append(ops, begun(e))
			continue
		}
		at, ok := open[e.Process]
		if !ok {
			continue
		}
		delete(open, e.Process)
		ops[at].complete(e)
	}
	return ops
}

// OperationOf returns the operation of an Invoke and the event that completes it.
func OperationOf(invoke, completion Event) Operation {
	op := begun(&invoke)
	op.complete(&completion)
	return op
}

// begun is an operation that has no completion.
func begun(e *Event) Operation {
	return Operation{
		Process: e.Process, F: e.F, Key: e.Key, Node: e.Node, Input: e.Value, Type: Info,
		Call: e.Time, Return: Forever, Stale: e.Stale, Final: e.Final, Invoked: e.Index, Returned: -1,
	}
}

func (o *Operation) complete(e *Event) {
	o.Type, o.Error, o.Attempts, o.Returned = e.Type, e.Error, e.Attempts, e.Index
	if e.Type != Info {
		o.Return = e.Time
	}
	o.Refused = e.Refused && e.Type == Fail
	if e.Type == OK || o.Refused {
		o.Output, o.Revision = e.Value, e.Revision
	}
}

// operationJSON is an operation in JSON. A Return of Forever is left out.
type operationJSON struct {
	Process  process        `json:"process"`
	F        string         `json:"f"`
	Key      string         `json:"key,omitempty"`
	Node     string         `json:"node,omitempty"`
	Input    Value          `json:"input"`
	Output   Value          `json:"output"`
	Revision int64          `json:"revision,omitempty"`
	Stale    bool           `json:"stale,omitempty"`
	Refused  bool           `json:"refused,omitempty"`
	Type     Type           `json:"type"`
	Call     time.Duration  `json:"call"`
	Return   *time.Duration `json:"return,omitempty"`
	Error    string         `json:"error,omitempty"`
	Attempts int            `json:"attempts,omitempty"`
	Final    bool           `json:"final,omitempty"`
	Invoked  int            `json:"invoked"`
	Returned int            `json:"returned"`
}

// MarshalJSON writes o as it stands in verdict.json: times in nanoseconds, no return
// where the outcome is unknown.
func (o Operation) MarshalJSON() ([]byte, error) {
	raw := operationJSON{
		Process: process(o.Process), F: o.F, Key: o.Key, Node: o.Node, Input: o.Input, Output: o.Output,
		Revision: o.Revision, Stale: o.Stale, Refused: o.Refused, Type: o.Type,
		Call: o.Call, Error: o.Error, Attempts: o.Attempts, Final: o.Final, Invoked: o.Invoked, Returned: o.Returned,
	}
	if o.Return != Forever {
		raw.Return = &o.Return
	}
	return json.Marshal(raw)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (o *Operation) UnmarshalJSON(data []byte) error {
	var raw operationJSON
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	*o = Operation{
		Process: int(raw.Process), F: raw.F, Key: raw.Key, Node: raw.Node, Input: raw.Input, Output: raw.Output,
		Revision: raw.Revision, Stale: raw.Stale, Refused: raw.Refused, Type: raw.Type,
		Call: raw.Call, Return: Forever, Error: raw.Error, Attempts: raw.Attempts, Final: raw.Final, Invoked: raw.Invoked, Returned: raw.Returned,
	}
	if raw.Return != nil {
		o.Return = *raw.Return
	}
	return nil
}
