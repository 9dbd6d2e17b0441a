package transactions

import (
	"fmt"
	"math"
)

// none stands for no micro-operation, no write, no transaction.
const none = int32(-1)

// history is the input, numbered: transactions by their position, micro-operations of all
// transactions in one sequence, keys and writes in the order in which they first come.
type history struct {
	first    []int32 // by transaction: its first micro-operation; one more at the end
	of       []int32 // by micro-operation: its transaction
	key      []int32 // by micro-operation
	own      []int32 // by micro-operation: the last write before it of the same key and transaction
	seen     []int32 // by micro-operation: the last read before it of the same key and transaction
	keys     []keyIndex
	writes   []write
	written  map[version]int32 // to the write
	happened []bool            // by transaction: it is OK, or somebody saw what it wrote
}

type keyIndex struct {
	name     string
	list     bool
	register bool
	left     string  // why the key is left out; empty: it is not
	reads    []int32 // micro-operations of transactions that are OK
	writes   []int32 // of all transactions
}

type version struct {
	key   int32
	value int64
}

// write is an append or a write.
type write struct {
	micro int32
	txn   int32
	at    int32 // of an element: its position in the order of the list; none: it is not known
	mark  int32 // the read in which it was met last, for duplicates
	last  bool  // the transaction does not write the key again
}

const (
	bytesPerMicro   = 4*4 + 64 // with its part of writes, written, reads and observed
	bytesPerKey     = 160
	bytesPerElement = 24
)

// index numbers the history. It returns why it cannot be understood.
func (c *check) index() string {
	if c.options.Model > StrictSerializable {
		return fmt.Sprintf("the model asked for is %v: want one of %v", c.options.Model, modelNames[1:])
	}
	micros := 0
	for i := range c.txns {
		micros += len(c.txns[i].Micros)
	}
	if len(c.txns) >= math.MaxInt32/8 || micros >= math.MaxInt32/8 {
		return fmt.Sprintf("the history has %d transactions with %d micro-operations: at most %d are numbered", len(c.txns), micros, math.MaxInt32/8)
	}
	if !c.take(int64(micros) * bytesPerMicro) {
		return c.spent
	}
	c.first = make([]int32, 0, len(c.txns)+1)
	c.of, c.key = make([]int32, 0, micros), make([]int32, 0, micros)
	c.own, c.seen = make([]int32, 0, micros), make([]int32, 0, micros)
	c.written = make(map[version]int32, micros/2)
	c.happened = make([]bool, len(c.txns))
	names := make(map[string]int32)
	var touched []touch
	for t := range c.txns {
		if why := c.indexTxn(int32(t), names, &touched); why != "" {
			return why
		}
	}
	c.first = append(c.first, int32(len(c.of)))
	for k := range c.keys {
		if key := &c.keys[k]; key.list && key.register {
			return fmt.Sprintf("key %s is a list and a register: a key must be one of them", key.name)
		}
	}
	return c.spent
}

// touch is what the transaction that is being indexed did to a key.
type touch struct{ txn, own, seen int32 }

func (c *check) indexTxn(t int32, names map[string]int32, touched *[]touch) string {
	txn := &c.txns[t]
	if txn.Type > Info {
		return fmt.Sprintf("%s is of type %d: want OK, Fail or Info", c.name(t), txn.Type)
	}
	if txn.Type == OK && txn.Return < txn.Call {
		return fmt.Sprintf("%s returned at %d, before it was called at %d", c.name(t), txn.Return, txn.Call)
	}
	c.first = append(c.first, int32(len(c.of)))
	c.happened[t] = txn.Type == OK
	for i := range txn.Micros {
		m := &txn.Micros[i]
		k, known := names[m.Key]
		if !known {
			k = int32(len(c.keys))
			names[m.Key] = k
			c.keys = append(c.keys, keyIndex{name: m.Key})
			*touched = append(*touched, touch{txn: none})
			c.take(bytesPerKey)
		}
		last := &(*touched)[k]
		if last.txn != t {
			*last = touch{txn: t, own: none, seen: none}
		}
		at := int32(len(c.of))
		c.of, c.key = append(c.of, t), append(c.key, k)
		c.own, c.seen = append(c.own, last.own), append(c.seen, last.seen)
		switch m.F {
		case "r":
			last.seen = at
			if txn.Type == OK {
				c.keys[k].reads = append(c.keys[k].reads, at)
				c.keys[k].list = c.keys[k].list || m.List != nil
			}
		case "append", "w":
			c.indexWrite(write{micro: at, txn: t, at: none, mark: none, last: true}, k, m)
			last.own = at
		default:
			return fmt.Sprintf("%s has the micro-operation %q: want append, r or w", c.name(t), m.F)
		}
	}
	c.step(1 + len(txn.Micros))
	return ""
}

func (c *check) indexWrite(w write, k int32, m *Micro) {
	key := &c.keys[k]
	if m.F == "w" {
		key.register = true
	} else {
		key.list = true
	}
	if c.own[w.micro] != none {
		c.writes[key.writes[len(key.writes)-1]].last = false
	}
	at := version{k, m.Value}
	if other, repeated := c.written[at]; repeated && key.left == "" {
		key.left = fmt.Sprintf("%s and %s both wrote %d to it, so that a read of it does not tell whom it read from",
			c.name(c.writes[other].txn), c.name(w.txn), m.Value)
		c.found.Unchecked = append(c.found.Unchecked, Unchecked{Key: key.name, Why: key.left})
	}
	c.written[at] = int32(len(c.writes))
	key.writes = append(key.writes, int32(len(c.writes)))
	c.writes = append(c.writes, w)
}

// micro returns the micro-operation of a number.
func (c *check) micro(at int32) *Micro {
	t := c.of[at]
	return &c.txns[t].Micros[at-c.first[t]]
}

// writer returns the write of a value to a key; none where nobody wrote it.
func (c *check) writer(k int32, value int64) int32 {
	if w, ok := c.written[version{k, value}]; ok {
		return w
	}
	return none
}

// name is what texts call a transaction.
func (c *check) name(t int32) string { return fmt.Sprintf("T%d", c.txns[t].ID) }

// value returns what a write wrote.
func (c *check) value(w int32) int64 { return c.micro(c.writes[w].micro).Value }
