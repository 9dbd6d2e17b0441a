package kv

import (
	"errors"
	"fmt"
	"math/bits"
)

// Op is what a command does.
type Op uint8

const (
	// Put sets a key.
	Put Op = 1
	// CompareAndSwap sets a key that is as expected.
	CompareAndSwap Op = 2
	// Get reads a key through the log.
	Get Op = 3
	// Append adds bytes to the end of a key's value. An absent key counts as empty.
	Append Op = 4
	// Delete removes a key.
	Delete Op = 5
	// DeleteRange removes the keys from Key up to, not including, End.
	DeleteRange Op = 6
	// Range reads the keys from Key up to, not including, End through the log.
	Range Op = 7
	// Txn compares any number of keys, then does one of two lists of actions as one step.
	Txn Op = 8
	// Acquire takes the lock Key for Owner if no other owner holds it. Who holds it
	// already gets its token again.
	Acquire Op = 9
	// Steal takes the lock Key for Owner whoever holds it, with a new token.
	Steal Op = 10
	// Release gives up the lock Key that Owner holds under Token.
	Release Op = 11
)

// Bounds on what a client sends.
const (
	MaxKeyBytes     = 512 // of a key, a lock's name or its owner
	MaxValueBytes   = 64 << 10
	MaxSessionBytes = 64
	MaxCommandBytes = 1 << 20 // of a whole command, encoded
	MaxCompares     = 128     // of a transaction
	MaxActions      = 128     // of each branch of a transaction
	MaxRange        = 4096    // entries of one range
)

// Command is one request to the store. Session and Sequence make it apply once however
// often it is proposed; with an empty Session each proposal applies. A value is a string
// because it never changes once it is stored; it holds any bytes.
//
// A field that the operation has no use for must be zero: a client that sets it
// believes that it means something.
type Command struct {
	Op       Op
	Key      string      // or the name of a lock, or where a range begins
	End      string      // where a range ends; empty for the end of all keys
	Value    string      // Put, CompareAndSwap, Append
	Limit    int         // Range: at most so many entries; 0 for MaxRange
	Expected Expectation // CompareAndSwap
	Owner    string      // Acquire, Steal, Release
	Token    uint64      // Release
	Fence    Fence       // refuses the command unless the lock is held under the token
	Compares []Compare   // Txn: if all hold, Then is done, otherwise Else
	Then     []Action
	Else     []Action
	Session  string
	Sequence uint64
}

// Fence names the lock that must be held, under this very token, for a command to apply.
// The zero fence asks for nothing.
type Fence struct {
	Lock  string
	Token uint64
}

// Action is one step of a transaction: Put, Append, Delete, Get or Range, with the
// fields of a Command.
type Action struct {
	Op    Op
	Key   string
	End   string
	Value string
	Limit int
}

// Compare is a condition of a transaction.
type Compare struct {
	Key string
	Expectation
}

// Expectation is what a key must be. Make it with Absent, Present, ValueIs, VersionIs or
// ModRevisionIs.
type Expectation struct {
	Kind   Kind
	Value  string // KindValue
	Number uint64 // KindVersion, KindModRevision
}

// Kind is which property of a key an Expectation looks at.
type Kind uint8

const (
	KindAbsent Kind = iota + 1
	KindPresent
	KindValue
	KindVersion
	KindModRevision
)

// Absent expects the key to hold nothing.
func Absent() Expectation { return Expectation{Kind: KindAbsent} }

// Present expects the key to hold something.
func Present() Expectation { return Expectation{Kind: KindPresent} }

// ValueIs expects the key to hold this value. An absent key holds none, not the empty one.
func ValueIs(value string) Expectation { return Expectation{Kind: KindValue, Value: value} }

// VersionIs expects this many writes since the key was created; 0 for an absent key.
func VersionIs(version uint64) Expectation { return Expectation{Kind: KindVersion, Number: version} }

// ModRevisionIs expects the last write of the key at this revision; 0 for an absent key.
func ModRevisionIs(revision uint64) Expectation {
	return Expectation{Kind: KindModRevision, Number: revision}
}

// fields is a set of the fields of a command. The codec writes it, so the bits stay.
type fields uint64

