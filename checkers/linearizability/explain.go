package linearizability

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

	"capsize/checkers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

const (
	explainLimit  = 15 * time.Second // for all violations of a run together
	aroundMost    = 40               // operations shown around a violation
	coreMost      = 200              // a longer core explains nothing
	picturesMost  = 5                // of a run; a broken system may violate hundreds of keys
	picturedMost  = 300              // operations in a picture
	afterViolated = 8                // of aroundMost, invoked after the violation
	verifySteps   = 2_000_000        // that Porcupine may try to verify a core, or to picture it
)

// explainAll finds out why keys have no legal order, the earliest violation first. What
// its own time budget does not reach is said to be unexplained; the verdicts stand.
func (c *Checker) explainAll(ctx context.Context, run *checkers.Run, guilty []*key) []checkers.Violation {
	if len(guilty) == 0 {
		return nil
	}
	budget := newBudget(ctx, checkers.Limits{Timeout: explainLimit, Memory: c.Limits.Memory})
	defer budget.close()
	s := &shrinker{c, budget}
	var cuts []cut
	for _, k := range guilty {
		cuts = append(cuts, s.earliest(k))
	}
	slices.SortStableFunc(cuts, func(a, b cut) int { return cmp.Compare(a.last.Returned, b.last.Returned) })
	var violations []checkers.Violation
	for i, cut := range cuts {
		v := checkers.Violation{Key: cut.key.name, At: cut.last.Return, Method: string(cut.decided.method), Around: around(cut.key.operations, cut.last)}
		core, text := s.explain(cut)
		v.Core, v.Explanation = originals(core, cut.key.operations), keyName(cut.key.name)+": "+text
		v.Verified = s.verify(cut, core)
		if i < picturesMost {
			v.Picture = c.draw(s, cut, core)
		}
		if len(v.Core) > 0 {
			v.Situation = checkers.SituationOf(run, v.Core[0].Call, v.At)
		}
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

// explain returns a small part of the history that is impossible by itself, as it stood when
// it became so, and says why it is.
func (s *shrinker) explain(c cut) (core []histories.Operation, text string) {
	switch {
	case c.decided.method == ByRevisions:
		core = at(c.prefix, c.decided.core)
		return core, lyingText(core)
	case c.decided.method == ByOrder && c.decided.core != nil:
		core = at(c.prefix, c.decided.core)
		return core, s.checker.orderText(c.decided, core)
	case s.checker.Object == Mutex && c.decided.method == ByValues:
		core = at(c.prefix, slices.Compact(slices.Sorted(slices.Values(c.decided.core))))
		return core, mutexText(core)
	case s.checker.Object == Register && c.decided.method != ByPorcupine && c.decided.method != BySearch:
		core = s.core(c)
		if len(core) <= coreMost {
			return core, (&story{core: originals(core, c.key.operations), all: c.key.operations}).tell()
		}
	default:
		if core = c.prefix; len(core) <= coreMost {
			return core, s.stuck(c)
		}
	}
	return nil, fmt.Sprintf("no order of its first %d operations explains all their results (they could not be reduced to a few within %s); it becomes impossible when %s ends", len(c.prefix), explainLimit, act(c.last))
}

// stuck says how far an order of a model's operations comes.
func (s *shrinker) stuck(c cut) string {
	text := fmt.Sprintf("no order of its first %d operations explains all their results; it becomes impossible when %s ends", len(c.prefix), act(c.last))
	ctx, done := s.budget.begin()
	defer done()
	history := forPorcupine(c.prefix)
	found := search.Check(ctx, s.checker.model(), history, search.Limits{Memory: int64(s.budget.memory)})
	if s.checker.Model.DescribeState == nil || found.Outcome != search.Illegal {
		return text
	}
	placed := make(map[int]bool)
	for _, i := range found.Order {
		placed[i] = true
	}
	var left []string
	for i, op := range history {
		if !placed[i] && op.Return != search.Never && len(left) < 3 {
			left = append(left, act(op.Input.(histories.Operation)))
		}
	}
	return text + fmt.Sprintf("; the longest order that could be found explains %d of them, after which the state is %s, and no way leads on to %s",
		len(found.Order), s.checker.Model.DescribeState(found.State), strings.Join(left, ", "))
}

// verify puts a core before Porcupine and says what came of it.
func (s *shrinker) verify(c cut, core []histories.Operation) string {
	if len(core) == 0 {
		return ""
	}
	model := s.checker.Model
	switch {
	case c.decided.method == ByRevisions:
		model = revisionModel()
	case c.decided.method == ByOrder && c.decided.elements == nil: // the core is one of numbers, which all before it make
		core = c.prefix
	case c.decided.method == ByOrder:
		core = restricted(core, c.decided.elements)
	}
	ctx, done := s.budget.begin()
	defer done()
	switch outcome, reason := askPorcupine(ctx, model, forPorcupine(core), verifySteps); outcome {
	case search.Illegal:
		return fmt.Sprintf("Porcupine finds no order of these %d operations either", len(core))
	case search.Linearizable:
		return "Porcupine does find an order of these operations: this is a defect of the checker, please report it"
	default:
		return "Porcupine could not decide about them: " + reason
	}
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
func (c *Checker) draw(s *shrinker, cut cut, core []histories.Operation) string {
	if c.Limits.Dir == "" || cut.decided.method == ByRevisions {
		return ""
	}
	history := forPorcupine(cut.prefix)
	if len(history) > picturedMost {
		history = forPorcupine(core)
	}
	if len(history) > picturedMost || len(history) == 0 {
		return ""
	}
	ctx, done := s.budget.begin()
	defer done()
	info := picturePorcupine(ctx, c.Model, history, verifySteps)
	name := "porcupine-" + fileName(cut.key.name) + ".html"
	file, err := os.Create(filepath.Join(c.Limits.Dir, name))
	if err != nil {
		return ""
	}
	err = porcupine.Visualize(pictured(c.Model), info, file)
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
