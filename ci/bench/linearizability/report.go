package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// bench is what was measured.
type bench struct {
	dir      string // for histories
	rows     []row
	register *answer // of Porcupine, once it was asked
}

// row is one promise: what was measured of ours and of Porcupine, and whether it is kept.
type row struct {
	what, ours, porcupine, ratio, promise string
	kept                                  bool
}

func (b *bench) add(r row) {
	fmt.Printf("   %s: %s; Porcupine %s; ratio %s; promised %s: %s\n", r.what, r.ours, r.porcupine, r.ratio, r.promise, r.word())
	b.rows = append(b.rows, r)
}

func (r *row) word() string {
	if r.kept {
		return "kept"
	}
	return "MISSED"
}

// report prints the table and reports whether all promises were kept.
func (b *bench) report() bool {
	kept := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...any) { _, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", cells...) } // told at Flush
	row("what", "ours", "Porcupine", "ratio", "promised", "")
	for _, r := range b.rows {
		row(r.what, r.ours, r.porcupine, r.ratio, r.promise, r.word())
		kept = kept && r.kept
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "print the table:", err)
		return false
	}
	return kept
}

const nothing = "–" // Porcupine has no such thing

func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func mib(bytes uint64) string { return fmt.Sprintf("%d MiB", bytes>>20) }

// told says what became of a question to Porcupine.
func told(a answer) string {
	if a.Unfinished != "" {
		return fmt.Sprintf("%d operations not finished in %s", a.Operations, a.Unfinished)
	}
	return fmt.Sprintf("%d operations %s in %s, %s", a.Operations, a.Verdict, took(a.Took), mib(a.Peak))
}

// faster says how many times faster ours is, an operation; at least, where Porcupine did not
// finish.
func faster(ours, porcupine answer) string {
	ratio := fmt.Sprintf("%.0f", porcupine.each()/ours.each())
	if porcupine.Unfinished != "" {
		return "> " + ratio
	}
	return ratio
}
