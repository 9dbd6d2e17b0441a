package disk

import (
	"bytes"
	"encoding/json"
	"fmt"
)

const (
	lineMost = 1 << 20

	doSet   = "set"
	doFail  = "fail"
	doStats = "stats"
	doClose = "close"

	eventMounted = "mounted"
	eventTripped = "tripped"
)

// request is a line to the layer, answer one from it: to a request, or an event.
type request struct {
	ID      uint64   `json:"id"`
	Do      string   `json:"do"`
	Setting *Setting `json:"setting,omitempty"` // of set
	Mode    string   `json:"mode,omitempty"`    // of fail
	Seed    uint64   `json:"seed,omitempty"`
}

type answer struct {
	ID    uint64 `json:"id,omitempty"`
	Event string `json:"event,omitempty"`
	Error string `json:"error,omitempty"`
	Busy  bool   `json:"busy,omitempty"` // the error is that something uses the disk
	Stats *Stats `json:"stats,omitempty"`
	Loss  *Loss  `json:"loss,omitempty"`
}

func encode(message any) ([]byte, error) {
	line, err := json.Marshal(message)
	return append(line, '\n'), err
}

// decodeRequest returns a request that is valid, or what of it could be read.
func decodeRequest(line []byte) (request, error) {
	var q request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		return q, fmt.Errorf("%w: request: %w", ErrInvalid, err)
	}
	switch q.Do {
	case doSet:
		if q.Setting == nil {
			return q, fmt.Errorf("%w: set without a setting", ErrInvalid)
		}
		return q, q.Setting.Validate()
	case doFail:
		if q.Mode != PowerAll && q.Mode != PowerPrefix && q.Mode != PowerPages {
			return q, fmt.Errorf("%w: power failure %q: it is all, prefix or pages", ErrInvalid, q.Mode)
		}
	case doStats, doClose:
	default:
		return q, fmt.Errorf("%w: request %q", ErrInvalid, q.Do)
	}
	return q, nil
}
