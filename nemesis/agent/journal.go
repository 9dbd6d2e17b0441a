package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent/limits"
)

// Undo says how to undo something that would outlive an agent that is killed. It is plain
// data: who undoes it is another process. Exactly one of the pointers is set.
type Undo struct {
	Resume    *Life        `json:"resume,omitempty"`    // the process group was stopped
	End       *Life        `json:"end,omitempty"`       // the process group must not outlive the agent
	Restart   *Ending      `json:"restart,omitempty"`   // the process was ended
	Clock     *Life        `json:"clock,omitempty"`     // the process's clocks were changed
	Limits    *limits.Undo `json:"limits,omitempty"`    // a process was limited
	HostClock *Untouched   `json:"hostClock,omitempty"` // the machine's clock was touched
	Disk      *string      `json:"disk,omitempty"`      // the directory was covered; the layer itself may have been killed
}

// Ending is a process that shall run, and its life that is to end before: the note is written
// before the signal is sent, so an agent that is killed between the two leaves it running.
type Ending struct {
	Process clusters.Process `json:"process"`
	Life    Life             `json:"life"`
}

// Life is one process: the kernel gives its pid to another one day, but not with the same
// start time (proc_pid_stat(5), field 22, in clock ticks since boot).
type Life struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

const (
	notesMost    = 4096 // that stand at a time
	noteLineMost = 1 << 20
	noteProblems = 16                     // that are told
	noteLimit    = time.Second            // for the guardian to take a note
	beatPeriod   = 250 * time.Millisecond // between two notes that say that the agent is well
)

// note is a line of the journal. Without an Undo it says that nothing is left to undo; without
// a key too, that the agent is well.
type note struct {
	Key  string `json:"key,omitempty"`
	Undo *Undo  `json:"undo,omitempty"`
}

// journal is where an agent writes what has to be undone if it is killed, before it does
// it. A nil journal takes notes for nobody.
type journal struct {
	lost chan struct{} // closed when the guardian takes no notes any more

	mu     sync.Mutex
	out    io.Writer
	failed error // why it takes none
}

func newJournal(out io.Writer) *journal {
	if out == nil {
		return nil
	}
	return &journal{out: out, lost: make(chan struct{})}
}

// guardianLost returns what is closed when the guardian takes no notes any more: an agent
// without one cannot keep its promise, and leaves.
func (j *journal) guardianLost() <-chan struct{} {
	if j == nil {
		return nil
	}
	return j.lost
}

// processKey is the key of what was done to a process by name. Tools have keys of their own.
func processKey(name string) string { return "process " + name }

// begin notes what has to be undone, under a key that is free or whose note it replaces. After
// an error nothing that needs undoing may be done.
func (j *journal) begin(key string, undo Undo) error { return j.write(note{key, &undo}) }

// end strikes a note out. An error is no matter: what is undone twice is undone.
func (j *journal) end(key string) { _ = j.write(note{Key: key}) }

// beat tells the guardian that the agent is well, until ctx ends.
func (j *journal) beat(ctx context.Context) {
	ticker := time.NewTicker(beatPeriod)
	defer ticker.Stop()
	for j.write(note{}) == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// write writes a line, as a whole or as the last one: what follows a torn line is lost.
func (j *journal) write(n note) error {
	if j == nil {
		return nil
	}
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if len(line) >= noteLineMost {
		return fmt.Errorf("a note for the agent's guardian takes %d bytes, want less than %d", len(line), noteLineMost)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	if timed, ok := j.out.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = timed.SetWriteDeadline(time.Now().Add(noteLimit)) // a file that cannot have one does not block
	}
	if _, err := j.out.Write(append(line, '\n')); err != nil {
		j.failed = fmt.Errorf("the agent's guardian takes no notes: %w", err)
		close(j.lost)
	}
	return j.failed
}

// readJournal reads notes until their end and returns what was not struck out, the latest
// first. What it cannot understand it leaves out, and says so.
func readJournal(in io.Reader) ([]Undo, error) {
	standing := make(map[string]int) // key to its number
	undos := make(map[int]Undo)
	var problems problemList
	lines := bufio.NewReaderSize(in, noteLineMost)
	for number := 0; ; number++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			problems.add(fmt.Errorf("note %.100q…: longer than %d bytes", line, noteLineMost))
			err = skipLine(lines)
			line = nil
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				problems.add(err)
			} else if len(line) > 0 {
				problems.add(fmt.Errorf("note %.100q: it is torn", line)) // so what it is about was not done
			}
			break
		}
		if line == nil {
			continue
		}
		var n note
		if err := json.Unmarshal(line, &n); err != nil {
			problems.add(fmt.Errorf("note %.100q: %w", line, err))
			continue
		}
		if old, stands := standing[n.Key]; stands {
			delete(undos, old)
			delete(standing, n.Key)
		}
		if n.Undo == nil {
			continue
		}
		if len(undos) >= notesMost {
			problems.add(fmt.Errorf("note %q: %d stand already", n.Key, notesMost))
			continue
		}
		standing[n.Key], undos[number] = number, *n.Undo
	}
	numbers := slices.Sorted(maps.Keys(undos))
	slices.Reverse(numbers)
	latest := make([]Undo, len(numbers))
	for i, number := range numbers {
		latest[i] = undos[number]
	}
	return latest, problems.err()
}

// skipLine reads to the end of a line.
func skipLine(in *bufio.Reader) error {
	for {
		if _, err := in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// problemList keeps the first problems, and counts the others.
type problemList struct {
	first []error
	more  int
}

func (l *problemList) add(err error) {
	if len(l.first) < noteProblems {
		l.first = append(l.first, err)
	} else {
		l.more++
	}
}

func (l *problemList) err() error {
	if l.more > 0 {
		return errors.Join(append(l.first, fmt.Errorf("and %d problems more", l.more))...)
	}
	return errors.Join(l.first...)
}
