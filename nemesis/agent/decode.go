package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"capsize/clusters"
)

// Bounds of what a controller may ask. They are far above what it does ask.
const (
	lineMost  = 1 << 20 // bytes of a request
	peersMost = 256
	pairsMost = (peersMost + 1) * (peersMost + 1) // clients are one more
	portsMost = 16
	nameMost  = 64 // bytes of the name of a node or a process
	leaseMost = 10 * time.Minute
	leaseMin  = 50 * time.Millisecond
)

// DecodeRequest reads one line of the protocol. It accepts only what is a request as a
// whole: no unknown field, exactly one thing asked, everything within its bounds. Where
// only the contents are wrong the returned request has the ID to answer to.
func DecodeRequest(line []byte) (Request, error) {
	var r Request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Request{ID: r.ID}, fmt.Errorf("decode request: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Request{ID: r.ID}, errors.New("decode request: more than one JSON value on the line")
	}
	if n := r.asked(); n != 1 {
		return Request{ID: r.ID}, fmt.Errorf("decode request: it asks for %d things, want exactly one", n)
	}
	if err := r.validate(); err != nil {
		return Request{ID: r.ID}, fmt.Errorf("decode request: %w", err)
	}
	return r, nil
}

// asked counts the things that a request asks for.
func (r *Request) asked() int {
	n := 0
	for _, set := range []bool{
		r.Hello != nil, r.Ping != nil, r.Survey != nil, r.Start != nil, r.Signal != nil,
		r.Limits != nil, r.Clock != nil, r.HostClock != nil, r.Running != nil, r.Disk != nil, r.Power != nil, r.KillAt != nil, r.Damage != nil,
		r.Aside != nil, r.Block != nil, r.Shape != nil, r.Probe != nil, r.Arrived != nil, r.Bye != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

func (r *Request) validate() error {
	switch {
	case r.ID == 0:
		return errors.New("id 0 is for notices; want 1 or more")
	case r.Hello != nil:
		return r.Hello.validate()
	case r.Start != nil:
		return r.Start.validate()
	case r.Signal != nil:
		return validateName("process", r.Signal.Process)
	case r.Limits != nil:
		return r.Limits.validate()
	case r.Clock != nil:
		return r.Clock.validate()
	case r.HostClock != nil:
		return r.HostClock.validate()
	case r.Running != nil:
		return validateName("process", r.Running.Process)
	case r.Disk != nil:
		return r.Disk.validate()
	case r.Power != nil:
		return r.Power.validate()
	case r.KillAt != nil:
		return r.KillAt.validate()
	case r.Damage != nil:
		return r.Damage.validate()
	case r.Aside != nil:
		return validateName("process", r.Aside.Process)
	case r.Block != nil && len(r.Block.Pairs) > pairsMost:
		return fmt.Errorf("block: %d pairs, want at most %d", len(r.Block.Pairs), pairsMost)
	case r.Shape != nil:
		return r.Shape.validate()
	}
	return nil
}

func (h *Hello) validate() error {
	if err := validateName("node", h.Node); err != nil {
		return err
	}
	if h.Lease < leaseMin || h.Lease > leaseMost {
		return fmt.Errorf("hello: lease %s, want %s to %s", h.Lease, leaseMin, leaseMost)
	}
	if len(h.Peers) > peersMost || len(h.Links) > peersMost {
		return fmt.Errorf("hello: %d peers and %d links, want at most %d", len(h.Peers), len(h.Links), peersMost)
	}
	for name := range h.Peers {
		if err := validateName("peer", name); err != nil {
			return err
		}
	}
	if _, taken := h.Peers[clusters.Client]; taken || h.Node == clusters.Client {
		return fmt.Errorf("hello: no node can be called %q: that is what the checker's clients are called", clusters.Client)
	}
	if len(h.ClientPorts) > portsMost {
		return fmt.Errorf("hello: %d client ports, want at most %d", len(h.ClientPorts), portsMost)
	}
	for _, port := range h.ClientPorts {
		if port < 1 || port > 65535 {
			return fmt.Errorf("hello: client port %d, want 1 to 65535", port)
		}
	}
	for _, l := range h.Links {
		if l.To != h.Node {
			return fmt.Errorf("hello: the link %s to %s is not for %s to serve", l.From, l.To, h.Node)
		}
	}
	return nil
}

func (s *Start) validate() error {
	if err := validateName("process", s.Process.Name); err != nil {
		return err
	}
	if len(s.Process.Argv) == 0 || s.Process.Argv[0] == "" {
		return fmt.Errorf("start %s: argv is empty", s.Process.Name)
	}
	if s.Process.Log == "" || s.Process.Dir == "" {
		return fmt.Errorf("start %s: log and dir must be given", s.Process.Name)
	}
	return nil
}

func (s *Shape) validate() error {
	if len(s.Pairs) > pairsMost {
		return fmt.Errorf("shape: %d pairs, want at most %d", len(s.Pairs), pairsMost)
	}
	seen := make(map[Pair]bool, len(s.Pairs))
	for _, pair := range s.Pairs {
		if seen[pair.Pair] {
			return fmt.Errorf("shape: %s to %s is given twice", pair.From, pair.To)
		}
		seen[pair.Pair] = true
		if err := pair.Shape.Validate(); err != nil {
			return fmt.Errorf("shape %s to %s: %w", pair.From, pair.To, err)
		}
	}
	return nil
}

func validateName(what, name string) error {
	if name == "" || len(name) > nameMost {
		return fmt.Errorf("%s name %q: want 1 to %d bytes", what, name, nameMost)
	}
	return nil
}
