// Package locks is the workload of locks with fencing tokens. Clients take a lock, read a
// register that it protects, write it, and let go; a client that waits long steals the lock,
// as one would whose holder is gone.
//
// Whether two held a lock at once is not taken from what the lock service says, but from what
// it is for: each write under a lock is recorded as a compare-and-swap from what its holder had
// read, though the store is not asked to compare anything. If two held the lock at once both swap
// from the same value, and the register is not linearizable. An old holder's late write is to be
// refused because of its token.
package locks

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/register"
	"capsize/workloads/rolling"
)

// The operations. The key of the first three is a lock, that of the others the register which
// it protects.
const (
	Acquire = "acquire" // refused where another holds the lock; the revision is the fencing token
	Steal   = "steal"   // acquires it from whoever holds it
	Release = "release"
	Read    = register.Read
	Write   = register.Write // under the lock, where nothing was read before
	CAS     = register.CAS   // under the lock: [what was read, what is written]
)

// Options shape the workload. What is zero gets the default.
type Options struct {
	Locks int // default 3
	// Patience is after how many refusals in a row a client steals; default 40.
	Patience int
}

// Workload is the lock workload.
type Workload struct{ options Options }

var _ workloads.Workload = (*Workload)(nil)

// New returns the workload, or an error that names the option that cannot be.
func New(o Options) (*Workload, error) {
	if o.Locks == 0 {
		o.Locks = 3
	}
	if o.Patience == 0 {
		o.Patience = 40
	}
	if o.Locks < 1 || o.Patience < 1 {
		return nil, fmt.Errorf("lock workload: %d locks, stolen after %d refusals: want at least 1 of each", o.Locks, o.Patience)
	}
	return &Workload{o}, nil
}

// Name is "lock".
func (w *Workload) Name() string { return "lock" }

// Locks is what clients must be. A client remembers the tokens of the locks that it holds.
type Locks interface {
	// Acquire takes a lock. A [histories.Refusal] says that another client holds it.
	Acquire(ctx context.Context, lock string) (histories.Reply, error)
	// Steal takes a lock whoever holds it.
	Steal(ctx context.Context, lock string) (histories.Reply, error)
	// Release lets go of a lock that the client took last with Acquire or Steal.
	Release(ctx context.Context, lock string) (histories.Reply, error)
	// PutUnder writes a key if the token with which the client took the lock is still the
	// newest one.
	PutUnder(ctx context.Context, lock, key string, value int64) (histories.Reply, error)
	Get(ctx context.Context, key string) (histories.Reply, error)
}

// Fits says that a client must be [Locks].
func (w *Workload) Fits(client any) error {
	if _, ok := client.(Locks); !ok {
		return fmt.Errorf("the lock workload needs locks with fencing tokens, which a %T does not have", client)
	}
	return nil
}

const (
	lockPrefix     = "lock-"
	registerPrefix = "locked-"
)

// lockOf returns the lock that protects a register.
func lockOf(register string) string { return lockPrefix + strings.TrimPrefix(register, registerPrefix) }

func protected(key string) bool { return strings.HasPrefix(key, registerPrefix) }

// Perform carries out one operation, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	locks, ok := client.(Locks)
	if !ok {
		return histories.Reply{}, histories.Definite(w.Fits(client))
	}
	single, isSingle := op.Value.Int()
	pair, _ := op.Value.Ints()
	switch {
	case op.F == Acquire:
		return locks.Acquire(ctx, op.Key)
	case op.F == Steal:
		return locks.Steal(ctx, op.Key)
	case op.F == Release:
		return locks.Release(ctx, op.Key)
	case op.F == Read:
		return locks.Get(ctx, op.Key)
	case op.F == Write && isSingle:
		return locks.PutUnder(ctx, lockOf(op.Key), op.Key, single)
	case op.F == CAS && len(pair) == 2:
		return locks.PutUnder(ctx, lockOf(op.Key), op.Key, pair[1])
	}
	return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the lock workload knows no such operation", op.F, op.Key, op.Value))
}

// Checkers are linearizability of the registers, and that tokens only ever rise.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	return []checkers.Checker{
		&linearizability.Checker{Model: Model(), Object: linearizability.Register, Keys: protected, Limits: limits},
		&fencing{},
	}
}

// Model is one of the registers.
func Model() porcupine.Model { return (&register.Workload{}).Model() }

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	return &generator{options: w.options, dice: rolling.NewDice(seed, threads), stands: make(map[int]*stand), doing: make(map[int]int), last: make([]int64, w.options.Locks)}
}

type generator struct {
	options Options
	dice    rolling.Dice
	stands  map[int]*stand // by thread
	doing   map[int]int    // process to thread
	last    []int64        // the newest value of each register
}

// stand is where a thread is: which lock it is about, and what it does next with it.
type stand struct {
	lock    int
	next    string
	seen    histories.Value
	refused int
	until   time.Duration // it does not ask for the lock again before
}

// between is how long a client waits before it asks again for a lock that it did not get.
const between = 5 * time.Millisecond

// Next returns the next step of the thread's way: acquire, read, write, release.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	s := g.stands[now.Thread]
	if s == nil {
		s = &stand{lock: g.dice[now.Thread].IntN(g.options.Locks), next: Acquire}
		g.stands[now.Thread] = s
	}
	if s.until > now.Now {
		return workloads.Sleep(s.until)
	}
	g.doing[now.Process] = now.Thread
	s.until = now.Now + between
	op := workloads.Op{F: s.next, Key: fmt.Sprint(lockPrefix, s.lock)}
	if s.next == Read || s.next == Write {
		op.Key = fmt.Sprint(registerPrefix, s.lock)
		s.until = 0
	}
	if s.next == Write {
		g.last[s.lock]++
		op.Value = histories.Int(g.last[s.lock])
		if seen, known := s.seen.Int(); known {
			op.F, op.Value = CAS, histories.Ints(seen, g.last[s.lock])
		}
	}
	return workloads.Perform(op)
}

// Completed moves the thread on. Whatever goes wrong makes it begin anew with another lock; what
// it holds is stolen from it, as from a client that is gone.
func (g *generator) Completed(op histories.Operation) {
	thread, ours := g.doing[op.Process]
	if !ours {
		return
	}
	delete(g.doing, op.Process)
	s := g.stands[thread]
	switch {
	case op.Type == histories.OK && (op.F == Acquire || op.F == Steal):
		s.next, s.until, s.refused = Read, 0, 0
	case op.Type == histories.OK && op.F == Read:
		s.next, s.seen = Write, op.Output
	case op.Type == histories.OK && (op.F == Write || op.F == CAS):
		s.next = Release
	case op.F == Acquire && op.Refused:
		if s.refused++; s.refused >= g.options.Patience {
			s.next = Steal
		}
	default:
		delete(g.stands, thread)
	}
}

// Final returns reads of the registers.
func (g *generator) Final() []workloads.Op {
	var ops []workloads.Op
	for lock := range g.options.Locks {
		ops = append(ops, workloads.Op{F: Read, Key: fmt.Sprint(registerPrefix, lock), Final: true})
	}
	return ops
}
