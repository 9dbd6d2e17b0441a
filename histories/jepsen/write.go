package jepsen

import (
	"bufio"
	"fmt"
	"io"

	"capsize/histories"
	"capsize/histories/jepsen/edn"
)

// Write writes a history, an operation a line. Where it has keys, values are [key value], as
// jepsen.independent has them. What Jepsen does not know stands under keys of its own: :node,
// :stale, :final, :refused, :revision. Of the nemesis the fault and its phase are told; what was
// observed of the nodes is left out.
func Write(w io.Writer, events []histories.Event) error {
	keyed := false
	for i := range events {
		keyed = keyed || events[i].Process >= 0 && events[i].Key != ""
	}
	out := bufio.NewWriter(w)
	index := int64(0)
	for i := range events {
		e := &events[i]
		if e.Process == histories.Observer {
			continue
		}
		line := formOf(e, index, keyed).Append(nil)
		index++
		if _, err := out.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("write a Jepsen history: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write a Jepsen history: %w", err)
	}
	return nil
}

func formOf(e *histories.Event, index int64, keyed bool) edn.Value {
	form := edn.Value{Kind: edn.Map}
	put := func(name string, v edn.Value) { form.Items = append(form.Items, edn.Key(name), v) }
	put("index", edn.Integer(index))
	put("time", edn.Integer(int64(e.Time)))
	put("type", edn.Key(e.Type.String()))
	if e.Process == histories.Nemesis {
		put("process", edn.Key("nemesis"))
		put("f", edn.Key(e.F))
		if e.Fault != nil {
			put("value", edn.Text(fmt.Sprintf("%s %s", e.Fault.Phase, e.Fault.Detail)))
		}
		return form
	}
	put("process", edn.Integer(int64(e.Process)))
	put("f", edn.Key(e.F))
	value := formOfValue(e.Value)
	if keyed && e.F != "txn" {
		value = edn.Value{Kind: edn.Vector, Items: []edn.Value{edn.Text(e.Key), value}}
	}
	put("value", value)
	if e.Error != "" {
		put("error", edn.Text(e.Error))
	}
	if e.Node != "" {
		put("node", edn.Text(e.Node))
	}
	for _, f := range []struct {
		name string
		is   bool
	}{{"stale", e.Stale}, {"final", e.Final}, {"refused", e.Refused}} {
		if f.is {
			put(f.name, edn.Value{Kind: edn.Bool, Int: 1})
		}
	}
	if e.Revision != 0 {
		put("revision", edn.Integer(e.Revision))
	}
	return form
}

func formOfValue(v histories.Value) edn.Value {
	if n, is := v.Int(); is {
		return edn.Integer(n)
	}
	list := edn.Value{Kind: edn.Vector}
	if integers, is := v.Ints(); is {
		for _, n := range integers {
			list.Items = append(list.Items, edn.Integer(n))
		}
		return list
	}
	if micros, is := v.Micros(); is {
		for _, m := range micros {
			step := edn.Value{Kind: edn.Vector, Items: []edn.Value{edn.Key(m.F), edn.Text(m.Key), formOfValue(m.Value)}}
			if m.Revision != 0 {
				step.Items = append(step.Items, edn.Integer(m.Revision))
			}
			list.Items = append(list.Items, step)
		}
		return list
	}
	return edn.Value{}
}
