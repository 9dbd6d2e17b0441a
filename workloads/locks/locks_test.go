package locks

import (
	"context"
	"errors"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
)

// service is a lock service and a store.
type service struct {
	token  int64
	holder map[string]int64 // lock to the token of its holder; 0: free
	values map[string]int64
	asked  int

	shares   bool // it gives locks that are held
	unfenced bool // it takes late writes
	repeats  bool // it gives the same tokens again
}

// client holds tokens of its own.
type client struct {
	*service
	tokens map[string]int64
}

func (c *client) Acquire(ctx context.Context, lock string) (histories.Reply, error) {
	c.asked++
	if held := c.holder[lock]; held != 0 && held != c.tokens[lock] && (!c.shares || c.asked < 100) {
		return histories.Reply{}, &histories.Refusal{}
	}
	return c.Steal(ctx, lock)
}

func (c *client) Steal(_ context.Context, lock string) (histories.Reply, error) {
	if !c.repeats || c.token < 20 {
		c.token++
	}
	c.holder[lock], c.tokens[lock] = c.token, c.token
	return histories.Reply{Revision: c.token}, nil
}

func (c *client) Release(_ context.Context, lock string) (histories.Reply, error) {
	if c.holder[lock] != c.tokens[lock] {
		return histories.Reply{}, histories.Definite(errors.New("not held"))
	}
	c.holder[lock] = 0
	return histories.Reply{}, nil
}

func (c *client) PutUnder(_ context.Context, lock, key string, value int64) (histories.Reply, error) {
	if c.holder[lock] != c.tokens[lock] && !c.unfenced {
		return histories.Reply{}, histories.Definite(errors.New("fenced"))
	}
	c.values[key] = value
	return histories.Reply{}, nil
}

func (c *client) Get(_ context.Context, key string) (histories.Reply, error) {
	if value, there := c.values[key]; there {
		return histories.Reply{Value: histories.Int(value)}, nil
	}
	return histories.Reply{}, nil
}

func judged(t *testing.T, s service) map[string]checkers.Result {
	t.Helper()
	w, err := New(Options{Patience: 3})
	if err != nil {
		t.Fatal(err)
	}
	s.holder, s.values = make(map[string]int64), make(map[string]int64)
	events := play.Run(t, w, 7, 600, func(int) any { return &client{service: &s, tokens: make(map[string]int64)} })
	play.Misuse(t, w, &client{service: &s, tokens: make(map[string]int64)})
	return play.Judge(t, w, events)
}

func TestARightLockIsValid(t *testing.T) {
	results := judged(t, service{})
	for name, r := range results {
		if r.Verdict != checkers.Valid {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
	if r := results["fencing"]; r.Findings.Counts["stolen"] == 0 || r.Findings.Counts["refusals"] == 0 {
		t.Errorf("nothing was stolen or refused: %s", r.Summary)
	}
}

// A service that gives a lock to two is found by what the two do to the register, though
// each of its answers looks right; one whose tokens mean nothing by the tokens.
func TestWrongLocksAreFound(t *testing.T) {
	if r := judged(t, service{shares: true, unfenced: true})["linearizability"]; r.Verdict != checkers.Invalid || !strings.Contains(r.Summary, "compare-and-swap") {
		t.Errorf("two holders: %s: %s", r.Verdict, r.Summary)
	}
	if r := judged(t, service{shares: true})["linearizability"]; r.Verdict != checkers.Valid {
		t.Errorf("two holders, of whom fencing keeps one out: %s: %s", r.Verdict, r.Summary)
	}
	if r := judged(t, service{unfenced: true})["linearizability"]; r.Verdict != checkers.Invalid {
		t.Errorf("a stolen lock without fencing: %s: %s", r.Verdict, r.Summary)
	}
	if r := judged(t, service{repeats: true})["fencing"]; r.Verdict != checkers.Invalid || !strings.Contains(r.Summary, "token 20 of") {
		t.Errorf("tokens that come again: %s: %s", r.Verdict, r.Summary)
	}
}
