package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"capsize/clusters"
)

const (
	requestsMost  = 64               // under way at a time; one more is refused
	repliesMost   = 256              // that wait to be written; at one more the controller is taken for gone
	firstLease    = 30 * time.Second // until Hello says better
	handlerLimit  = time.Second      // for requests under way to end once the agent leaves
	healLimit     = 4 * time.Second  // for undoing everything
	byeLimit      = 20 * time.Second // for the same where a controller waits for it
	farewellLimit = time.Second      // for the last replies to be written
	// leaveLimit is for an agent that has lost its controller: at its end its guardian takes over.
	leaveLimit = handlerLimit + healLimit + farewellLimit
)

// Serve speaks the protocol on in and out until the controller says Bye, its input ends,
// its lease expires, or ctx ends. Whichever it is, Serve first undoes everything that was
// done, and returns an error if that failed.
//
// Serve closes in and out where they can be closed. It does not wait for a read that
// cannot be interrupted: a blocked read of standard input ends with the program. Processes
// that are left running on purpose are waited for by goroutines that end with them.
//
// What the agent does that would outlive it if it were killed it first notes in the journal, for
// whoever guards it: see [Guard]. The journal may be nil.
func Serve(ctx context.Context, in io.Reader, out, notes io.Writer) error {
	a := &agent{
		journal: newJournal(notes),
		replies: make(chan Reply, repliesMost), gone: make(chan struct{}), slots: make(chan struct{}, requestsMost),
	}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	lines := make(chan []byte)
	go a.read(in, lines)
	written := make(chan struct{})
	go a.write(out, written)
	well, unwell := context.WithCancel(context.Background())
	var beats sync.WaitGroup
	beats.Go(func() { a.journal.beat(well) })
	defer beats.Wait()
	defer unwell()

	bye := a.loop(ctx, lines)
	if bye == nil {
		late := time.AfterFunc(leaveLimit, unwell)
		defer late.Stop()
	}
	idle, err := a.leave(bye)

	if idle {
		close(a.replies) // who is at work yet may reply to nobody
	}
	select {
	case <-written:
	case <-time.After(farewellLimit):
	}
	for _, end := range []any{in, out} {
		if closer, ok := end.(io.Closer); ok {
			_ = closer.Close() // the other side may have closed it before
		}
	}
	return err
}

// agent is the state of one session.
type agent struct {
	ctx     context.Context // ends when the agent begins to leave; bounds the handlers
	cancel  context.CancelCauseFunc
	replies chan Reply
	gone    chan struct{} // closed when the controller can no longer be told anything
	once    sync.Once     // closes gone
	work    sync.WaitGroup
	slots   chan struct{} // a token for each handler under way

	hello      *Hello // nil before
	supervisor *supervisor
	arrived    *arrivals
	listener   *listener
	partitions Ability
	clients    Ability
	limits     *limitTool
	clocks     *clockTool
	disks      *diskTool
	hostClock  *hostClockTool
	tools      []tool
	packets    *packetTool // one of tools
	journal    *journal

	mu        sync.Mutex // guards what is below: Blocks are carried out one at a time
	barrier   barrier
	lastBlock uint64
}

// read turns the input into lines, until it ends or a line is too long.
func (a *agent) read(in io.Reader, lines chan<- []byte) {
	defer close(lines)
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 64<<10), lineMost)
	for scanner.Scan() {
		select {
		case lines <- append([]byte(nil), scanner.Bytes()...):
		case <-a.ctx.Done():
			return
		}
	}
	if err := scanner.Err(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		log.Printf("read requests: %v", err)
	}
}

// write writes replies, one line each. It goes on draining after a failure, so that
// nobody waits for it.
func (a *agent) write(out io.Writer, written chan<- struct{}) {
	defer close(written)
	for reply := range a.replies {
		line, err := json.Marshal(reply)
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		if err != nil {
			a.lose()
		}
	}
}

// lose notes that the controller is gone.
func (a *agent) lose() { a.once.Do(func() { close(a.gone) }) }

// loop takes requests until there is a reason to leave. It returns the request that asked
// for it, or nil.
func (a *agent) loop(ctx context.Context, lines <-chan []byte) *Request {
	period := firstLease
	lease := time.NewTimer(period)
	defer lease.Stop()
	for {
		select {
		case <-ctx.Done():
			log.Printf("told to end: %v", context.Cause(ctx))
			return nil
		case <-a.gone:
			log.Print("the controller takes no replies any more")
			return nil
		case <-a.journal.guardianLost():
			log.Print("the guardian takes no notes any more")
			return nil
		case <-lease.C:
			log.Printf("nothing was heard of the controller for %s", period)
			return nil
		case line, more := <-lines:
			if !more {
				log.Print("the input has ended")
				return nil
			}
			request, err := DecodeRequest(line)
			if err != nil {
				a.reply(Reply{ID: request.ID, Error: err.Error()})
				break
			}
			if request.Bye != nil {
				return &request
			}
			a.take(request)
			if a.hello != nil {
				period = a.hello.Lease
			}
		}
		lease.Reset(period)
	}
}

