// Package transactions decides which isolation a history of transactions can have had, from
// the cycles of its dependency graph, for transactions over append-only lists and over
// registers that are written with unique values.
//
//	result := transactions.Check(txns, transactions.Options{Model: transactions.Serializable})
//	for _, a := range result.Anomalies {
//		fmt.Println(a.Kind, a.Text)
//	}
//
// The definitions are those of Adya, "Weak Consistency: A Generalized Theory" (1999); that
// the order of versions can be read off what clients saw is the idea of Kingsbury and Alvaro,
// "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020); that
// snapshot isolation forbids exactly the cycles without two adjacent anti-dependencies is
// from Cerone and Gotsman, "Analysing Snapshot Isolation" (PODC 2016).
//
// Guarantees. What is reported is so in every execution that could have given this history:
// each anomaly rules out the model that it names and all stronger ones. The converse holds
// for lists whose every element was read at last: what is not reported is not there. For
// registers the order of versions is known in part only, so that an anomaly may stay hidden.
//
// A transaction of unknown outcome happened where somebody read what it wrote; otherwise it is
// left out, as if it never had. The reads of transactions that failed or whose outcome is
// unknown are not looked at.
//
// Time and memory are linear in the history (the lists that were read included) but for the
// order of versions that real time gives to registers, which costs that times the number of
// transactions in flight. [Options.Limit] bounds both.
package transactions

import (
	"fmt"
	"math"
	"time"
)

// Type is the outcome of a transaction.
type Type uint8

const (
	// OK: it committed, and its reads are what it saw.
	OK Type = iota
	// Fail: it certainly did not happen and never will.
	Fail
	// Info: nobody knows.
	Info
)

// Micro is one step of a transaction, a micro-operation.
type Micro struct {
	F     string  // "append" to a list, "w" writes a register, "r" reads either
	Key   string  // a key holds a list or a register, never both
	Value int64   // what is appended or written, to this key by nobody else; or what was read of a register
	List  []int64 // what was read of a list
	Nil   bool    // the read found nothing: a register never written, or an empty list
}

// Txn is one transaction. Times are in any unit that counts up, as the index of an event:
// one transaction precedes another where its Return is less than the other's Call.
type Txn struct {
	ID      int // the caller's; texts name it T<ID>
	Process int // the client session; its transactions do not overlap
	Type    Type
	Micros  []Micro // in the order of the program
	Call    int64
	Return  int64 // of a transaction that is OK; of others it is not looked at
}

// Never is the Return of a transaction whose return is unknown.
const Never = math.MaxInt64

// KeyOrder says what is known of the registers' order of versions beforehand.
type KeyOrder uint8

const (
	// Unordered: nothing is known.
	Unordered KeyOrder = iota
	// Sequential: no process sees a key go back.
	Sequential
	// Linearizable: each key by itself is linearizable.
	Linearizable
)

// Options say what must hold and how much may be spent on it. The zero Options ask for
// strict serializability, without limits.
type Options struct {
	Model Model // which must hold; 0: StrictSerializable
	// Keys is what the system promises of each register, taken for true when the anomalies
	// of models without sessions or real time are looked for. Without it, the order of versions comes only
	// from what transactions read before they wrote. A promise that is seen to be broken is
	// the anomaly CyclicVersions.
	Keys  KeyOrder
	Limit Limit
	Keep  int // anomalies of a kind that are explained, others are counted only; 0: 10
}

// Limit bounds a check. What reaches it ends with the verdict Unknown, unless an anomaly
// that was found by then rules the model out.
type Limit struct {
	Time   time.Duration // 0: no limit
	Memory int64         // bytes that the check may build, by its own estimate, beside the history; 0: no limit
}

// Verdict says whether the model of the options can hold.
type Verdict uint8

const (
	// Unknown: it could not be decided, see Result.Reason.
	Unknown Verdict = iota
	// Valid: nothing that was seen rules the model out.
	Valid
	// Invalid: an anomaly rules the model out.
	Invalid
)

var verdictNames = [...]string{"unknown", "valid", "invalid"}

