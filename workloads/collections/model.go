package collections

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability"
	"capsize/histories"
)

// Model is one list, set or counter. Inputs are [histories.Operation]; outputs are not looked
// at. A write of unknown outcome stands where it takes effect, at the end if it never does. A
// state is text: the elements, in order of time for a list and of size for a set; or the sum.
func (w *Workload) Model() porcupine.Model {
	step := map[linearizability.Object]func(state string, op histories.Operation) (bool, string){
		linearizability.List: stepList, linearizability.Set: stepSet, linearizability.Counter: stepCounter,
	}[w.kind.object]
	return porcupine.Model{
		Init:              func() any { return "" },
		Step:              func(s, input, _ any) (bool, any) { return step(s.(string), input.(histories.Operation)) },
		DescribeOperation: func(input, _ any) string { return describe(input.(histories.Operation)) },
		DescribeState:     describeState,
	}
}

func describeState(s any) string {
	if s == "" {
		return "nothing"
	}
	return s.(string)
}

// text writes elements as a state has them.
func text(elements []int64) string {
	words := make([]string, len(elements))
	for i, element := range elements {
		words[i] = strconv.FormatInt(element, 10)
	}
	return strings.Join(words, " ")
}

func with(state string, element int64) string {
	return strings.TrimPrefix(state+" "+strconv.FormatInt(element, 10), " ")
}

func stepList(state string, op histories.Operation) (bool, string) {
	if op.F == Read {
		got, ok := op.Output.Elements()
		return op.Type != histories.OK || ok && text(got) == state, state
	}
	element, ok := op.Input.Int()
	return ok, with(state, element)
}

func stepSet(state string, op histories.Operation) (bool, string) {
	if op.F == Read {
		got, ok := op.Output.Elements()
		return op.Type != histories.OK || ok && text(slices.Sorted(slices.Values(got))) == state, state
	}
	element, ok := op.Input.Int()
	var elements []int64
	for word := range strings.FieldsSeq(state) {
		n, _ := strconv.ParseInt(word, 10, 64) // with wrote it
		elements = append(elements, n)
	}
	at, there := slices.BinarySearch(elements, element)
	if !there {
		elements = slices.Insert(elements, at, element)
	}
	return ok, text(elements)
}

func stepCounter(state string, op histories.Operation) (bool, string) {
	sum, _ := strconv.ParseInt(state, 10, 64) // of nothing it is 0
	result, told := op.Output.Int()
	if op.F == Read {
		return op.Type != histories.OK || result == sum && (told || op.Output.IsNil()), state
	}
	delta, ok := op.Input.Int()
	sum += delta
	if op.F == AddAndGet && op.Type == histories.OK {
		ok = ok && told && result == sum
	}
	return ok, strconv.FormatInt(sum, 10)
}

// describe says what an operation did, for pictures.
func describe(op histories.Operation) string {
	unknown := ""
	if op.Type != histories.OK {
		unknown = " (" + op.Type.String() + ")"
	}
	if op.F == Read || op.F == AddAndGet {
		return fmt.Sprintf("%s → %s%s", op.F, op.Output, unknown)
	}
	return fmt.Sprintf("%s %s%s", op.F, op.Input, unknown)
}
