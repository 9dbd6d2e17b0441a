// Package bank is the workload of transfers between accounts, each a transaction over two keys.
// What leaves one account arrives at another, so the sum of all balances never changes: a
// transaction of which half is lost, or seen by others before the other half, breaks it.
package bank

import (
	"context"
	"errors"
	"fmt"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/rolling"
)

// The operations. The key is a bank.
const (
	Transfer = "transfer" // takes [from, to, amount]; refused where from holds less
	Read     = "read"     // returns all balances
)

const (
	accounts = 5
	opening  = 100 // the balance of each account at first, when nothing is stored for it
	most     = 40  // the greatest amount
)

// Workload is the bank workload.
type Workload struct{ limits rolling.Limits }

var _ workloads.Workload = (*Workload)(nil)

// New returns the workload, or an error that names the limit that cannot be. The defaults are 3 banks,
// 120 operations and 4 transfers of unknown outcome.
func New(limits rolling.Limits) (*Workload, error) {
	limits = limits.Or(rolling.Limits{Keys: 3, Ops: 120, Unknown: 4})
	if err := limits.Validate("bank"); err != nil {
		return nil, err
	}
	return &Workload{limits}, nil
}

// Name is "bank".
func (w *Workload) Name() string { return "bank" }

// Store is what clients must be: stores of integers that look at several keys at one moment and
// change several at one moment.
type Store interface {
	// GetAll returns a [histories.Micro] "r" for each key, as they were at one moment.
	GetAll(ctx context.Context, keys []string) (histories.Reply, error)
	// SwapAll writes the second list of keys and values at one moment at which the keys of the
	// first have its values; a value of Nil stands for a key that was never written. A
	// [histories.Refusal] says that they had others.
	SwapAll(ctx context.Context, expected, written []histories.Micro) (histories.Reply, error)
}

// Fits says that a client must be a [Store].
func (w *Workload) Fits(client any) error {
	if _, ok := client.(Store); !ok {
		return fmt.Errorf("the bank workload needs transactions over several keys, which a %T does not have", client)
	}
	return nil
}

// Perform carries out one operation. A transfer looks, and swaps what it has seen; while
// others are faster it looks again. A swap of unknown outcome is never repeated.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	store, ok := client.(Store)
	if !ok {
		return histories.Reply{}, histories.Definite(w.Fits(client))
	}
	switch list, _ := op.Value.Ints(); {
	case op.F == Read:
		return read(ctx, store, op.Key)
	case op.F == Transfer && len(list) == 3:
		return transfer(ctx, store, op.Key, list[0], list[1], list[2])
	}
	return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the bank workload knows no such operation", op.F, op.Key, op.Value))
}

func account(bank string, number int64) string { return fmt.Sprintf("%s/%d", bank, number) }

func read(ctx context.Context, store Store, bank string) (histories.Reply, error) {
	var keys []string
	for number := range int64(accounts) {
		keys = append(keys, account(bank, number))
	}
	balances, _, err := look(ctx, store, keys)
	if err != nil {
		return histories.Reply{}, err
	}
	return histories.Reply{Value: histories.Ints(balances...)}, nil
}

// look returns balances, and what stands for them in the store.
func look(ctx context.Context, store Store, keys []string) (balances []int64, found []histories.Micro, err error) {
	reply, err := store.GetAll(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	found, ok := reply.Value.Micros()
	if !ok || len(found) != len(keys) {
		return nil, nil, fmt.Errorf("look at %d accounts: the answer is %s", len(keys), reply.Value)
	}
	for i := range found {
		balance, written := found[i].Value.Int()
		if !written {
			balance = opening
		}
		balances = append(balances, balance)
	}
	return balances, found, nil
}

func transfer(ctx context.Context, store Store, bank string, from, to, amount int64) (histories.Reply, error) {
	keys := []string{account(bank, from), account(bank, to)}
	for {
		balances, found, err := look(ctx, store, keys)
		if err != nil {
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was transferred, since the balances could not be read: %w", err))
		}
		if balances[0] < amount {
			return histories.Reply{}, &histories.Refusal{}
		}
		_, err = store.SwapAll(ctx, found, []histories.Micro{
			{F: "w", Key: keys[0], Value: histories.Int(balances[0] - amount)}, {F: "w", Key: keys[1], Value: histories.Int(balances[1] + amount)},
		})
		switch {
		case err == nil:
			return histories.Reply{}, nil
		case !errors.As(err, new(*histories.Refusal)):
			return histories.Reply{}, err
		case ctx.Err() != nil:
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was transferred, since others were always faster: %w", ctx.Err()))
		}
	}
}

// Checkers are linearizability of each bank, and the sum of each read.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	reads := func(op histories.Operation) bool { return op.F == Read || op.Refused }
	return []checkers.Checker{&linearizability.Checker{Model: Model(), Reads: reads, Limits: limits}, &sums{}}
}

