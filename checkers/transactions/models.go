package transactions

import "fmt"

// Model is a consistency model. Each forbids all that the one before it forbids.
type Model uint8

const (
	// ReadUncommitted, Adya's PL-1: the writes of transactions are not interleaved.
	ReadUncommitted Model = 1 + iota
	// ReadCommitted, Adya's PL-2: nothing is read that was not, or not yet, committed.
	ReadCommitted
	// SnapshotIsolation: each transaction reads of one snapshot, and of two that overlap only
	// one may write a key. It does not tell which snapshot: an old one is allowed.
	SnapshotIsolation
	// Serializable, Adya's PL-3: the transactions are explained by some order.
	Serializable
	// StrongSessionSerializable: by an order in which those of each process keep theirs.
	StrongSessionSerializable
	// StrictSerializable: by an order in which none stands before one that had returned before
	// it was called.
	StrictSerializable
)

var modelNames = [...]string{
	"none", "read-uncommitted", "read-committed", "snapshot-isolation", "serializable",
	"strong-session-serializable", "strict-serializable",
}

// String returns the name of the model, as strict-serializable.
func (m Model) String() string {
	if int(m) < len(modelNames) {
		return modelNames[m]
	}
	return fmt.Sprintf("Model(%d)", uint8(m))
}

// MarshalText writes the name of the model.
func (m Model) MarshalText() ([]byte, error) {
	if int(m) >= len(modelNames) {
		return nil, fmt.Errorf("model %d has no name: want 0 (none) to %d", uint8(m), len(modelNames)-1)
	}
	return []byte(modelNames[m]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (m *Model) UnmarshalText(text []byte) (err error) {
	if string(text) == modelNames[0] {
		*m = 0
		return nil
	}
	*m, err = ParseModel(string(text))
	return err
}

// ParseModel returns the model of a name.
func ParseModel(name string) (Model, error) {
	for i, known := range modelNames {
		if i > 0 && name == known {
			return Model(i), nil
		}
	}
	return 0, fmt.Errorf("consistency model %q: want one of %v", name, modelNames[1:])
}

// Kind names a sort of anomaly. The cycles G0, G1c, GSingle, GNonadjacent and G2Item may end
// in -process or -realtime: then the cycle needs the order within a process, or of real time.
type Kind string

const (
	// Internal: a transaction does not read what it wrote itself before, or reads what it is
	// to write only later.
	Internal Kind = "internal"
	// NonRepeatableRead: a transaction read a key twice, and it had changed in between.
	NonRepeatableRead Kind = "non-repeatable-read"
	// Phantom: a read shows a value that nobody wrote.
	Phantom Kind = "phantom"
	// DuplicateElements: a read shows an element twice that was appended once.
	DuplicateElements Kind = "duplicate-elements"
	// IncompatibleOrder: two reads of a list of which none begins with the other, or one that
	// shows the elements of a transaction in another order than it appended them.
	IncompatibleOrder Kind = "incompatible-order"
	// CyclicVersions: the versions of a register cannot be ordered as Options.Keys promises.
	CyclicVersions Kind = "cyclic-versions"
	// G1a is an aborted read: of what a transaction wrote that failed.
	G1a Kind = "G1a"
	// G1b is an intermediate read: of what a transaction wrote and then wrote over.
	G1b Kind = "G1b"
	// DirtyUpdate: a committed transaction appended to what one had appended that failed.
	DirtyUpdate Kind = "dirty-update"
	// LostUpdate: two transactions read the same version of a key and both wrote the key.
	LostUpdate Kind = "lost-update"
	// G0 is a cycle of writes over writes (ww).
	G0 Kind = "G0"
	// G1c is one of ww, and of reads of what was written (wr).
	G1c Kind = "G1c"
	// GSingle is a cycle with one anti-dependency (rw): a read of what then was written over.
	GSingle Kind = "G-single"
	// GNonadjacent is a cycle with several, never two in a row.
	GNonadjacent Kind = "G-nonadjacent"
	// G2Item is a cycle with several, two of them in a row.
	G2Item Kind = "G2-item"
)
