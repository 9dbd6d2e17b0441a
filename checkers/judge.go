package checkers

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// JudgeAll runs every checker over a run, one after the other, so that each has the
// machine for itself, and returns their results in that order. A checker that panics has
// decided nothing: its result is unknown and says where it failed. [Overall] makes one
// verdict of the results.
func JudgeAll(ctx context.Context, run *Run, all []Checker) []Result {
	results := make([]Result, 0, len(all))
	for _, checker := range all {
		start := time.Now()
		result := guarded(ctx, checker, run)
		result.Checker, result.Took = checker.Name(), time.Since(start)
		results = append(results, result)
	}
	return results
}

// Overall returns the verdict of a run whose checkers gave these results: the worst. A
// run that nothing checked is unknown.
func Overall(results []Result) Verdict {
	if len(results) == 0 {
		return Unknown
	}
	overall := Valid
	for _, result := range results {
		overall = Worse(overall, result.Verdict)
	}
	return overall
}

// stackLinesMost is how much of a panic's stack is told: enough to see where.
const stackLinesMost = 8

func guarded(ctx context.Context, checker Checker, run *Run) (result Result) {
	defer func() {
		if cause := recover(); cause != nil {
			result = Result{Verdict: Unknown, Summary: fmt.Sprintf("the checker itself failed, which says nothing of the system: %v\n%s", cause, PanicStack())}
		}
	}()
	return checker.Check(ctx, run)
}

// PanicStack returns the first lines of the stack below the panic. To be called by a
// deferred function.
func PanicStack() string {
	stack := string(debug.Stack())
	if _, below, ok := strings.Cut(stack, "\npanic("); ok {
		_, stack, _ = strings.Cut(below, "\n") // panic's own line, then its file
		_, stack, _ = strings.Cut(stack, "\n")
	}
	lines := strings.Split(stack, "\n")
	return strings.Join(lines[:min(len(lines), stackLinesMost)], "\n")
}
