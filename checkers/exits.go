package checkers

import (
	"context"
	"fmt"
	"strings"

	"capsize/histories"
)

// Exits checks that no node's process ended by itself: a node that nobody told to end,
// and that ends all the same, is broken. The harness records such an end as an observer's
// event with F "exit" and the log's last words in Error.
type Exits struct{}

// Name is "exits".
func (*Exits) Name() string { return "exits" }

// strangers are ends that another than the system may have caused: the kernel when memory
// is short, a full disk.
var strangers = []string{"killed by SIGKILL", "no space left on device", "cannot allocate memory"}

// Check looks for the first end of a process that nobody asked for.
func (*Exits) Check(_ context.Context, run *Run) Result {
	result := Result{Verdict: Valid, Summary: "no node's process ended by itself"}
	served := false // a cluster that never served was not tested: that is the harness's to tell
	for i := range run.History {
		e := &run.History[i]
		served = served || e.Process >= 0
		if e.Process != histories.Observer || e.F != "exit" {
			continue
		}
		verdict := Invalid
		if !served {
			verdict = Unknown
		}
		for _, sign := range strangers {
			if strings.Contains(e.Error, sign) {
				verdict = Unknown // the machine may be at fault
			}
		}
		if worse := Worse(verdict, result.Verdict); worse != result.Verdict {
			result.Verdict, result.Summary = verdict, fmt.Sprintf("at %s %s", clockOf(e), e.Error)
		}
	}
	return result
}

func clockOf(e *histories.Event) string { return fmt.Sprintf("%.3f s", e.Time.Seconds()) }
