package agent

import (
	"testing"
	"time"
)

// A program that starts others is in vfork(2) now and then, and cannot be stopped there.
func TestAProcessThatForksAllTheTimeIsStopped(t *testing.T) {
	s := newSession(t)
	s.hello(func(h *Hello) { h.Lease = time.Minute })
	s.start(s.process("/bin/sh", "-c", "while :; do /bin/true; done"))
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		for _, signal := range []string{"stop", "cont"} {
			if reply := s.signal(signal); reply.Error != "" {
				t.Fatalf("round %d: %s", i, reply.Error)
			}
		}
	}
}
