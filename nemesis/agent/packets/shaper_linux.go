package packets

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Shaper shapes what this host, or this network namespace, receives. Its methods may be
// called from several goroutines.
type Shaper struct {
	protected netip.Addr
	seed      uint64
	queue     *queue
	rules     *rules
	raw4      int // where copies are sent
	raw6      int
	began     time.Time
	work      sync.WaitGroup // the receiver and the releaser
	wake      chan struct{}  // of one: the releaser shall look again
	done      chan struct{}  // closed by Close
	once      sync.Once
	setting   sync.Mutex // Sets are carried out one at a time

	mu    sync.Mutex // guards what is below
	lanes map[netip.Addr]*lane
	past  map[netip.Addr]Count // of sources that are not shaped any more
	held  holds                // at most heldMost: the kernel holds no more
	order uint64
}

// Open prepares to shape, and touches no packet yet. The name is that of a table of nftables,
// unique in the network namespace. What comes from the protected address cannot be shaped; the
// zero address protects none. It fails where the kernel cannot queue packets or this process
// may not ask for it.
func Open(name string, protected netip.Addr, seed uint64) (*Shaper, error) {
	s := &Shaper{
		protected: protected.Unmap(), seed: seed, began: time.Now(), raw4: -1, raw6: -1,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		lanes: make(map[netip.Addr]*lane), past: make(map[netip.Addr]Count),
	}
	if err := s.open(name); err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w (it takes root or CAP_NET_ADMIN and CAP_NET_RAW)", err)
		}
		return nil, errors.Join(fmt.Errorf("shape packets: %w", err), s.release())
	}
	s.work.Go(s.receive)
	s.work.Go(s.releaser)
	return s, nil
}

func (s *Shaper) open(name string) (err error) {
	if s.queue, err = openQueue(); err != nil {
		return err
	}
	if s.raw4, err = openRaw(unix.AF_INET); err != nil {
		return err
	}
	s.raw6, err = openRaw(unix.AF_INET6)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 has nothing to copy
		return err
	}
	s.rules, err = newRules(name, s.queue.number)
	return err
}

// openRaw opens a socket that sends whole packets, marked so that they are not queued again.
func openRaw(domain int) (int, error) {
	socket, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("open a raw socket: %w", err)
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_MARK, queueMark); err != nil {
		return -1, errors.Join(fmt.Errorf("mark a raw socket: %w", err), unix.Close(socket))
	}
	return socket, nil
}

// How says in words by what means packets are shaped.
func (s *Shaper) How() string { return s.rules.how + ", verdicts by the agent" }

// Set shapes what comes from these sources and nothing else, replacing what was before. What
// is held then for a source that is not among them, or whose shape changes, is let go at once.
func (s *Shaper) Set(shapes map[netip.Addr]Shape) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	wanted := make(map[netip.Addr]Shape, len(shapes))
	var sources []netip.Addr
	for source, shape := range shapes {
		source = source.Unmap()
		if source == s.protected {
			return fmt.Errorf("shape what comes from %s: the controller's session comes from there too", source)
		}
		if err := shape.Validate(); err != nil {
			return fmt.Errorf("shape what comes from %s: %w", source, err)
		}
		wanted[source] = shape
		sources = append(sources, source)
	}
	// Lanes come before the rules, so that what is queued has one.
	s.mu.Lock()
	for source, shape := range wanted {
		if l := s.lanes[source]; l != nil {
			if l.shape != shape {
				// What follows must not wait behind what an earlier shape held.
				l.shape, l.last, l.free = shape, 0, 0
				s.letGo(func(h hold) bool { return h.source == source })
			}
			continue
		}
		address := source.As16()
		first, second := binary.BigEndian.Uint64(address[:8]), binary.BigEndian.Uint64(address[8:])
		s.lanes[source] = &lane{shape: shape, count: s.past[source], random: rand.New(rand.NewPCG(s.seed^first, second))}
	}
	s.mu.Unlock()
	if err := s.rules.put(sources); err != nil {
		return fmt.Errorf("shape what comes from %d sources: %w", len(sources), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for source, l := range s.lanes {
		if _, stays := wanted[source]; !stays {
			s.past[source] = l.count
			delete(s.lanes, source)
		}
	}
	s.letGo(func(h hold) bool { return s.lanes[h.source] == nil })
	return nil
}

// letGo makes it the time of what is held and meant, in its order. The caller holds mu.
func (s *Shaper) letGo(meant func(hold) bool) {
	for i := range s.held {
		if meant(s.held[i]) {
			s.held[i].at = 0
		}
	}
	heap.Init(&s.held)
	s.nudge()
}

// Counts returns what was done to each source that was ever shaped.
func (s *Shaper) Counts() map[netip.Addr]Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[netip.Addr]Count)
	for source, count := range s.past {
		counts[source] = count
	}
	for source, l := range s.lanes {
		counts[source] = l.count
	}
	return counts
}