const (
	hasKey fields = 1 << iota
	hasEnd
	hasValue
	hasLimit
	hasExpected
	hasOwner
	hasToken
	hasFence
	hasCompares
	hasThen
	hasElse
	hasSession
	hasSequence
)

var fieldNames = [...]string{"key", "end", "value", "limit", "expectation", "owner", "token", "fence",
	"compares", "then", "else", "session", "sequence"}

func (f fields) String() string {
	if f == 0 {
		return "nothing"
	}
	return fieldNames[bits.TrailingZeros64(uint64(f))]
}

// shape says which fields an operation needs and which it can have besides.
type shape struct {
	name   string
	needs  fields
	allows fields
	action bool // it may be a step of a transaction
}

const anyCommand = hasSession | hasSequence

var shapes = [...]shape{
	Put:            {"put", hasKey, hasValue | hasFence, true},
	CompareAndSwap: {"compare-and-swap", hasKey | hasExpected, hasValue | hasFence, false},
	Get:            {"get", hasKey, hasFence, true},
	Append:         {"append", hasKey, hasValue | hasFence, true},
	Delete:         {"delete", hasKey, hasFence, true},
	DeleteRange:    {"delete-range", 0, hasKey | hasEnd | hasFence, false},
	Range:          {"range", 0, hasKey | hasEnd | hasLimit | hasFence, true},
	Txn:            {"transaction", 0, hasCompares | hasThen | hasElse | hasFence, false},
	Acquire:        {"acquire", hasKey | hasOwner, 0, false},
	Steal:          {"steal", hasKey | hasOwner, 0, false},
	Release:        {"release", hasKey | hasOwner | hasToken, 0, false},
}