// take answers at once what takes no time, and gives the rest to a handler.
func (a *agent) take(r Request) {
	switch {
	case r.Ping != nil:
		a.reply(Reply{ID: r.ID})
		return
	case r.Hello != nil:
		a.reply(a.greet(r))
		return
	case a.hello == nil:
		a.reply(Reply{ID: r.ID, Error: "the first request must be hello"})
		return
	}
	select {
	case a.slots <- struct{}{}:
		a.work.Go(func() {
			defer func() { <-a.slots }()
			a.reply(a.handle(r))
		})
	default:
		a.reply(Reply{ID: r.ID, Error: fmt.Sprintf("%d requests are under way already", requestsMost)})
	}
}

// reply queues a reply. It never blocks: a controller that takes no replies must not keep
// the agent from healing.
func (a *agent) reply(r Reply) {
	select {
	case a.replies <- r:
	default:
		a.lose()
	}
}

// greet answers Hello.
func (a *agent) greet(r Request) Reply {
	reply, err := a.begin(r.Hello)
	if err != nil {
		return Reply{ID: r.ID, Error: "hello: " + err.Error()}
	}
	return Reply{ID: r.ID, Hello: reply}
}

func (a *agent) begin(h *Hello) (*HelloReply, error) {
	if a.hello != nil {
		return nil, fmt.Errorf("this agent serves run %s already", a.hello.Run)
	}
	if h.Version != Version {
		return nil, fmt.Errorf("the controller speaks version %d of the protocol, this agent %d: install the agent of the same build", h.Version, Version)
	}
	arrived := newArrivals(h.Peers)
	barrier, mechanism, err := newBarrier(h, arrived)
	if err != nil {
		return nil, err
	}
	if self := h.Peers[h.Node]; len(h.Links) == 0 && self.Probe != "" {
		if a.listener, err = listenProbes(self.Probe, arrived); err != nil {
			return nil, errors.Join(err, barrier.close())
		}
	}
	a.hello, a.arrived, a.barrier = h, arrived, barrier
	a.partitions, a.clients = Ability{Name: Partitions, How: mechanism}, Ability{Name: Clients, How: mechanism}
	if why, none := strings.CutPrefix(mechanism, "none: "); none {
		a.partitions = Ability{Name: Partitions, Why: why}
	}
	if err := barrier.clients(); err != nil {
		a.clients = Ability{Name: Clients, Why: err.Error()}
	}
	a.tools = a.newTools()
	a.supervisor = newSupervisor(h.StopOnExpiry, func(e Exited) { a.notice(e) }, a.journal)
	return &HelloReply{Version: Version, Pid: os.Getpid(), Links: mechanism}, nil
}

// notice tells of a process that ended by itself. Once the agent leaves nobody listens.
func (a *agent) notice(e Exited) {
	log.Printf("%s (pid %d) ended by itself: %s", e.Process, e.Pid, e.Status)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() == nil {
		a.reply(Reply{Exited: &e})
	}
}

// handle carries out one request.
func (a *agent) handle(r Request) Reply {
	reply := Reply{ID: r.ID}
	var err error
	switch {
	case r.Start != nil:
		reply.Start, err = a.start(a.ctx, r.Start.Process)
	case r.Survey != nil:
		reply.Survey = a.survey(a.ctx)
	case r.Signal != nil:
		var signalled SignalReply
		signalled, err = a.limits.aroundSignal(*r.Signal, func() (SignalReply, error) { return a.supervisor.signal(a.ctx, *r.Signal) })
		if err == nil {
			reply.Signal = &signalled
		}
	case r.Limits != nil:
		reply.Limits, err = a.limits.set(*r.Limits)
	case r.Clock != nil:
		reply.Clock, err = a.clocks.set(*r.Clock)
	case r.HostClock != nil:
		reply.HostClock, err = a.hostClock.set(*r.HostClock)
	case r.Running != nil:
		reply.Running = &RunningReply{Pid: a.supervisor.pid(r.Running.Process)}
	case r.Disk != nil:
		reply.Disk, err = a.disks.set(a.ctx, *r.Disk)
	case r.Power != nil:
		err = a.supervisor.whileDown(a.ctx, r.Power.Process, func() (err error) {
			reply.Power, err = a.disks.powerFail(a.ctx, *r.Power)
			return err
		})
	case r.KillAt != nil:
		reply.KillAt, err = a.disks.killAt(a.ctx, *r.KillAt, func() (SignalReply, error) {
			return a.supervisor.signal(a.ctx, Signal{Process: r.KillAt.Process, Signal: "kill"})
		})
	case r.Damage != nil:
		reply.Damage, err = a.damage(a.ctx, *r.Damage)
	case r.Aside != nil:
		reply.Aside, err = a.aside(a.ctx, *r.Aside)
	case r.Block != nil:
		reply.Block, err = a.block(r.ID, r.Block.Pairs)
	case r.Shape != nil:
		reply.Shape, err = a.packets.shape(r.ID, r.Shape.Pairs)
	case r.Probe != nil:
		err = sendProbes(a.hello.Node, a.hello.Peers, r.Probe.Nonce)
		if r.Probe.Client != "" {
			err = errors.Join(err, a.answer(*r.Probe))
		}
	case r.Arrived != nil:
		reply.Arrived, err = a.arrivals(r.Arrived.Nonce)
	}
	if err != nil {
		reply.Error, reply.Gone = err.Error(), errors.Is(err, errGone)
	}
	return reply
}

