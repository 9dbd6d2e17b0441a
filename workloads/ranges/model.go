package ranges

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// Model is one space. Inputs are [histories.Operation]; outputs are not looked at. A state is
// the items as text, "item=value", in order, with spaces between.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(s, input, _ any) (bool, any) {
			return step(s.(string), input.(histories.Operation))
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(histories.Operation)
			return fmt.Sprintf("%s %s → %s", op.F, op.Input, op.Output)
		},
		DescribeState: func(s any) string { return "{" + strings.TrimSpace(s.(string)) + "}" },
	}
}

func step(state string, op histories.Operation) (bool, string) {
	one, single := op.Input.Int()
	two, pair := op.Input.Ints()
	pair = pair && len(two) == 2
	switch {
	case op.F == Put && pair:
		return true, put(state, two[0], two[1])
	case op.F == Delete && single:
		return true, without(state, one, one+1)
	case op.F == DeleteRange && pair:
		return true, without(state, two[0], two[1])
	case op.F == Range && pair:
		return op.Type != histories.OK || tells(op.Output, within(state, two[0], two[1])), state
	}
	return false, state
}

// entries are the items of a state, each with its value, as text.
func entries(state string) []string { return strings.Fields(state) }

func itemOf(entry string) int64 {
	item, _, _ := strings.Cut(entry, "=")
	n, _ := strconv.ParseInt(item, 10, 64) // put wrote it
	return n
}

func joined(list []string) string { return strings.Join(list, " ") }

func put(state string, item, value int64) string {
	list := entries(state)
	entry := fmt.Sprintf("%d=%d", item, value)
	at, there := slices.BinarySearchFunc(list, item, func(e string, item int64) int { return int(itemOf(e) - item) })
	if there {
		list[at] = entry
	} else {
		list = slices.Insert(list, at, entry)
	}
	return joined(list)
}

func without(state string, from, to int64) string {
	return joined(slices.DeleteFunc(entries(state), func(e string) bool { return itemOf(e) >= from && itemOf(e) < to }))
}

func within(state string, from, to int64) []string {
	return slices.DeleteFunc(entries(state), func(e string) bool { return itemOf(e) < from || itemOf(e) >= to })
}

// tells reports whether a read returned just these items.
func tells(read histories.Value, list []string) bool {
	got, ok := read.Micros()
	if !ok || len(got) != len(list) {
		return ok && len(list) == 0 && len(got) == 0
	}
	for i, m := range got {
		value, plain := m.Value.Int()
		if !plain || list[i] != fmt.Sprintf("%s=%d", m.Key, value) {
			return false
		}
	}
	return true
}
