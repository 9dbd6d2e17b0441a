// Package jepsen reads and writes the histories of Jepsen (history.edn), so that they can be
// judged here, and ours there. An operation is a map with :type, :process, :f and :value, and
// mostly :time and :index; a history is one vector of them, or one after the other.
package jepsen

import (
	"errors"
	"fmt"
	"io"
	"time"

	"capsize/histories"
	"capsize/histories/jepsen/edn"
)

// Read reads a history. What the nemesis did is kept by name only. Values of independent keys,
// [key value], are told from others by the reads that begin: those of a history without keys
// have no value yet.
//
// Values are integers, lists and sets of integers, and transactions of [f key value]; one that is
// something else is an error that names its line.
func Read(r io.Reader) ([]histories.Event, error) {
	source := edn.NewReader(r)
	if _, err := source.Enter(); err != nil {
		return nil, fmt.Errorf("read a Jepsen history: %w", err)
	}
	var ops []op
	keyed := false
	for {
		form, err := source.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a Jepsen history: %w", err)
		}
		o, err := opOf(form)
		if err != nil {
			return nil, fmt.Errorf("read a Jepsen history: line %d: %w", source.Line(), err)
		}
		o.line = source.Line()
		keyed = keyed || o.Type == histories.Invoke && o.F == "read" && o.value.Sequence() && len(o.value.Items) == 2
		ops = append(ops, o)
	}
	return eventsOf(ops, keyed)
}

// op is an operation whose value is not understood yet.
type op struct {
	histories.Event
	value edn.Value
	line  int
}

func opOf(form edn.Value) (o op, err error) {
	if form.Kind == edn.Tagged && len(form.Items) == 1 {
		form = form.Items[0] // a record
	}
	if form.Kind != edn.Map {
		return o, fmt.Errorf("%s where an operation should be: want a map with :type, :process, :f and :value", form.Kind)
	}
	kind, _ := form.Get("type")
	if o.Type, err = histories.ParseType(kind.Text); err != nil || kind.Kind != edn.Keyword {
		return o, fmt.Errorf(":type %s: want :invoke, :ok, :fail or :info", kind)
	}
	f, _ := form.Get("f")
	if o.F = f.Text; o.F == "" {
		return o, fmt.Errorf(":f %s: want a keyword", f)
	}
	switch process, _ := form.Get("process"); {
	case process.Kind == edn.Int && process.Int >= 0:
		o.Process = int(process.Int)
	case process.Kind == edn.Keyword && process.Text == "nemesis":
		o.Process, o.Type = histories.Nemesis, histories.Info
	default:
		return o, fmt.Errorf(":process %s: want a number from 0, or :nemesis", process)
	}
	if at, there := form.Get("time"); there && at.Kind == edn.Int {
		o.Time = time.Duration(at.Int)
	}
	if failed, there := form.Get("error"); there && failed.Kind != edn.Nil {
		if o.Error = failed.Text; failed.Kind != edn.String && failed.Kind != edn.Keyword {
			o.Error = failed.String()
		}
	}
	if node, there := form.Get("node"); there {
		o.Node = node.Text
	}
	o.Stale, o.Final, o.Refused = flag(form, "stale"), flag(form, "final"), flag(form, "refused")
	if revision, there := form.Get("revision"); there {
		o.Revision = revision.Int
	}
	o.value, _ = form.Get("value")
	return o, nil
}

func flag(form edn.Value, name string) bool {
	v, _ := form.Get(name)
	return v.Kind == edn.Bool && v.Int == 1
}

func eventsOf(ops []op, keyed bool) ([]histories.Event, error) {
	events := make([]histories.Event, 0, len(ops))
	var last time.Duration
	for i, o := range ops {
		e := o.Event
		e.Index = i
		e.Time = max(e.Time, last)
		last = e.Time
		if e.Process != histories.Nemesis {
			value := o.value
			if keyed && e.F != "txn" {
				if !value.Sequence() || len(value.Items) != 2 {
					return nil, fmt.Errorf("read a Jepsen history: line %d: :value %s: want [key value], as other operations have", o.line, value)
				}
				e.Key, value = name(value.Items[0]), value.Items[1]
			}
			var err error
			if e.Value, err = valueOf(value); err != nil {
				return nil, fmt.Errorf("read a Jepsen history: line %d: :value of :%s: %w", o.line, e.F, err)
			}
		}
		events = append(events, e)
	}
	if err := histories.Validate(events); err != nil {
		return nil, fmt.Errorf("read a Jepsen history: %w", err)
	}
	return events, nil
}

// name is how a key is called: the text of a keyword or a string, or what was written.
func name(key edn.Value) string {
	if key.Text != "" {
		return key.Text
	}
	return key.String()
}

func valueOf(v edn.Value) (histories.Value, error) {
	switch {
	case v.Kind == edn.Nil:
		return histories.Nil, nil
	case v.Kind == edn.Int:
		return histories.Int(v.Int), nil
	case v.Sequence() && len(v.Items) > 0 && v.Items[0].Sequence():
		return transaction(v.Items)
	case v.Sequence() || v.Kind == edn.Set:
		list := make([]int64, 0, len(v.Items))
		for _, item := range v.Items {
			if item.Kind != edn.Int {
				return histories.Nil, fmt.Errorf("%s: want integers", v)
			}
			list = append(list, item.Int)
		}
		return histories.Ints(list...), nil
	}
	return histories.Nil, fmt.Errorf("%s is a %s: want an integer, integers or a transaction", v, v.Kind)
}

func transaction(steps []edn.Value) (histories.Value, error) {
	var micros []histories.Micro
	for _, step := range steps {
		if !step.Sequence() || len(step.Items) < 3 || len(step.Items) > 4 || step.Items[0].Text == "" {
			return histories.Nil, fmt.Errorf("%s: want [f key value]", step)
		}
		m := histories.Micro{F: step.Items[0].Text, Key: name(step.Items[1])}
		value, err := valueOf(step.Items[2])
		if err != nil {
			return histories.Nil, err
		}
		if nested, is := value.Micros(); is && len(nested) > 0 {
			return histories.Nil, fmt.Errorf("%s: a transaction within another", step)
		}
		m.Value = value
		if len(step.Items) == 4 {
			m.Revision = step.Items[3].Int
		}
		micros = append(micros, m)
	}
	return histories.Micros(micros...), nil
}