// NewGenerator returns the generator of a run: as many reads as transfers.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	return &generator{dice: rolling.NewDice(seed, threads), keys: rolling.New("bank-", w.limits)}
}

type generator struct {
	dice rolling.Dice
	keys *rolling.Keys
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	random := g.dice[now.Thread]
	slot, reads := random.IntN(g.keys.Slots()), random.IntN(2) == 0
	from, hop, amount := random.Int64N(accounts), 1+random.Int64N(accounts-1), 1+random.Int64N(most)
	k := g.keys.At(slot)
	k.Use()
	if reads {
		return workloads.Perform(workloads.Op{F: Read, Key: k.Name})
	}
	return workloads.Perform(workloads.Op{F: Transfer, Key: k.Name, Value: histories.Ints(from, (from+hop)%accounts, amount)})
}

// Completed counts transfers of unknown outcome.
func (g *generator) Completed(op histories.Operation) { g.keys.Completed(op, Read) }

// Final returns reads of the banks in use and of those retired last.
func (g *generator) Final() []workloads.Op { return g.keys.Final(Read) }

// balances are the state of a bank.
type balances [accounts]int64

// Model is one bank. Inputs are [histories.Operation]; outputs are not looked at.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any {
			var b balances
			for i := range b {
				b[i] = opening
			}
			return b
		},
		Step: func(s, input, _ any) (bool, any) {
			return step(s.(balances), input.(histories.Operation))
		},
		Hash: func(s any) uint64 {
			var h uint64
			for _, balance := range s.(balances) {
				h = (h ^ uint64(balance)) * 0x9e3779b97f4a7c15 // 2^64 over the golden ratio: spreads small numbers
			}
			return h
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(histories.Operation)
			if op.F == Read {
				return "read → " + op.Output.String()
			}
			return op.F + " " + op.Input.String()
		},
		DescribeState: func(s any) string { return fmt.Sprint(s) },
	}
}

func step(b balances, op histories.Operation) (bool, balances) {
	list, _ := op.Input.Ints()
	switch {
	case op.F == Read && op.Type == histories.OK:
		got, _ := op.Output.Ints()
		return len(got) == accounts && balances(got) == b, b
	case op.F == Read:
		return true, b
	case op.F == Transfer && len(list) == 3:
		from, to, amount := list[0], list[1], list[2]
		if op.Refused || b[from] < amount {
			// It may be short only where it is not known to have happened.
			return op.Type != histories.OK && b[from] < amount, b
		}
		b[from] -= amount
		b[to] += amount
		return true, b
	}
	return false, b
}

// sums checks that no read shows money that came from nowhere, is gone, or is owed.
type sums struct{}

// Name is "bank-total".
func (*sums) Name() string { return "bank-total" }

// Check adds up each read.
func (*sums) Check(_ context.Context, run *checkers.Run) checkers.Result {
	const tested = "reads of balances"
	found := checkers.NewFindings(run, tested)
	for _, op := range histories.Operations(run.History) {
		if op.F != Read || op.Type != histories.OK {
			continue
		}
		found.Count(tested, 1)
		list, _ := op.Output.Ints()
		var sum, least int64
		for _, balance := range list {
			sum, least = sum+balance, min(least, balance)
		}
		switch {
		case len(list) != accounts:
			found.Add("unreadable read", []histories.Operation{op}, "a read of %s returned %s: want %d balances", op.Key, op.Output, accounts)
		case sum != accounts*opening:
			found.Add("wrong total", []histories.Operation{op}, "a read of %s on %s shows %d in all accounts together (%s), and there are %d: a transfer was done in part, or seen in part", op.Key, op.Node, sum, op.Output, accounts*opening)
		case least < 0:
			found.Add("overdrawn account", []histories.Operation{op}, "a read of %s on %s shows an account below 0 (%s), though a transfer of more than there is does nothing", op.Key, op.Node, op.Output)
		}
	}
	return found.Result()
}
