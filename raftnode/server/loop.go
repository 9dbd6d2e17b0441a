package server

import (
	"context"
	"errors"
	"time"

	"capsize/raftnode/disk"
	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
)

// request is a client's request on its way to the loop.
type request struct {
	replica.Request
	reply chan<- replica.Reply // has room for the one reply
}

// Bounds on what the loop takes in before it carries out what comes of it.
const (
	mostInputsAtOnce  = 512
	mostOutputsAtOnce = 16
)

// loop drives the replica until ctx ends or something fails.
func (s *Server) loop(ctx context.Context) error {
	ticker := time.NewTicker(s.config.Tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		if err := s.carryOut(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.inbox:
			s.replica.Receive(m)
		case q := <-s.requests:
			s.take(q)
		case call := <-s.calls:
			call()
		case <-s.writer.wake:
		case <-ticker.C:
			var ticks int
			ticks, last = ticksSince(last, time.Now(), s.config.Tick)
			for range ticks {
				s.replica.Tick()
			}
		}
		s.takeMore()
		if err := s.writer.Err(); err != nil {
			return err
		}
		s.finishWrites()
	}
}

// finishWrites tells the replica which writes are durable by now.
func (s *Server) finishWrites() {
	for done := s.writer.done.Load(); s.persisted < done; {
		s.persisted++
		s.replica.Persisted(s.persisted)
	}
}

// ticksSince returns how many ticks to make now, and from when to count the next ones.
func ticksSince(last, now time.Time, tick time.Duration) (ticks int, from time.Time) {
	passed := now.Sub(last) / tick
	if passed > mostTicksAtOnce {
		return mostTicksAtOnce, now // the process was paused: that time is lost
	}
	return int(passed), last.Add(passed * tick)
}

// takeMore takes what else has arrived, so that it shares a disk write, a packet and a
// trace write.
func (s *Server) takeMore() {
	for range mostInputsAtOnce {
		select {
		case m := <-s.inbox:
			s.replica.Receive(m)
		case q := <-s.requests:
			s.take(q)
		default:
			return
		}
	}
}

func (s *Server) take(q request) {
	s.lastID++
	q.ID = s.lastID
	s.waiting[q.ID] = q.reply
	s.replica.Request(q.Request)
}

// call runs f in the loop, where the replica may be used, and waits for it.
func (s *Server) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(done) }:
	case <-s.stopped:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-s.stopped:
		return errStopping
	}
}

var errStopping = errors.New("the node is stopping")

// carryOut does what the replica wants done.
func (s *Server) carryOut() error {
	for s.replica.HasOutput() {
		out := s.replica.Output()
		for i := 1; i < mostOutputsAtOnce && s.replica.HasOutput(); i++ {
			join(&out, s.replica.Output())
		}
		if s.replica.Err() != nil {
			break // nothing that rests on a wrong state may leave
		}
		if out.Members != nil {
			s.meet(out.Members) // the trace names them
		}
		if s.trace != nil {
			if err := s.trace.Write(out.Events); err != nil {
				return err
			}
		}
		s.writer.Add(out.Writes)
		s.finishWrites()
		for _, m := range out.Messages {
			s.transport.Send(m.To, raft.EncodeMessage(make([]byte, 0, encodedSize(m)), m))
		}
		for _, m := range out.Sends {
			s.sendSnapshot(m)
		}
		if out.Take != nil {
			s.saveSnapshot(out.Take)
		}
		if out.Compact > 0 {
			s.writer.Do(func(d *disk.Disk) error { return d.Compact(out.Compact) })
		}
		for _, reply := range out.Replies {
			s.waiting[reply.ID] <- reply
			delete(s.waiting, reply.ID)
		}
	}
	s.publish()
	return s.replica.Err()
}

// join adds what comes next.
func join(out *replica.Output, more replica.Output) {
	out.Events = append(out.Events, more.Events...)
	out.Writes = append(out.Writes, more.Writes...)
	out.Messages = append(out.Messages, more.Messages...)
	out.Sends = append(out.Sends, more.Sends...)
	out.Replies = append(out.Replies, more.Replies...)
	out.Compact = max(out.Compact, more.Compact)
	if more.Members != nil {
		out.Members = more.Members
	}
	if more.Take != nil {
		out.Take = more.Take
	}
}

// meet makes members known, and lets go of those that were removed.
func (s *Server) meet(members *replica.Members) {
	present := map[uint64]bool{}
	for _, m := range members.List {
		present[m.ID] = true
		s.book.note(m)
		if s.trace != nil {
			s.trace.Name(m.ID, identity(m.ID, m.Name))
		}
		if m.ID != s.id {
			s.transport.AddPeer(m.ID, s.book.address(m))
		}
	}
	for id := range s.book.all() {
		if id <= members.Last && !present[id] && id != s.id {
			s.transport.RemovePeer(id)
		}
	}
	if s.id <= members.Last && !present[s.id] && !s.removed {
		s.removed = true
		s.config.Logf("this node was removed from the cluster: it can be stopped, and its data deleted")
	}
}

// encodedSize is about how many bytes a message takes on the wire.
func encodedSize(m raft.Message) int {
	size := 64 + len(m.Context)
	for _, e := range m.Entries {
		size += len(e.Data) + 32
	}
	return size
}

func (s *Server) publish() {
	status := s.replica.Status()
	before := s.status.Swap(&status)
	if before == nil {
		return
	}
	if before.Leader != status.Leader {
		s.metrics.leaders.Inc()
	}
	if before.Applied != status.Applied && s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}
