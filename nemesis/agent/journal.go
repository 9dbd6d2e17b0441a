package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"capsize/clusters"
	"capsize/nemesis/agent/limits"
)

// Undo says how to undo something that would outlive an agent that is killed. It is plain
// data: who undoes it is another process. Exactly one of the pointers is set.
type Undo struct {
	Resume  *Life             `json:"resume,omitempty"`  // the process group was stopped
	End     *Life             `json:"end,omitempty"`     // the process group must not outlive the agent
	Restart *clusters.Process `json:"restart,omitempty"` // the process was killed
	Clock   *Life             `json:"clock,omitempty"`   // the process's clocks were changed
	Limits  *limits.Undo      `json:"limits,omitempty"`  // a process was limited
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
)

// note is a line of the journal. Without an Undo it says that nothing is left to undo.
type note struct {
	Key  string `json:"key"`
	Undo *Undo  `json:"undo,omitempty"`
}

// journal is where an agent writes what has to be undone if it is killed, before it does
// it. A nil journal takes notes for nobody.
type journal struct {
	mu  sync.Mutex
	out io.Writer
}

func newJournal(out io.Writer) *journal {
	if out == nil {
		return nil
	}
	return &journal{out: out}
}

// begin notes what has to be undone, under a key that is free or whose note it replaces. After
// an error nothing that needs undoing may be done.
func (j *journal) begin(key string, undo Undo) error { return j.write(note{key, &undo}) }

// end strikes a note out. An error is no matter: what is undone twice is undone.
func (j *journal) end(key string) { _ = j.write(note{Key: key}) }

func (j *journal) write(n note) error {
	if j == nil {
		return nil
	}
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the agent's guardian takes no notes: %w", err)
	}
	return nil
}

// readJournal reads notes until their end and returns what was not struck out, the latest
// first. What it cannot understand it leaves out, and says so.
func readJournal(in io.Reader) ([]Undo, error) {
	standing := make(map[string]int) // key to its number
	undos := make(map[int]Undo)
	var problems []error
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 64<<10), noteLineMost)
	for number := 0; scanner.Scan(); number++ {
		var n note
		if err := json.Unmarshal(scanner.Bytes(), &n); err != nil {
			problems = append(problems, fmt.Errorf("note %.100q: %w", scanner.Text(), err))
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
			problems = append(problems, fmt.Errorf("note %q: %d stand already", n.Key, notesMost))
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
	return latest, errors.Join(append(problems, scanner.Err())...)
}
