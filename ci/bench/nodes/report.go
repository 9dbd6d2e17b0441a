package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that a run found.
type report struct {
	options options
	etcd    string        // its version
	sync    time.Duration // of the disk
	load    string        // of the machine, at the end
	idle    []idleness
	results []result
}

// comparison is ours beside etcd's better variant with one number of clients.
type comparison struct {
	better          series
	throughput, p99 spread // ours divided by theirs
}

// compare takes the number of connections with which etcd has the greater throughput.
func (r result) compare() comparison {
	c := comparison{better: r.theirs[0]}
	for _, s := range r.theirs[1:] {
		if s.spread(measurement.perSecond).median > c.better.spread(measurement.perSecond).median {
			c.better = s
		}
	}
	c.throughput = ratios(r.ours.values(measurement.perSecond), c.better.values(measurement.perSecond))
	c.p99 = ratios(r.ours.values(p99), c.better.values(p99))
	return c
}

// verdict says whether the comparison is what the project promises, and whether every
// round says the same.
func (c comparison) verdict() string {
	throughput, latency := "less throughput than etcd", "a higher p99 than etcd"
	if c.throughput.median >= 1 {
		throughput = "at least etcd's throughput"
	}
	if c.p99.median <= 1 {
		latency = "at most etcd's p99"
	}
	return throughput + c.throughput.doubt() + ", " + latency + c.p99.doubt()
}

// doubt is what to add to a statement on a ratio that does not hold in every round.
func (s spread) doubt() string {
	if s.least < 1 && s.most > 1 {
		return " (not in every round)"
	}
	return ""
}

func p50(m measurement) float64       { return float64(m.p50) / float64(time.Millisecond) }
func p99(m measurement) float64       { return float64(m.p99) / float64(time.Millisecond) }
func serverCPU(m measurement) float64 { return m.perPut(m.serverCPU) }
func clientCPU(m measurement) float64 { return m.perPut(m.clientCPU) }

func (s series) values(of func(measurement) float64) []float64 {
	var values []float64
	for _, m := range s.rounds {
		values = append(values, of(m))
	}
	return values
}

func (s series) spread(of func(measurement) float64) spread { return spreadOf(s.values(of)) }

func writeReport(out io.Writer, r report) error {
	var b strings.Builder
	r.writeRatios(&b)
	r.writeNumbers(&b)
	r.writeIdle(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

func (r report) writeRatios(b *strings.Builder) {
	o := r.options
	trace, to := "off", "the leader"
	if o.trace {
		trace = "on"
	}
	if o.spread {
		to = "all nodes in turn"
	}
	fmt.Fprintf(b, "raftnode (trace %s) beside etcd %s: three local processes each, fsync, values of %d bytes, clients talk to %s\n",
		trace, r.etcd, o.valueBytes, to)
	fmt.Fprintf(b, "median of %d rounds of %s (least–most); a write with fsync takes this disk %s; load average %s\n\n",
		o.rounds, o.window, r.sync.Round(time.Microsecond), r.load)
	table := newTable(b)
	fmt.Fprintln(table, "clients\tthroughput ÷ etcd's\tp99 ÷ etcd's\t")
	for _, result := range r.results {
		c := result.compare()
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", result.clients, c.throughput.format("%.2f"), c.p99.format("%.2f"), c.verdict())
	}
	flush(table)
}

func (r report) writeNumbers(b *strings.Builder) {
	b.WriteString("\n")
	table := newTable(b)
	fmt.Fprintln(table, "clients\tsystem\tputs/s\tp50 ms\tp99 ms\tservers' CPU µs/put\tclients' CPU µs/put")
	for _, result := range r.results {
		better := result.compare().better.variant
		for _, s := range append(result.theirs, result.ours) {
			name := s.variant.String()
			if s.variant == better && len(result.theirs) > 1 {
				name += " (compared)"
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", result.clients, name,
				s.spread(measurement.perSecond).format("%.0f"), s.spread(p50).format("%.2f"), s.spread(p99).format("%.2f"),
				s.spread(serverCPU).format("%.0f"), s.spread(clientCPU).format("%.0f"))
		}
	}
	flush(table)
	for _, result := range r.results {
		if result.again > 0 {
			fmt.Fprintf(b, "%d clients: measured %d times again, because the leader changed\n", result.clients, result.again)
		}
	}
}

func (r report) writeIdle(b *strings.Builder) {
	fmt.Fprintf(b, "\nidle for %s after the start:\n", r.options.idle)
	table := newTable(b)
	fmt.Fprintln(table, "system\tlargest node MiB resident\tof it anonymous\t% of a core")
	for _, i := range r.idle {
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\n", i.system,
			float64(i.memory.residentBytes)/(1<<20), float64(i.memory.anonymousBytes)/(1<<20), i.cpu*100)
	}
	flush(table)
}

// format is "median (least–most)".
func (s spread) format(verb string) string {
	return fmt.Sprintf(verb+" ("+verb+"–"+verb+")", s.median, s.least, s.most)
}

func newTable(b *strings.Builder) *tabwriter.Writer { return tabwriter.NewWriter(b, 0, 0, 2, ' ', 0) }

func flush(table *tabwriter.Writer) {
	if err := table.Flush(); err != nil {
		panic(err) // a strings.Builder takes everything
	}
}