// Close lets everything go that is held, takes the rules away and waits until nothing of the
// shaper is left.
func (s *Shaper) Close() error {
	var err error
	s.once.Do(func() {
		err = s.Set(nil)
		close(s.done)
		s.work.Wait()
		err = errors.Join(err, s.release())
	})
	return err
}

func (s *Shaper) release() error {
	var problems []error
	if s.rules != nil {
		problems = append(problems, s.rules.close())
	}
	if s.queue != nil {
		problems = append(problems, s.queue.file.Close())
	}
	for _, socket := range []int{s.raw4, s.raw6} {
		if socket >= 0 {
			problems = append(problems, unix.Close(socket))
		}
	}
	return errors.Join(problems...)
}

// receive takes packets from the kernel until the shaper is closed.
func (s *Shaper) receive() {
	buffer := make([]byte, messageMost)
	for {
		n, err := s.queue.file.Read(buffer)
		if errors.Is(err, unix.ENOBUFS) {
			continue // the kernel dropped what did not fit, as a full queue does
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) { // the releaser's way to end this
				log.Printf("read queued packets: %v; what comes is no longer shaped", err)
			}
			return
		}
		packets, err := parse(buffer[:n])
		for _, p := range packets {
			s.take(p)
		}
		// ENOENT answers a verdict on a packet that the kernel let go by itself.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			log.Printf("read queued packets: %v", err)
		}
	}
}

// take decides about a packet, and carries out what needs no waiting.
func (s *Shaper) take(p packet) {
	source := sourceOf(p.payload)
	s.mu.Lock()
	l := s.lanes[source]
	if l == nil { // healed while it was on its way here
		s.mu.Unlock()
		s.pass(p.id, verdictAccept, nil)
		return
	}
	now := time.Since(s.began)
	f := l.decide(now, len(p.payload))
	var changed []byte
	if f.corrupt {
		if copied := bytes.Clone(p.payload); flip(copied, l.random) {
			changed = copied
		} else {
			l.count.Corrupted--
		}
	}
	if f.duplicate && !f.lost && s.duplicate(p.payload) {
		l.count.Duplicated++
	}
	if f.wait > 0 {
		s.order++
		heap.Push(&s.held, hold{at: now + f.wait, order: s.order, source: source, id: p.id, payload: changed})
		if s.held[0].id == p.id {
			s.nudge()
		}
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if f.lost {
		s.pass(p.id, verdictDrop, nil)
		return
	}
	s.pass(p.id, verdictAccept, changed)
}

func sourceOf(payload []byte) netip.Addr {
	switch ipHeader(payload) {
	case 0:
		return netip.Addr{}
	case 40:
		if payload[0]>>4 == 6 {
			return netip.AddrFrom16([16]byte(payload[8:24])).Unmap()
		}
	}
	return netip.AddrFrom4([4]byte(payload[12:16]))
}

// duplicate sends a copy to this host itself. It arrives at once, ahead of an original that is
// held.
func (s *Shaper) duplicate(payload []byte) bool {
	if payload[0]>>4 == 4 {
		return unix.Sendto(s.raw4, payload, 0, &unix.SockaddrInet4{Addr: [4]byte(payload[16:20])}) == nil
	}
	return s.raw6 >= 0 && unix.Sendto(s.raw6, payload, 0, &unix.SockaddrInet6{Addr: [16]byte(payload[24:40])}) == nil
}

func (s *Shaper) pass(id, verdict uint32, payload []byte) {
	if err := s.queue.answer(id, verdict, payload); err != nil {
		log.Printf("answer for a queued packet: %v", err)
	}
}

// nudge makes the releaser look again. The caller holds mu.
func (s *Shaper) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// releaser lets packets go when their time has come.
func (s *Shaper) releaser() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.releaseDue(false))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.done:
			s.releaseDue(true)
			if err := s.queue.file.SetReadDeadline(time.Unix(1, 0)); err != nil {
				log.Printf("end the reading of queued packets: %v", err)
			}
			return
		}
	}
}

// releaseDue lets go whose time has come, or everything, and returns how long the next waits.
func (s *Shaper) releaseDue(everything bool) time.Duration {
	for {
		s.mu.Lock()
		if len(s.held) == 0 {
			s.mu.Unlock()
			return time.Hour
		}
		if wait := s.held[0].at - time.Since(s.began); wait > 0 && !everything {
			s.mu.Unlock()
			return wait
		}
		first := heap.Pop(&s.held).(hold)
		s.mu.Unlock()
		s.pass(first.id, verdictAccept, first.payload)
	}
}

// hold is a packet that waits.
type hold struct {
	at      time.Duration // since the shaper began
	order   uint64
	source  netip.Addr
	id      uint32
	payload []byte // where it was changed
}

// holds is a heap, the first to go first.
type holds []hold

func (h holds) Len() int      { return len(h) }
func (h holds) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h holds) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].order < h[j].order
}
func (h *holds) Push(x any) { *h = append(*h, x.(hold)) }
func (h *holds) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
