package histories

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// decoder reads the lines of one history. A line in the form that [Event.AppendJSON] writes
// is read by hand, any other JSON of the same meaning through encoding/json: the reader must
// keep up with checkers that take less than 100 ns an event.
type decoder struct {
	texts texts
	lists []int64 // what is left of a chunk that the integers of values are put into
}

func newDecoder() *decoder { return new(decoder) }

// event reads one line. Of what it puts into e nothing is overwritten later.
func (d *decoder) event(line []byte, e *Event) error {
	if d.canonical(line, e) {
		return nil
	}
	return decodeEvent(line, e)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (e *Event) UnmarshalJSON(data []byte) error { return decodeEvent(data, e) }

func decodeEvent(line []byte, e *Event) error {
	var raw struct {
		Index    *int
		Time     *time.Duration
		Process  *process
		Type     *Type
		F        *string
		Key      string
		Value    Value
		Revision int64
		Stale    bool
		Refused  bool
		Node     string
		Error    string
		Attempts int
		Final    bool
		Fault    *Fault
		Status   *Status
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return err
	}
	for name, missing := range map[string]bool{
		"index": raw.Index == nil, "time": raw.Time == nil, "process": raw.Process == nil, "type": raw.Type == nil, "f": raw.F == nil,
	} {
		if missing {
			return fmt.Errorf("an event without %q", name)
		}
	}
	*e = Event{
		Index: *raw.Index, Time: *raw.Time, Process: int(*raw.Process), Type: *raw.Type, F: *raw.F,
		Key: raw.Key, Value: raw.Value, Revision: raw.Revision, Stale: raw.Stale, Refused: raw.Refused, Node: raw.Node, Error: raw.Error, Attempts: raw.Attempts,
		Final: raw.Final, Fault: raw.Fault, Status: raw.Status,
	}
	return nil
}

// process is a process number in JSON: a number from 0, or the words for the others.
type process int

// MarshalJSON writes the number or the word.
func (p process) MarshalJSON() ([]byte, error) { return appendProcess(nil, int(p)), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (p *process) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case `"nemesis"`:
		*p = Nemesis
	case `"observer"`:
		*p = Observer
	default:
		var n int
		if err := json.Unmarshal(data, &n); err != nil || n < 0 {
			return fmt.Errorf(`process %s: want a number from 0, "nemesis" or "observer"`, data)
		}
		*p = process(n)
	}
	return nil
}

var errNoHistory = errors.New(`not a Capsize history: its first line is not {"capsize":"history","version":1,…}`)

func decodeHeader(line []byte) (Header, error) {
	var raw struct {
		Capsize string
		Version int
		Run     string
		Started time.Time
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Header{}, fmt.Errorf("%w: %w", errNoHistory, err)
	}
	if raw.Capsize != "history" {
		return Header{}, errNoHistory
	}
	if raw.Version != FormatVersion {
		return Header{}, fmt.Errorf("history format version %d: this Capsize reads version %d", raw.Version, FormatVersion)
	}
	return Header{Run: raw.Run, Started: raw.Started}, nil
}