// String returns unknown, valid or invalid.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// MarshalText writes the word of v.
func (v Verdict) MarshalText() ([]byte, error) {
	if int(v) >= len(verdictNames) {
		return nil, fmt.Errorf("verdict %d has no word: want 0 (unknown), 1 (valid) or 2 (invalid)", uint8(v))
	}
	return []byte(verdictNames[v]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if string(text) == name {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("verdict %q: want unknown, valid or invalid", text)
}

// Result is what a check found.
type Result struct {
	Verdict   Verdict      `json:"verdict"`          // on Options.Model
	Reason    string       `json:"reason,omitempty"` // why the verdict is Unknown
	Anomalies []Anomaly    `json:"anomalies,omitempty"`
	Counts    map[Kind]int `json:"counts,omitempty"`    // anomalies by kind, those without explanation included
	Violated  []Model      `json:"violated,omitempty"`  // the models that are ruled out, weakest first
	Strongest Model        `json:"strongest"`           // the strongest model that is not; 0: none is left
	Unchecked []Unchecked  `json:"unchecked,omitempty"` // keys that were left out
	Txns      int          `json:"transactions"`        // that took part: committed, or seen to have happened
	Edges     int          `json:"edges"`               // dependencies looked at
}

// Unchecked is a key whose reads and writes were left out.
type Unchecked struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// Anomaly is one thing that should not be.
type Anomaly struct {
	Kind     Kind   `json:"kind"`
	RulesOut Model  `json:"rulesOut"`        // the weakest model that forbids it; so do all stronger ones
	Key      string `json:"key,omitempty"`   // where there is one
	Txns     []int  `json:"txns"`            // positions in what was given to Check
	Cycle    []Step `json:"cycle,omitempty"` // from one transaction round to itself, where it is a cycle
	Text     string `json:"text"`            // the whole in words
}

// Step is one edge of a cycle: From must come before To.
type Step struct {
	From int    `json:"from"` // position in what was given to Check
	To   int    `json:"to"`
	Kind string `json:"kind"` // "ww", "wr", "rw", "process" or "realtime"
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

// Check looks for anomalies in a history of transactions and decides whether the model of
// the options can hold. It keeps nothing of txns and changes nothing of it; calls may run at
// the same time. What cannot be understood, as a key that is list and register, is Unknown
// with the reason.
func Check(txns []Txn, options Options) Result {
	if options.Model == 0 {
		options.Model = StrictSerializable
	}
	if options.Keep <= 0 {
		options.Keep = 10
	}
	c := &check{txns: txns, options: options, budget: newBudget(options.Limit), found: Result{Counts: make(map[Kind]int)}}
	if why := c.index(); why != "" {
		c.found.Reason = why
		return c.finish()
	}
	c.within()
	c.orders()
	c.depend()
	c.cycles()
	return c.finish()
}

// check is one call of Check.
type check struct {
	history
	budget
	graph
	txns     []Txn
	options  Options
	found    Result
	weakest  Model // the weakest model ruled out so far; 0: none
	lists    []listOrder
	observed []observation // what transactions saw and wrote of registers, by key; nil: not looked at yet
	seeker   *seeker
}

// report adds an anomaly, or counts it where enough of its kind are explained: explain, which
// may be costly, is called only for those to be kept.
func (c *check) report(kind Kind, rulesOut Model, explain func() Anomaly) {
	c.found.Counts[kind]++
	if c.weakest == 0 || rulesOut < c.weakest {
		c.weakest = rulesOut
	}
	if c.found.Counts[kind] > c.options.Keep {
		return
	}
	a := explain()
	a.Kind, a.RulesOut = kind, rulesOut
	c.found.Anomalies = append(c.found.Anomalies, a)
}

// violated reports whether m is ruled out by what was found so far.
func (c *check) violated(m Model) bool { return c.weakest != 0 && c.weakest <= m }

func (c *check) finish() Result {
	r := c.found
	if len(r.Counts) == 0 {
		r.Counts = nil
	}
	for m := ReadUncommitted; m <= StrictSerializable; m++ {
		if c.violated(m) {
			r.Violated = append(r.Violated, m)
		} else {
			r.Strongest = m
		}
	}
	if r.Reason == "" {
		r.Reason = c.spent
	}
	if r.Reason == "" && len(r.Unchecked) > 0 {
		r.Reason = fmt.Sprintf("%d keys were left out, as %s: %s", len(r.Unchecked), r.Unchecked[0].Key, r.Unchecked[0].Why)
	}
	switch {
	case c.violated(c.options.Model):
		r.Verdict, r.Reason = Invalid, ""
	case r.Reason == "":
		r.Verdict = Valid
	}
	return r
}