// start runs a process, with what is in force for it.
func (a *agent) start(ctx context.Context, spec clusters.Process) (*StartReply, error) {
	if err := a.disks.starting(ctx, spec); err != nil {
		return nil, err
	}
	pid, err := a.supervisor.start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &StartReply{Pid: pid}, a.started(ctx, spec, pid)
}

// bared does something to the data of a process that is known not to run, beneath its layer.
func (a *agent) bared(ctx context.Context, process string, do func() error) error {
	return a.supervisor.whileDown(ctx, process, func() error { return a.disks.bared(ctx, process, do) })
}

func (a *agent) damage(ctx context.Context, r Damage) (*DamageReply, error) {
	reply := &DamageReply{}
	do := func() (err error) {
		reply.What, err = damage(a.hello.Dir, r)
		return err
	}
	if r.Kind == DamageKeep {
		return reply, do()
	}
	return reply, a.bared(ctx, r.Process, do)
}

// aside moves a directory while its process is known not to run.
func (a *agent) aside(ctx context.Context, r Aside) (*AsideReply, error) {
	var to string
	err := a.bared(ctx, r.Process, func() (err error) {
		to, err = moveAside(a.hello.Dir, r.Dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &AsideReply{To: to}, nil
}

func (a *agent) block(id uint64, pairs []Pair) (*BlockReply, error) {
	for _, pair := range pairs {
		for _, name := range []string{pair.From, pair.To} {
			if _, known := a.hello.Peers[name]; !known && name != clusters.Client {
				return nil, fmt.Errorf("block %s to %s: there is no node %q", pair.From, pair.To, name)
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id < a.lastBlock {
		return nil, fmt.Errorf("block: overtaken by request %d", a.lastBlock)
	}
	dropped, err := a.barrier.block(pairs)
	if err != nil {
		return nil, err
	}
	a.lastBlock = id
	return &BlockReply{Dropped: dropped}, nil
}

// answer sends a round of probes to clients.
func (a *agent) answer(p Probe) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.barrier.answer(p.Client, EncodeProbe(p.Nonce, a.hello.Node)); err != nil {
		return fmt.Errorf("probe from %s to clients at %s: %w", a.hello.Node, p.Client, err)
	}
	return nil
}

func (a *agent) arrivals(nonce uint64) (*ArrivedReply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	dropped, err := a.barrier.dropped()
	if err != nil {
		return nil, err
	}
	return &ArrivedReply{From: a.arrived.from(nonce), Dropped: dropped}, nil
}

// leave undoes everything and, where Bye asked for it, says how that went. It does not wait
// for a request that hangs, on a disk that does for one: the healing may be what ends that. Idle
// tells whether none is left.
func (a *agent) leave(bye *Request) (idle bool, err error) {
	a.cancel(errors.New("the agent is leaving"))
	over := make(chan struct{})
	go func() { // ends with the requests, or with the program
		defer close(over)
		a.work.Wait()
	}()
	select {
	case <-over:
	case <-time.After(handlerLimit):
		log.Printf("%d requests are under way yet: healing begins without waiting for them", len(a.slots))
	}
	err = a.heal(bye)
	if err != nil {
		log.Printf("healing failed: %v", err)
	}
	if bye != nil {
		reply := Reply{ID: bye.ID}
		if err != nil {
			reply.Error = "bye: " + err.Error()
		}
		a.reply(reply)
	}
	select {
	case <-over:
		return true, err
	case <-time.After(handlerLimit):
		return false, errors.Join(err, fmt.Errorf("%d requests hang", len(a.slots)))
	}
}

func (a *agent) heal(bye *Request) error {
	if a.hello == nil {
		return nil
	}
	end, limit := a.hello.StopOnExpiry, healLimit
	if bye != nil {
		end, limit = bye.Bye.Stop, byeLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	problems := []error{a.barrier.close()}
	for _, tool := range a.tools {
		problems = append(problems, tool.heal(ctx)) // before processes go on: they shall find a whole machine
	}
	problems = append(problems, a.supervisor.heal(ctx, end), a.disks.leave(ctx, end))
	if a.listener != nil {
		problems = append(problems, a.listener.close())
	}
	return errors.Join(problems...)
}
