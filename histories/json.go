package histories

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// The JSON of an event is one line of a history file. It is written without reflection
// and without allocation: the recorder writes a hundred thousand a second.

// AppendJSON appends the event's line, without the newline, to b.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(e.Index), 10)
	b = append(b, `,"time":`...)
	b = strconv.AppendInt(b, int64(e.Time), 10)
	b = append(b, `,"process":`...)
	b = appendProcess(b, e.Process)
	b = append(b, `,"type":"`...)
	b = append(b, e.Type.String()...)
	b = append(b, '"')
	b = appendText(b, "f", e.F)
	b = appendText(b, "key", e.Key)
	if e.Process >= 0 {
		b = append(b, `,"value":`...)
		b = e.Value.appendJSON(b)
	}
	b = appendText(b, "node", e.Node)
	b = appendText(b, "error", e.Error)
	if e.Attempts > 0 {
		b = append(b, `,"attempts":`...)
		b = strconv.AppendInt(b, int64(e.Attempts), 10)
	}
	if e.Final {
		b = append(b, `,"final":true`...)
	}
	if e.Fault != nil {
		b = appendObject(b, "fault", e.Fault)
	}
	if e.Status != nil {
		b = appendObject(b, "status", e.Status)
	}
	return append(b, '}')
}

func appendProcess(b []byte, process int) []byte {
	switch process {
	case Nemesis:
		return append(b, `"nemesis"`...)
	case Observer:
		return append(b, `"observer"`...)
	default:
		return strconv.AppendInt(b, int64(process), 10)
	}
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendString(b, s)
}

// appendString writes a JSON string. What is not plain goes through encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendObject(b []byte, name string, v any) []byte {
	object, _ := json.Marshal(v) // plain structs of ours always marshal
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return append(b, object...)
}

// MarshalJSON writes the event as it stands in a history file.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON reads a line of a history file.
func (e *Event) UnmarshalJSON(data []byte) error {
	var line struct {
		Index    int             `json:"index"`
		Time     time.Duration   `json:"time"`
		Process  json.RawMessage `json:"process"`
		Type     Type            `json:"type"`
		F        string          `json:"f"`
		Key      string          `json:"key"`
		Value    Value           `json:"value"`
		Node     string          `json:"node"`
		Error    string          `json:"error"`
		Attempts int             `json:"attempts"`
		Final    bool            `json:"final"`
		Fault    *Fault          `json:"fault"`
		Status   *Status         `json:"status"`
	}
	if err := json.Unmarshal(data, &line); err != nil {
		return err
	}
	process, err := parseProcess(line.Process)
	if err != nil {
		return err
	}
	*e = Event{
		Index: line.Index, Time: line.Time, Process: process, Type: line.Type, F: line.F, Key: line.Key, Value: line.Value,
		Node: line.Node, Error: line.Error, Attempts: line.Attempts, Final: line.Final, Fault: line.Fault, Status: line.Status,
	}
	return nil
}

func parseProcess(raw json.RawMessage) (int, error) {
	switch string(raw) {
	case `"nemesis"`:
		return Nemesis, nil
	case `"observer"`:
		return Observer, nil
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		return 0, fmt.Errorf(`process %s: want a number from 0, "nemesis" or "observer"`, raw)
	}
	return n, nil
}

// MarshalText writes the word of the type.
func (t Type) MarshalText() ([]byte, error) {
	if int(t) >= len(typeNames) {
		return nil, fmt.Errorf("event type %d is unknown", uint8(t))
	}
	return []byte(typeNames[t]), nil
}

// UnmarshalText reads the word of a type.
func (t *Type) UnmarshalText(text []byte) error {
	i := slices.Index(typeNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("event type %q: want invoke, ok, fail or info", text)
	}
	*t = Type(i)
	return nil
}

// UnmarshalJSON reads null, a number or a list of numbers.
func (v *Value) UnmarshalJSON(data []byte) error {
	if n, err := strconv.ParseInt(string(data), 10, 64); err == nil {
		*v = Int(n)
		return nil
	}
	var list []int64
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("value %.40s: want null, an integer or a list of integers", data)
	}
	if list == nil {
		*v = Nil
		return nil
	}
	*v = Ints(list...)
	return nil
}
