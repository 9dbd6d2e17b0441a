package checkers

import (
	"time"

	"capsize/histories"
)

// Live judges a run while it goes on. What it calls broken is broken; what it does not call
// broken is for the checkers of the finished run to decide.
type Live interface {
	// Event takes the next event of the history, in order of index. It returns an alarm at
	// the first event after which the property cannot hold any more, or as soon after it as
	// can be known, and nil otherwise.
	Event(e *histories.Event) *Alarm
	// Unjudged says what is not judged any more, a reason each: a budget ended.
	Unjudged() []string
}

// LiveChecker is a checker that can judge a run while it goes on, too.
type LiveChecker interface {
	Checker
	Live() Live
}

// Alarm is what a [Live] found.
type Alarm struct {
	Checker string        `json:"checker"`
	Key     string        `json:"key,omitempty"`
	At      time.Duration `json:"at"` // of the event that broke the property
	Why     string        `json:"why"`
}
