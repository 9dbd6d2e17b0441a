package histories

import "time"

// Operation is one call with both its ends: the pair of an Invoke and its completion.
type Operation struct {
	Process  int
	F        string
	Key      string
	Node     string
	Input    Value         // the argument, from the Invoke
	Output   Value         // the result, from the completion; Nil unless Type is OK
	Type     Type          // OK, Fail or Info; an invoke without a completion counts as Info
	Call     time.Duration // time of the Invoke
	Return   time.Duration // time of the completion; Forever where Type is Info
	Error    string
	Attempts int
	Final    bool
	Invoked  int // index of the Invoke event
	Returned int // index of the completion event; -1 where there is none
}

// Forever is the Return of an operation whose outcome is unknown: it may take effect
// at any later time.
const Forever = time.Duration(1<<63 - 1)
