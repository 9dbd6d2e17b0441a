package checkers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

const (
	explainLimit  = 15 * time.Second // for all violations of a run together
	aroundMost    = 40               // operations shown around a violation
	coreMost      = 200              // a longer core explains nothing
	picturesMost  = 5                // of a run; a broken system may violate hundreds of keys
	picturedMost  = 300              // operations in a picture
	afterViolated = 8                // of aroundMost, invoked after the violation
)

// explainAll finds out why keys have no legal order, the earliest violation first. What
// its own time budget does not reach is said to be unexplained; the verdicts stand.
func (l *Linearizability) explainAll(ctx context.Context, guilty []*keyHistory) []Violation {
	if len(guilty) == 0 {
		return nil
	}
	budget := newBudget(ctx, explainLimit, l.Memory)
	defer budget.close()
	s := &shrinker{l, budget}
	type cut struct {
		key    *keyHistory
		prefix []histories.Operation
		last   histories.Operation
	}
	var cuts []cut
	for _, k := range guilty {
		prefix, last := s.earliest(k)
		cuts = append(cuts, cut{k, prefix, last})
	}
	slices.SortStableFunc(cuts, func(a, b cut) int { return cmp.Compare(a.last.Returned, b.last.Returned) })
	var violations []Violation
	for i, c := range cuts {
		v := Violation{Key: c.key.name, At: c.last.Return, Around: around(c.key.all, c.last)}
		var text string
		if v.Core, text = s.explain(c.key, c.prefix, c.last); i < picturesMost {
			v.Picture = l.draw(s, c.key.name, c.prefix, v.Core)
		}
		v.Explanation = keyName(c.key.name) + ": " + text
		violations = append(violations, v)
	}
	return violations
}

func keyName(name string) string {
	if name == "" {
		return "the object"
	}
	return "key " + name
}

func (s *shrinker) explain(k *keyHistory, prefix []histories.Operation, last histories.Operation) (core []histories.Operation, text string) {
	if !k.unique {
		core = originals(prefix, k.all)
		text = fmt.Sprintf("no order of its first %d operations explains all their results; it becomes impossible when %s ends", len(prefix), act(last))
	} else {
		core = originals(s.core(prefix), k.all)
		text = (&story{core: core, all: k.all}).tell()
	}
	if len(core) > coreMost {
		return nil, fmt.Sprintf("no order of its first %d operations explains all their results (they could not be reduced to a few within %s); it becomes impossible when %s ends", len(prefix), explainLimit, act(last))
	}
	return core, text
}

// around returns a key's operations near the one that made its history impossible, in
// order of invoke.
func around(all []histories.Operation, last histories.Operation) []histories.Operation {
	end, _ := slices.BinarySearchFunc(all, last.Returned, func(op histories.Operation, event int) int { return cmp.Compare(op.Invoked, event) })
	end = min(len(all), end+afterViolated)
	return slices.Clone(all[max(0, end-aroundMost):end])
}

// draw writes Porcupine's picture of an impossible history and returns its file name, or
// nothing where that fails: the verdict stands without its picture.
func (l *Linearizability) draw(s *shrinker, key string, prefix, core []histories.Operation) string {
	if l.Dir == "" {
		return ""
	}
	spans, _ := l.prepare(prefix)
	if len(spans) > picturedMost {
		spans, _ = l.prepare(core)
	}
	if len(spans) > picturedMost || len(spans) == 0 {
		return ""
	}
	info := s.picture(spans)
	name := "porcupine-" + fileName(key) + ".html"
	file, err := os.Create(filepath.Join(l.Dir, name))
	if err != nil {
		return ""
	}
	err = porcupine.Visualize(pictured(l.Model), info, file)
	if closed := file.Close(); err != nil || closed != nil {
		_ = os.Remove(file.Name()) // half a picture is none
		return ""
	}
	return name
}

// pictured adds to a model what a picture says of an operation beside its result.
func pictured(model porcupine.Model) porcupine.Model {
	model.DescribeOperationMetadata = func(metadata any) string {
		op, ok := metadata.(histories.Operation)
		if !ok {
			return ""
		}
		return where(op)
	}
	return model
}

// fileName makes a key a part of a file name.
func fileName(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, key)
}
