package histories

import (
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// FormatVersion is the version of the history format that this package writes and reads.
// A reader refuses any other; fields that it does not know it ignores.
const FormatVersion = 1

// Header is the first line of a history file.
type Header struct {
	Run     string    // id of the run
	Started time.Time // wall clock at the run's start; Event.Time counts from there
}

// The encoder appends to a buffer that its caller owns: at tens of thousands of events
// per second on two cores, garbage would compete with the system under test.

func appendHeader(b []byte, h Header) []byte {
	b = append(b, `{"capsize":"history","version":`...)
	b = strconv.AppendInt(b, FormatVersion, 10)
	b = appendString(append(b, `,"run":`...), h.Run)
	b = append(b, `,"started":"`...)
	b = h.Started.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}')
}

// AppendJSON appends e as it stands in a history file, without the line's end. Text that
// is not valid UTF-8 is written with the replacement character.
func (e *Event) AppendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"index":`...), int64(e.Index), 10)
	b = strconv.AppendInt(append(b, `,"time":`...), int64(e.Time), 10)
	b = append(b, `,"process":`...)
	b = appendProcess(b, e.Process)
	b = append(b, `,"type":"`...)
	b = append(b, e.Type.String()...)
	b = appendString(append(b, `","f":`...), e.F)
	b = appendText(b, `,"key":`, e.Key)
	if e.Process >= 0 || !e.Value.IsNil() {
		b = e.Value.appendJSON(append(b, `,"value":`...))
	}
	if e.Revision != 0 {
		b = strconv.AppendInt(append(b, `,"revision":`...), e.Revision, 10)
	}
	if e.Stale {
		b = append(b, `,"stale":true`...)
	}
	if e.Refused {
		b = append(b, `,"refused":true`...)
	}
	b = appendText(b, `,"node":`, e.Node)
	b = appendText(b, `,"error":`, e.Error)
	if e.Attempts != 0 {
		b = strconv.AppendInt(append(b, `,"attempts":`...), int64(e.Attempts), 10)
	}
	if e.Final {
		b = append(b, `,"final":true`...)
	}
	if e.Fault != nil {
		b = e.Fault.appendJSON(append(b, `,"fault":`...))
	}
	if e.Status != nil {
		b = e.Status.appendJSON(append(b, `,"status":`...))
	}
	return append(b, '}')
}

// MarshalJSON writes e as it stands in a history file.
func (e Event) MarshalJSON() ([]byte, error) {
	if _, err := e.Type.MarshalText(); err != nil {
		return nil, err
	}
	return e.AppendJSON(nil), nil
}

func (f *Fault) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"id":`...), int64(f.ID), 10)
	b = appendString(append(b, `,"name":`...), f.Name)
	b = appendString(append(b, `,"phase":`...), string(f.Phase))
	b = appendNumber(b, `,"took":`, uint64(max(0, f.Took)))
	b = appendText(b, `,"target":`, f.Target)
	b = appendTexts(b, `,"nodes":`, f.Nodes)
	b = appendText(b, `,"detail":`, f.Detail)
	b = appendTexts(b, `,"proof":`, f.Proof)
	for i, name := range slices.Sorted(maps.Keys(f.Params)) {
		b = append(b, [...]string{`,"params":{`, `,`}[min(i, 1)]...)
		b = appendString(append(appendString(b, name), ':'), f.Params[name])
	}
	if len(f.Params) > 0 {
		b = append(b, '}')
	}
	b = appendText(b, `,"leader":`, f.Leader)
	b = appendText(b, `,"side":`, f.Side)
	b = appendText(b, `,"beyond":`, f.Beyond)
	if f.MayEnd {
		b = append(b, `,"mayEnd":true`...)
	}
	return append(b, '}')
}

func (s *Status) appendJSON(b []byte) []byte {
	b = strconv.AppendBool(append(b, `{"up":`...), s.Up)
	b = appendNumber(b, `,"id":`, s.ID)
	b = appendNumber(b, `,"term":`, s.Term)
	b = appendText(b, `,"role":`, s.Role)
	b = appendText(b, `,"leader":`, s.Leader)
	b = appendNumber(b, `,"commit":`, s.Commit)
	b = appendNumber(b, `,"applied":`, s.Applied)
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

func appendNumber(b []byte, name string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, name...), n, 10)
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

func appendTexts(b []byte, name string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, name...)
	for i, s := range list {
		b = append(b, "[,"[min(i, 1)])
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendString appends s as a JSON string (RFC 8259, section 7).
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + size
			}
			i += size
			continue
		case c == '"' || c == '\\':
			b = append(append(b, s[start:i]...), '\\', c)
		case c == '\n':
			b = append(append(b, s[start:i]...), '\\', 'n')
		case c < ' ':
			b = append(append(b, s[start:i]...), '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
		default:
			i++
			continue
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