// String names the operation.
func (o Op) String() string {
	if int(o) < len(shapes) && shapes[o].name != "" {
		return shapes[o].name
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

func (f *fields) when(present bool, field fields) {
	if present {
		*f |= field
	}
}

func (c *Command) fields() (f fields) {
	step := c.action()
	f = step.fields()
	f.when(c.Expected != Expectation{}, hasExpected)
	f.when(c.Owner != "", hasOwner)
	f.when(c.Token != 0, hasToken)
	f.when(c.Fence != Fence{}, hasFence)
	f.when(len(c.Compares) != 0, hasCompares)
	f.when(len(c.Then) != 0, hasThen)
	f.when(len(c.Else) != 0, hasElse)
	f.when(c.Session != "", hasSession)
	f.when(c.Sequence != 0, hasSequence)
	return f
}

func (a *Action) fields() (f fields) {
	f.when(a.Key != "", hasKey)
	f.when(a.End != "", hasEnd)
	f.when(a.Value != "", hasValue)
	f.when(a.Limit != 0, hasLimit)
	return f
}

// action returns the part of a command that a step of a transaction has too.
func (c *Command) action() Action {
	return Action{Op: c.Op, Key: c.Key, End: c.End, Value: c.Value, Limit: c.Limit}
}

// Validate says what is wrong with a command that a client sent.
func (c Command) Validate() error {
	have := c.fields()
	step := c.action()
	if err := step.validate(have, anyCommand); err != nil {
		return err
	}
	if err := c.validateIdentity(have); err != nil {
		return err
	}
	if have&hasExpected != 0 {
		if err := c.Expected.validate(); err != nil {
			return err
		}
	}
	if c.Op == Txn {
		if err := c.validateTxn(have); err != nil {
			return err
		}
	}
	if size := c.size(); size > MaxCommandBytes {
		return fmt.Errorf("%s of %d bytes: want at most %d", c.Op, size, MaxCommandBytes)
	}
	return nil
}

func (c *Command) validateIdentity(have fields) error {
	switch {
	case len(c.Owner) > MaxKeyBytes:
		return fmt.Errorf("owner of %d bytes: want at most %d", len(c.Owner), MaxKeyBytes)
	case have&hasFence != 0 && (c.Fence.Lock == "" || c.Fence.Token == 0):
		return errors.New("a fence needs both a lock and a token")
	case len(c.Fence.Lock) > MaxKeyBytes:
		return fmt.Errorf("lock of %d bytes: want at most %d", len(c.Fence.Lock), MaxKeyBytes)
	case len(c.Session) > MaxSessionBytes:
		return fmt.Errorf("session of %d bytes: want at most %d", len(c.Session), MaxSessionBytes)
	case c.Session == "" && c.Sequence != 0:
		return errors.New("a sequence without a session")
	case c.Session != "" && c.Sequence == 0:
		return errors.New("a session without a sequence: want 1 or more")
	}
	return nil
}

func (c *Command) validateTxn(have fields) error {
	switch {
	case have&(hasThen|hasElse) == 0:
		return errors.New("transaction without an action")
	case len(c.Compares) > MaxCompares:
		return fmt.Errorf("transaction of %d compares: want at most %d", len(c.Compares), MaxCompares)
	case len(c.Then) > MaxActions || len(c.Else) > MaxActions:
		return fmt.Errorf("transaction of %d and %d actions: want at most %d each", len(c.Then), len(c.Else), MaxActions)
	}
	for i := range c.Compares {
		compare := &c.Compares[i]
		if compare.Key == "" || len(compare.Key) > MaxKeyBytes {
			return fmt.Errorf("compare %d: key of %d bytes: want 1 to %d", i, len(compare.Key), MaxKeyBytes)
		}
		if err := compare.validate(); err != nil {
			return fmt.Errorf("compare %d: %w", i, err)
		}
	}
	for _, branch := range [...]struct {
		name    string
		actions []Action
	}{{"then", c.Then}, {"else", c.Else}} {
		for i := range branch.actions {
			a := &branch.actions[i]
			if int(a.Op) >= len(shapes) || !shapes[a.Op].action {
				return fmt.Errorf("%s action %d: %s is none that a transaction can do", branch.name, i, a.Op)
			}
			if err := a.validate(a.fields(), 0); err != nil {
				return fmt.Errorf("%s action %d: %w", branch.name, i, err)
			}
		}
	}
	return nil
}

func (a *Action) validate(have, besides fields) error {
	if int(a.Op) >= len(shapes) || shapes[a.Op].name == "" {
		return fmt.Errorf("%s: unknown", a.Op)
	}
	want := shapes[a.Op]
	switch missing, extra := want.needs&^have, have&^(want.needs|want.allows|besides); {
	case missing != 0:
		return fmt.Errorf("%s without %s", a.Op, missing)
	case extra != 0:
		return fmt.Errorf("%s with %s, which it has no use for", a.Op, extra)
	case len(a.Key) > MaxKeyBytes:
		return fmt.Errorf("key of %d bytes: want 1 to %d", len(a.Key), MaxKeyBytes)
	case len(a.End) > MaxKeyBytes:
		return fmt.Errorf("end of %d bytes: want at most %d", len(a.End), MaxKeyBytes)
	case len(a.Value) > MaxValueBytes:
		return fmt.Errorf("value of %d bytes: want at most %d", len(a.Value), MaxValueBytes)
	case a.Limit < 0 || a.Limit > MaxRange:
		return fmt.Errorf("limit of %d: want 0 to %d", a.Limit, MaxRange)
	}
	return nil
}

func (e *Expectation) validate() error {
	switch {
	case e.Kind < KindAbsent || e.Kind > KindModRevision:
		return fmt.Errorf("expectation of kind %d: unknown", e.Kind)
	case e.Value != "" && e.Kind != KindValue:
		return errors.New("expectation with a value that it does not compare")
	case e.Number != 0 && e.Kind != KindVersion && e.Kind != KindModRevision:
		return errors.New("expectation with a number that it does not compare")
	case len(e.Value) > MaxValueBytes:
		return fmt.Errorf("expected value of %d bytes: want at most %d", len(e.Value), MaxValueBytes)
	}
	return nil
}

// size bounds the encoded length from above: so a valid command can always be decoded.
func (c *Command) size() int {
	const ofCommand, ofPart = 128, 32 // what the numbers and lengths take at most
	n := ofCommand + len(c.Key) + len(c.End) + len(c.Value) + len(c.Expected.Value) +
		len(c.Owner) + len(c.Fence.Lock) + len(c.Session)
	for i := range c.Compares {
		n += ofPart + len(c.Compares[i].Key) + len(c.Compares[i].Value)
	}
	for _, actions := range [...][]Action{c.Then, c.Else} {
		for i := range actions {
			n += ofPart + len(actions[i].Key) + len(actions[i].End) + len(actions[i].Value)
		}
	}
	return n
}
