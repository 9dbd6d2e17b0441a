package invariants

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const (
	lineMost = 1 << 20 // bytes; no event is as long
	askEvery = 1 << 12 // lines between two looks at the context
)

// Read calls yield with every event of a node's trace file, in order. Where members are called
// by name and ID, such as n4#7, or #7 by one that does not know the name yet, events have the
// ID only, #7: one that was removed and joined again under its old name has another ID, and is
// another node to the checker, as it is to Raft. [Event.Owner] has the name then. A last line that is
// cut off is left out: the node was killed as it wrote. A line that is not its node's, or
// makes no sense, ends the reading with an error that names file and line; then the rest
// is to be taken for missing (see [Checker.Incomplete]).
func Read(ctx context.Context, path, node string, yield func(Event)) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read trace: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	return scan(ctx, path, node, file, yield)
}

func scan(ctx context.Context, path, node string, r io.Reader, yield func(Event)) error {
	lines := bufio.NewReaderSize(r, lineMost)
	var bad error // of the line before: an error only if another follows
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // whatever came after the last end of line was cut off
		case err != nil:
			return fmt.Errorf("read trace %s:%d: %w", path, number, err)
		case bad != nil:
			return bad
		case number%askEvery == 0 && ctx.Err() != nil:
			return fmt.Errorf("read trace %s: %w", path, context.Cause(ctx))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		e, err := Decode(line)
		if name, _, _ := strings.Cut(e.Node, "#"); err == nil && name != node {
			err = fmt.Errorf("it is of node %q, not %q", e.Node, node)
		}
		if err != nil {
			bad = fmt.Errorf("trace %s:%d: %w", path, number, err)
			continue
		}
		e.Owner = node
		e.identify()
		yield(e)
	}
}

// identify leaves of each member's name its ID, where it has one.
func (e *Event) identify() {
	for _, name := range []*string{&e.Node, &e.Vote, &e.Candidate, &e.To, &e.Peer} {
		*name = identity(*name)
	}
	lists := [][]string{e.Voters}
	for _, conf := range []*Conf{e.Conf, e.Old, e.New} {
		if conf != nil {
			lists = append(lists, conf.Voters, conf.Outgoing, conf.Learners, conf.Next)
		}
	}
	for _, list := range lists {
		for i := range list {
			list[i] = identity(list[i])
		}
		slices.Sort(list) // as those who know the names do
	}
}

func identity(name string) string {
	if at := strings.LastIndexByte(name, '#'); at >= 0 {
		return name[at:]
	}
	return name
}
