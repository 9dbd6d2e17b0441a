package linearizability

// Object says what each key of a workload is. Where it names one, operations have the names
// and values given here, every value is given to a key at most once, and exact algorithms of
// linear time apply; a key for which that turns out to be untrue is searched instead.
type Object string

const (
	// Any is whatever the model says.
	Any Object = ""
	// Register: "read" returns an integer, or nothing; "write" of an integer; "cas" of
	// [expected, replacement].
	Register Object = "register"
	// List: "append" of an integer; "read" returns all of them in order.
	List Object = "list"
	// Set: "add" of an integer; "read" returns all of them in any order. Nothing is taken out.
	Set Object = "set"
	// Counter: "add" of a delta; "add-and-get" of a delta returns the sum; "read" returns the
	// sum, or nothing for 0. Values are deltas here and may repeat.
	Counter Object = "counter"
	// Queue: "enqueue" of an integer; "dequeue" returns the oldest, or nothing where it was empty.
	Queue Object = "queue"
	// Mutex: "acquire" and "release" by a process; the revision of an acquire is its fencing token.
	Mutex Object = "mutex"
)
