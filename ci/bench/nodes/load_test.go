package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answerAfter is a put that takes so long.
func answerAfter(d time.Duration) put {
	return func(ctx context.Context, _, _ string) error {
		return waitUntil(ctx, time.Now().Add(d))
	}
}

func TestOnlyWhatIsAnsweredInTheWindowCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 30 ms a put: answers at 30, 60 … 120 | 150 … 270 | 300. The window has five of them.
		begin := time.Now().Add(130 * time.Millisecond)
		puts := []put{answerAfter(30 * time.Millisecond), answerAfter(30 * time.Millisecond)}
		d := newDrive(t.Context(), puts, 4, begin, begin.Add(150*time.Millisecond))
		latencies, err := d.wait()
		if err != nil {
			t.Fatal(err)
		}
		if want := slices.Repeat([]time.Duration{30 * time.Millisecond}, 10); !slices.Equal(latencies, want) {
			t.Errorf("got %v, want ten of 30ms", latencies)
		}
	})
}

func TestAPutThatFailsStopsItsClientAndIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused, calls := errors.New("refused"), 0
		failing := func(context.Context, string, string) error { calls++; return refused }
		d := newDrive(t.Context(), []put{answerAfter(time.Millisecond), failing}, 4, time.Now(), time.Now().Add(time.Second))
		if _, err := d.wait(); !errors.Is(err, refused) {
			t.Errorf("got %v, want %v", err, refused)
		}
		if calls != 1 {
			t.Errorf("put %d times after the refusal", calls-1)
		}
	})
}

func TestAPutThatIsNeverAnsweredEndsTheDrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := newDrive(t.Context(), []put{answerAfter(time.Hour)}, 4, began, began.Add(time.Second))
		if _, err := d.wait(); err == nil || !strings.Contains(err.Error(), "not answered") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Second+stallTimeout {
			t.Errorf("after %s", took)
		}
	})
}

// scripted is a system whose leaders are written down: one for each time it is looked for.
type scripted struct {
	leaders  []int
	put      put
	looks    *int // at leaders
	connects *[]string
}

func (scripted) name() string                           { return "scripted" }
func (scripted) command([]member, int, string) []string { return nil }

func (s scripted) leads(_ context.Context, address string) (bool, error) {
	leader := s.leaders[min(*s.looks, len(s.leaders)-1)]
	if address != fmt.Sprintf("n%d", leader+1) {
		return false, nil
	}
	*s.looks++
	return true, nil
}

func (s scripted) connect(_ context.Context, addresses []string, clients, connections int) ([]put, func(), error) {
	*s.connects = append(*s.connects, fmt.Sprintf("%s by %d over %d", strings.Join(addresses, "+"), clients, connections))
	return slices.Repeat([]put{s.put}, clients), func() {}, nil
}

func newScripted(p put, leaders ...int) (variant, scripted) {
	s := scripted{leaders: leaders, put: p, looks: new(int), connects: new([]string)}
	c := &cluster{system: s}
	for i := range nodes {
		name := fmt.Sprintf("n%d", i+1)
		c.members = append(c.members, member{name: name, client: name})
	}
	return variant{cluster: c, connections: 1}, s
}

var short = options{rounds: 2, window: time.Second, warmup: 100 * time.Millisecond, valueBytes: 4, clients: []int{1, 3}, connections: []int{2, 1}}

func TestAMeasurementUnderOneLeaderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newScripted(answerAfter(30*time.Millisecond), 1)
		m, again, err := v.settled(t.Context(), short, 2)
		if err != nil || again != 0 || m.puts != 2*33 || m.p50 != 30*time.Millisecond || m.p99 != m.p50 {
			t.Errorf("got %+v, again %d, %v", m, again, err)
		}
		if want := []string{"n2 by 2 over 1"}; !slices.Equal(*s.connects, want) {
			t.Errorf("connected %q, want %q", *s.connects, want)
		}
	})
}

func TestClientsMayBeSpreadOverAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newScripted(answerAfter(time.Millisecond), 1)
		o := short
		o.spread = true
		if _, _, err := v.settled(t.Context(), o, 6); err != nil {
			t.Fatal(err)
		}
		if want := []string{"n1+n2+n3 by 6 over 1"}; !slices.Equal(*s.connects, want) {
			t.Errorf("connected %q, want %q", *s.connects, want)
		}
	})
}

func TestAMeasurementInWhichTheLeaderChangesIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := newScripted(answerAfter(time.Millisecond), 0, 1, 1, 1)
		if _, again, err := v.settled(t.Context(), short, 1); err != nil || again != 1 {
			t.Errorf("made again %d times, %v, want once", again, err)
		}
		v, s := newScripted(answerAfter(time.Millisecond), 0, 1, 0, 1, 0, 1, 0, 1, 0, 1)
		if _, _, err := v.settled(t.Context(), short, 1); err == nil || !strings.Contains(err.Error(), "leader changed") {
			t.Errorf("got %v", err)
		}
		if len(*s.connects) != 1+mostAgain {
			t.Errorf("measured %d times, want %d", len(*s.connects), 1+mostAgain)
		}
	})
}

func TestAPutThatFailsUnderOneLeaderIsAnErrorAndUnderTwoIsNone(t *testing.T) {
	refused := errors.New("refused")
	synctest.Test(t, func(t *testing.T) {
		v, _ := newScripted(func(context.Context, string, string) error { return refused }, 0)
		if _, _, err := v.settled(t.Context(), short, 1); !errors.Is(err, refused) {
			t.Errorf("got %v, want %v", err, refused)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var calls int
		v, _ := newScripted(func(ctx context.Context, _, _ string) error {
			if calls++; calls == 1 {
				return refused
			}
			return waitUntil(ctx, time.Now().Add(time.Millisecond))
		}, 0, 2, 2, 2)
		if _, again, err := v.settled(t.Context(), short, 1); err != nil || again != 1 {
			t.Errorf("made again %d times, %v, want once", again, err)
		}
	})
}

func TestSystemsTakeTurnsInGoingFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, _ := newScripted(answerAfter(20*time.Millisecond), 0)
		ours, _ := newScripted(answerAfter(10*time.Millisecond), 0)
		results, err := measureLoad(t.Context(), short, theirs.cluster, ours.cluster, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 2 || len(results[0].theirs) != 1 || len(results[1].theirs) != 2 {
			t.Fatalf("one client shares one connection, three may share one or two: got %+v", results)
		}
		for _, r := range results {
			if len(r.ours.rounds) != 2 || len(r.theirs[0].rounds) != 2 {
				t.Errorf("%d clients: not two rounds each: %+v", r.clients, r)
			}
			if first := r.turn(0)[0]; first != &r.theirs[0] {
				t.Error("ours is first in the first round")
			}
			if first := r.turn(1)[0]; first != &r.ours {
				t.Error("ours is not first in the second round")
			}
			if got := r.compare().throughput.median; got < 1.9 || got > 2.1 {
				t.Errorf("%d clients: half the time is %.2f of the throughput, want about 2", r.clients, got)
			}
		}
	})
}

func TestValuesHaveTheirLength(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 1))
	for _, length := range []int{1, 16, mostValueBytes} {
		value := text(source, length)
		if len(value) != length || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("%d letters: %d bytes, %.40q", length, len(value), value)
		}
	}
}
