package harness

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress tells a person how the run goes: one line that is redrawn on a terminal,
// plain lines every few seconds elsewhere.
type progress struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex
	drawn bool // a redrawn line stands on the terminal
}

const (
	redrawEvery = 250 * time.Millisecond
	plainEvery  = 5 * time.Second
)

func (p *progress) every() time.Duration {
	if p.terminal {
		return redrawEvery
	}
	return plainEvery
}

// Say prints a line that stays.
func (p *progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// Show prints how things stand now.
func (p *progress) Show(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	if !p.terminal {
		fmt.Fprintln(p.out, line)
		return
	}
	fmt.Fprint(p.out, line)
	p.drawn = true
}

func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

// snapshot is how a run stands at a moment.
type snapshot struct {
	elapsed, limit time.Duration
	perSecond      float64
	ok, fail, info int64
	leader         string
	term           uint64
	faults         []string
}

func (s snapshot) String() string {
	leader := "no leader"
	if s.leader != "" {
		leader = fmt.Sprintf("leader %s, term %d", s.leader, s.term)
	}
	faults := "no fault"
	if len(s.faults) > 0 {
		faults = strings.Join(s.faults, ", ")
	}
	return fmt.Sprintf("%5.1fs of %.0fs  %5.0f ops/s  ok %d  fail %d  info %d  %s  %s",
		s.elapsed.Seconds(), s.limit.Seconds(), s.perSecond, s.ok, s.fail, s.info, leader, faults)
}
