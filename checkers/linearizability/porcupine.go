package linearizability

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability/search"
)

// Porcupine knows a time-out only, and leaves a goroutine behind at it. Here it ends because
// its model refuses every step from some moment on.

// askPorcupine returns Porcupine's answer, which is Unknown with a reason where the context
// or the steps ended first.
func askPorcupine(ctx context.Context, model porcupine.Model, history []porcupine.Operation, stepsMost int64) (outcome search.Outcome, reason string) {
	g := &guard{ctx: ctx, left: stepsMost}
	result := porcupine.CheckOperationsTimeout(g.bind(model), history, 0)
	return g.outcome(result)
}

// picturePorcupine is askPorcupine that also keeps how far each attempt came.
func picturePorcupine(ctx context.Context, model porcupine.Model, history []porcupine.Operation, stepsMost int64) porcupine.LinearizationInfo {
	g := &guard{ctx: ctx, left: stepsMost}
	_, info := porcupine.CheckOperationsVerbose(g.bind(model), history, 0)
	return info
}

// guard stands between Porcupine and a model.
type guard struct {
	ctx   context.Context
	left  int64
	ended atomic.Pointer[string] // why its answer means nothing
}

func (g *guard) end(why string) { g.ended.CompareAndSwap(nil, &why) }

func (g *guard) outcome(result porcupine.CheckResult) (search.Outcome, string) {
	// An order that was found is one, whatever happened meanwhile; that none was found means
	// something only if all were tried.
	switch {
	case result == porcupine.Ok:
		return search.Linearizable, ""
	case g.ended.Load() != nil:
		return search.Unknown, *g.ended.Load()
	case result == porcupine.Illegal:
		return search.Illegal, ""
	default:
		return search.Unknown, "Porcupine gave no answer"
	}
}

// bind makes a model that refuses every step once the guard has ended the search, and ends
// it if the model itself panics: that happens in a goroutine of Porcupine's, where nobody
// else could catch it.
func (g *guard) bind(model porcupine.Model) porcupine.Model {
	step, stepContext := model.Step, model.StepContext
	if stepContext == nil {
		stepContext = func(_ context.Context, state, input, output any) (bool, any) { return step(state, input, output) }
	}
	model.Step = nil
	model.StepContext = func(ctx context.Context, state, input, output any) (ok bool, next any) {
		if g.ended.Load() != nil {
			return false, state
		}
		if g.left--; g.left < 0 {
			g.end(tooManySteps)
		}
		if g.ctx.Err() != nil {
			g.end(why(g.ctx))
		}
		defer func() {
			if cause := recover(); cause != nil {
				g.end(fmt.Sprintf("the model failed: %v\n%s", cause, checkers.PanicStack()))
				ok, next = false, state
			}
		}()
		return stepContext(ctx, state, input, output)
	}
	return model
}

const tooManySteps = "Porcupine tried more steps than it was given"
