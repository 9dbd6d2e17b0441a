package checkers

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// JudgeAll runs every checker over a run, one after the other, so that each has the
// machine for itself. A checker that panics has decided nothing: its result is unknown,
// with the reason.
func JudgeAll(ctx context.Context, run *Run, all []Checker) []Result {
	results := make([]Result, 0, len(all))
	for _, checker := range all {
		start := time.Now()
		result := guarded(ctx, checker, run)
		result.Checker = checker.Name()
		result.Took = time.Since(start)
		results = append(results, result)
	}
	return results
}

const stackLinesMost = 8

func guarded(ctx context.Context, checker Checker, run *Run) (result Result) {
	defer func() {
		if cause := recover(); cause != nil {
			stack := strings.Split(string(debug.Stack()), "\n")
			result = Result{Verdict: Unknown, Summary: fmt.Sprintf("the checker failed: %v\n%s", cause, strings.Join(stack[:min(len(stack), stackLinesMost)], "\n"))}
		}
	}()
	return checker.Check(ctx, run)
}
