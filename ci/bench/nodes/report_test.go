package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// measured is a series of one round a throughput, in puts a second, each with a p99 in ms.
func measured(connections int, p99 time.Duration, perSecond ...int) series {
	s := series{variant: variant{&cluster{system: etcd{}}, connections}}
	if connections == 0 {
		s.variant.cluster = &cluster{system: raftnode{}}
	}
	for _, n := range perSecond {
		s.rounds = append(s.rounds, measurement{
			puts: n, window: time.Second, p50: time.Millisecond, p99: p99 * time.Millisecond,
			serverCPU: time.Second / 2, clientCPU: time.Second / 4,
		})
	}
	return s
}

func TestOursIsComparedWithTheVariantThatServesEtcdBest(t *testing.T) {
	r := result{clients: 64, theirs: []series{measured(1, 10, 1000, 1000), measured(8, 20, 2000, 2000)}, ours: measured(0, 10, 3000, 1000)}
	c := r.compare()
	if c.better.variant.connections != 8 {
		t.Errorf("compared with %s", c.better.variant)
	}
	if want := (spread{1, 0.5, 1.5}); c.throughput != want {
		t.Errorf("throughput %v, want %v", c.throughput, want)
	}
	if want := (spread{0.5, 0.5, 0.5}); c.p99 != want {
		t.Errorf("p99 %v, want %v", c.p99, want)
	}
}

func TestAVerdictSaysWhatHoldsAndWhetherItAlwaysDoes(t *testing.T) {
	for _, c := range []struct {
		throughput, p99 spread
		want            string
	}{
		{spread{1, 1, 1}, spread{1, 1, 1}, "at least etcd's throughput, at most etcd's p99"},
		{spread{1.2, 1.1, 1.3}, spread{1.1, 1.05, 1.2}, "at least etcd's throughput, a higher p99 than etcd"},
		{spread{0.9, 0.8, 0.95}, spread{0.9, 0.8, 0.95}, "less throughput than etcd, at most etcd's p99"},
		{spread{1.01, 0.9, 1.1}, spread{1.01, 0.9, 1.1}, "at least etcd's throughput (not in every round), a higher p99 than etcd (not in every round)"},
	} {
		if got := (comparison{throughput: c.throughput, p99: c.p99}).verdict(); got != c.want {
			t.Errorf("%v %v: %q, want %q", c.throughput, c.p99, got, c.want)
		}
	}
}

func TestTheReportBeginsWithTheAnswer(t *testing.T) {
	o := short
	o.trace, o.idle = true, 3*time.Second
	var out bytes.Buffer
	err := writeReport(&out, report{
		options: o, etcd: "3.7.3", sync: 212345 * time.Nanosecond, load: "1.0 2.0 3.0",
		idle:    []idleness{{"etcd", memory{32 << 20, 8 << 20}, 0.015}, {"raftnode", memory{9 << 20, 2 << 20}, 0.008}},
		results: []result{{clients: 16, theirs: []series{measured(1, 20, 1000, 1100), measured(8, 10, 900, 900)}, ours: measured(0, 10, 1500, 1100), again: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `raftnode (trace on) beside etcd 3.7.3: three local processes each, fsync, values of 4 bytes, clients talk to the leader
median of 2 rounds of 1s (least–most); a write with fsync takes this disk 212µs; load average 1.0 2.0 3.0

clients  throughput ÷ etcd's  p99 ÷ etcd's      
16       1.25 (1.00–1.50)     0.50 (0.50–0.50)  at least etcd's throughput, at most etcd's p99

clients  system                         puts/s            p50 ms            p99 ms               servers' CPU µs/put  clients' CPU µs/put
16       etcd, 1 connection (compared)  1050 (1000–1100)  1.00 (1.00–1.00)  20.00 (20.00–20.00)  477 (455–500)        239 (227–250)
16       etcd, 8 connections            900 (900–900)     1.00 (1.00–1.00)  10.00 (10.00–10.00)  556 (556–556)        278 (278–278)
16       raftnode                       1300 (1100–1500)  1.00 (1.00–1.00)  10.00 (10.00–10.00)  394 (333–455)        197 (167–227)
16 clients: measured 2 times again, because the leader changed

idle for 3s after the start:
system    largest node MiB resident  of it anonymous  % of a core
etcd      32.0                       8.0              1.5
raftnode  9.0                        2.0              0.8
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestARunWithoutElectionsSaysNothingOfThem(t *testing.T) {
	var out bytes.Buffer
	if err := writeReport(&out, report{options: short, results: []result{{clients: 1, theirs: []series{measured(1, 2, 500)}, ours: measured(0, 1, 700)}}}); err != nil {
		t.Fatal(err)
	}
	for _, unwanted := range []string{"again", "(compared)"} {
		if strings.Contains(out.String(), unwanted) {
			t.Errorf("%q in\n%s", unwanted, out.String())
		}
	}
}
