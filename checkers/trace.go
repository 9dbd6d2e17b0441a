package checkers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A trace is JSON lines, one per protocol event, each with its name in "ev". Of a long
// run it is hundreds of megabytes, with a few leaders in it: a line is decoded only
// if its bytes say that it is one.

// leaderEvent is a line with "ev":"leader": a node became leader of a term.
type leaderEvent struct {
	Name string `json:"ev"`
	Term uint64 `json:"t"`
	Node string `json:"node"`
}

var (
	leaderWord = []byte(`"leader"`)
	nameField  = []byte(`"ev"`)
	colon      = []byte(":")
)

const (
	traceLineMost = 1 << 20 // bytes of a line that is decoded; others may be of any length
	askEvery      = 1 << 14 // lines between two looks at the context
)

// readLeaderEvents calls yield with the events that say so, and their line numbers. A
// last line that is cut off is tolerated: the node was killed as it wrote.
func readLeaderEvents(ctx context.Context, path string, yield func(line int, event leaderEvent)) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read trace: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	return scanLeaderEvents(ctx, path, file, yield)
}

func scanLeaderEvents(ctx context.Context, path string, r io.Reader, yield func(line int, event leaderEvent)) error {
	lines := bufio.NewReaderSize(r, traceLineMost)
	var bad error // of the line before: an error only if another follows
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n') // the beginning was looked at; the rest is skipped
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read trace %s:%d: %w", path, number, err)
		case bad != nil:
			return bad
		case number%askEvery == 0 && ctx.Err() != nil:
			return fmt.Errorf("read trace %s: %w", path, context.Cause(ctx))
		case long || !namesLeader(line):
			continue
		}
		var event leaderEvent
		if err := json.Unmarshal(line, &event); err != nil {
			bad = fmt.Errorf("trace %s:%d is corrupt: %w", path, number, err)
		} else if event.Name == "leader" {
			yield(number, event)
		}
	}
}

// namesLeader reports whether a line has "ev":"leader", perhaps with spaces. Lines with
// "role":"leader" are many.
func namesLeader(line []byte) bool {
	for {
		i := bytes.Index(line, leaderWord)
		if i < 0 {
			return false
		}
		before := bytes.TrimRight(line[:i], " ")
		if name, ok := bytes.CutSuffix(before, colon); ok && bytes.HasSuffix(bytes.TrimRight(name, " "), nameField) {
			return true
		}
		line = line[i+len(leaderWord):]
	}
}
