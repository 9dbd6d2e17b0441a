package nemesis

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params are the parameters of a step, by name. In a plan every parameter of the fault is
// there, with its default where the step names none, and has been validated: so the
// readers below cannot fail.
type Params map[string]string

// Is reports whether a parameter has a value.
func (p Params) Is(name, value string) bool { return p[name] == value }

// Duration reads a parameter of that kind.
func (p Params) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(p[name])
	return d
}

// Number reads a parameter that is a number or a probability.
func (p Params) Number(name string) float64 {
	n, _ := parseNumber(p[name])
	return n
}

// Count reads a parameter that is a whole number.
func (p Params) Count(name string) int64 {
	n, _ := parseCount(p[name])
	return n
}

// Size reads a parameter that is a number of bytes.
func (p Params) Size(name string) int64 {
	n, _ := parseSize(p[name])
	return n
}

// Names reads a parameter that is a list.
func (p Params) Names(name string) []string {
	if p[name] == "" {
		return nil
	}
	return strings.Split(p[name], ",")
}

// Kind is what values a parameter takes.
type Kind int

const (
	Choice   Kind = iota // one of Param.Allowed
	Duration             // 1.5s, -250ms; between Param.Least and Param.Most
	Number               // 0.5; between Param.Least and Param.Most
	Count                // a whole number between Param.Least and Param.Most
	Size                 // bytes: 4096, 64KiB, 1MiB; between Param.Least and Param.Most
	Text                 // anything; Param.Meaning says what
)

// Param is a parameter of a fault.
type Param struct {
	Name    string
	Meaning string
	Kind    Kind
	Default string
	Allowed []string // of a Choice
	// Least and Most bound the other kinds, written like a value: both or neither.
	Least, Most string
}

// Values says in words what the parameter takes.
func (p Param) Values() string {
	between := func(what string) string {
		if p.Least == "" {
			return what
		}
		return fmt.Sprintf("%s from %s to %s", what, p.Least, p.Most)
	}
	switch p.Kind {
	case Choice:
		return oneOf(p.Allowed)
	case Duration:
		return between("a duration with a unit")
	case Number:
		return between("a number")
	case Count:
		return between("a whole number")
	case Size:
		return between("a number of bytes, such as 64KiB,")
	default:
		return "a text"
	}
}

// accepts reports whether a value is possible.
func (p Param) accepts(value string) bool {
	switch p.Kind {
	case Choice:
		return slices.Contains(p.Allowed, value)
	case Duration:
		return accepts(p, value, time.ParseDuration)
	case Number:
		return accepts(p, value, parseNumber)
	case Count:
		return accepts(p, value, parseCount)
	case Size:
		return accepts(p, value, parseSize)
	default:
		return true
	}
}

// accepts reports whether a value can be read and lies within the parameter's bounds.
func accepts[V cmp.Ordered](p Param, value string, parse func(string) (V, error)) bool {
	v, err := parse(value)
	if err != nil || p.Least == "" {
		return err == nil
	}
	least, _ := parse(p.Least) // a fault's own bounds can be read: a test sees to it
	most, _ := parse(p.Most)
	return least <= v && v <= most
}

func parseCount(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) }

func parseNumber(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
		err = fmt.Errorf("%q is no finite number", text)
	}
	return n, err
}

// sizeUnits are powers of two; a plain number is bytes.
var sizeUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

func parseSize(text string) (int64, error) {
	for _, unit := range sizeUnits {
		digits, found := strings.CutSuffix(text, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/unit.size {
			break
		}
		return n * unit.size, nil
	}
	return 0, fmt.Errorf("%q is no number of bytes, such as 64KiB", text)
}

// withDefaults returns all parameters of a fault.
func withDefaults(params []Param, given map[string]string) Params {
	all := make(Params, len(params))
	for _, p := range params {
		all[p.Name] = p.Default
	}
	maps.Copy(all, given)
	return all
}

func validateParams(params []Param, given map[string]string) *ScheduleError {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		i := slices.IndexFunc(params, func(p Param) bool { return p.Name == name })
		if i < 0 {
			allowed := "this fault has no parameters"
			if len(params) > 0 {
				names := make([]string, len(params))
				for i, p := range params {
					names[i] = p.Name
				}
				allowed = oneOf(names)
			}
			return &ScheduleError{Key: "params", Value: name, Allowed: allowed}
		}
		if !params[i].accepts(given[name]) {
			return &ScheduleError{Key: "params." + name, Value: given[name], Allowed: params[i].Values()}
		}
	}
	return nil
}
