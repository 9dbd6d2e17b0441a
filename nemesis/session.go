package nemesis

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"capsize/nemesis/agent"
)

const (
	replyMost     = 1 << 20 // bytes of a reply
	requestsQueue = 64      // that wait to be written; a caller of one more waits
	requestLimit  = 5 * time.Second
)

// ErrEnded: a signal could not land since the process had ended by itself.
var ErrEnded = errors.New("the process has ended")

// session is the controller's side of one agent.
type session struct {
	node      string
	stream    io.ReadWriteCloser
	mechanism string // how the agent makes partitions, or "none: why"

	requests chan []byte
	done     chan struct{} // closed when the agent is lost or has left
	work     sync.WaitGroup

	mu      sync.Mutex // guards what is below
	lastID  uint64
	waiting map[uint64]chan agent.Reply
	err     error // why the session is over
	leaving bool  // it was asked to leave: its end is no loss
}

func newSession(node string, stream io.ReadWriteCloser) *session {
	return &session{
		node: node, stream: stream, requests: make(chan []byte, requestsQueue),
		done: make(chan struct{}), waiting: make(map[uint64]chan agent.Reply),
	}
}

// begin starts the session's goroutines, which end with it.
func (s *session) begin(exited func(agent.Exited), lost func(error)) {
	s.work.Go(func() { s.write(lost) })
	s.work.Go(func() { s.read(exited, lost) })
}

func (s *session) write(lost func(error)) {
	for {
		select {
		case line := <-s.requests:
			if _, err := s.stream.Write(line); err != nil {
				s.end(fmt.Errorf("write to it: %w", err), lost)
				return
			}
		case <-s.done:
			return
		}
	}
}

func (s *session) read(exited func(agent.Exited), lost func(error)) {
	scanner := bufio.NewScanner(s.stream)
	scanner.Buffer(make([]byte, 64<<10), replyMost)
	for scanner.Scan() {
		if err := s.dispatch(scanner.Bytes(), exited); err != nil {
			s.end(err, lost)
			return
		}
	}
	err := scanner.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	s.end(fmt.Errorf("read from it: %w", err), lost)
}

// dispatch gives a reply to who waits for it. A reply that nobody waits for any more is
// dropped.
func (s *session) dispatch(line []byte, exited func(agent.Exited)) error {
	var reply agent.Reply
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("it said %.100q, which is no reply: %w", line, err)
	}
	if reply.Exited != nil {
		exited(*reply.Exited)
		return nil
	}
	if reply.ID == 0 {
		return fmt.Errorf("it did not understand: %s", reply.Error)
	}
	s.mu.Lock()
	waiter := s.waiting[reply.ID]
	delete(s.waiting, reply.ID)
	s.mu.Unlock()
	if waiter != nil {
		waiter <- reply // it has room for one
	}
	return nil
}

// end ends the session, once. It is a loss unless the agent was asked to leave.
func (s *session) end(err error, lost func(error)) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	leaving := s.leaving
	close(s.done)
	s.mu.Unlock()
	if !leaving {
		lost(err)
	}
	_ = s.stream.Close() // wakes the other goroutines; it may wait for the agent, so it comes last
}

// ping keeps the lease, and notices an agent that does not answer.
func (s *session) ping(every, lease time.Duration, lost func(error)) {
	s.work.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-ticker.C:
			}
			ctx, cancel := context.WithTimeout(context.Background(), lease)
			_, err := s.call(ctx, agent.Request{Ping: &struct{}{}})
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				s.end(fmt.Errorf("it did not answer for %s", lease), lost)
			}
		}
	})
}

// call makes a request and waits for its reply.
func (s *session) call(ctx context.Context, r agent.Request) (agent.Reply, error) {
	reply, err := s.exchange(ctx, r)
	if err != nil {
		return reply, fmt.Errorf("agent on %s: %w", s.node, err)
	}
	switch {
	case reply.Gone:
		return reply, fmt.Errorf("%s: %s (%w)", s.node, reply.Error, ErrEnded)
	case reply.Error != "":
		return reply, fmt.Errorf("%s: %s", s.node, reply.Error)
	}
	return reply, nil
}

func (s *session) exchange(ctx context.Context, r agent.Request) (agent.Reply, error) {
	waiter := make(chan agent.Reply, 1)
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return agent.Reply{}, s.err
	}
	s.lastID++
	r.ID = s.lastID
	s.waiting[r.ID] = waiter
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, r.ID)
		s.mu.Unlock()
	}()
	line, err := json.Marshal(r)
	if err != nil {
		return agent.Reply{}, err
	}
	select {
	case s.requests <- append(line, '\n'):
	case <-s.done:
		return agent.Reply{}, s.failure()
	case <-ctx.Done():
		return agent.Reply{}, fmt.Errorf("no answer: %w", ctx.Err())
	}
	select {
	case reply := <-waiter:
		return reply, nil
	case <-ctx.Done():
		return agent.Reply{}, fmt.Errorf("no answer: %w", ctx.Err())
	case <-s.done:
		select {
		case reply := <-waiter: // the last thing that it said
			return reply, nil
		default:
			return agent.Reply{}, s.failure()
		}
	}
}

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// bye asks the agent to heal everything, stop its processes and leave, and waits until it
// has.
func (s *session) bye(ctx context.Context) error {
	s.mu.Lock()
	over := s.err != nil
	s.leaving = true
	s.mu.Unlock()
	if over {
		return nil // its loss was reported
	}
	_, err := s.call(ctx, agent.Request{Bye: &agent.Bye{Stop: true}})
	if err == nil {
		select {
		case <-s.done:
		case <-ctx.Done():
			err = fmt.Errorf("agent on %s: it does not leave: %w", s.node, ctx.Err())
		}
	}
	return err
}

// abandon ends the session from this side: the agent sees the end of its input, and heals.
// It returns when nothing of the session is left, or ctx ends.
func (s *session) abandon(ctx context.Context) error {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.end(errors.New("the session was closed"), nil)
		s.work.Wait()
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agent on %s: its session does not end: %w", s.node, ctx.Err())
	}
}
