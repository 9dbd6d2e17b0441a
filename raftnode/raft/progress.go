package raft

// progress is what a leader knows of one node's log. It holds that match < next, and that
// match never goes back in a term.
type progress struct {
	state      progressState
	match      uint64 // the last index known to be durable there
	next       uint64 // the first index to send
	paused     bool   // probe: one message is on its way, wait for an answer or a heartbeat's
	window     int    // most messages on their way
	active     bool   // heard of since the last check of the quorum
	sentCommit uint64 // the commit index told last
	ends       []uint64
}

type progressState uint8

const (
	probe     progressState = iota // where the logs agree is not known: one message at a time
	replicate                      // entries are sent without waiting for answers
)

func (p *progress) becomeProbe() {
	p.state, p.next, p.paused, p.ends = probe, p.match+1, false, nil
}

func (p *progress) isPaused() bool {
	if p.state == probe {
		return p.paused
	}
	return len(p.ends) >= p.window
}

// sent notes that a message with n entries left.
func (p *progress) sent(n int) {
	if p.state == probe {
		p.paused = true
		return
	}
	if n > 0 {
		p.next += uint64(n)
		p.ends = append(p.ends, p.next-1)
	}
}

// acknowledge notes that everything up to index is durable there.
func (p *progress) acknowledge(index uint64) {
	p.match = max(p.match, index)
	p.next = max(p.next, index+1)
	if p.state == probe {
		p.state, p.next, p.paused, p.ends = replicate, p.match+1, false, nil
		return
	}
	for len(p.ends) > 0 && p.ends[0] <= index {
		p.ends = p.ends[1:]
	}
}

// decreaseTo notes that the append after rejected was refused, and goes back to hint. It
// reports false for an answer that is out of date.
func (p *progress) decreaseTo(rejected, hint uint64) bool {
	if p.state == replicate {
		if rejected <= p.match {
			return false
		}
		p.becomeProbe()
		return true
	}
	if p.next-1 != rejected {
		return false
	}
	p.next = max(min(rejected, hint+1), p.match+1)
	p.paused = false
	return true
}
