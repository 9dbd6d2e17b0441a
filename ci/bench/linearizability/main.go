// Linearizability measures what the checkers promise, on one processor, beside Porcupine in the
// same run where that can do the same, and ends with status 1 if a promise is broken.
//
//	go run ./ci/bench/linearizability                       # under two minutes; 2.2 GiB of disk
//	go run ./ci/bench/linearizability -only live,any-model  # some of the lines
//
// Histories are drawn from a seed. Times are of the wall clock, the least of three where that is
// cheap, so run it on a quiet machine; memory is the peak of what a process of its own held,
// history and runtime included. Ratios are of the time an operation takes. Porcupine has 10
// seconds and 6 GiB for each question: where it does not finish, that is told, and a ratio is at
// least what is said.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	only := flag.String("only", "", "lines to measure, with commas between: "+strings.Join(names(), ", ")+"; empty: all")
	dir := flag.String("dir", os.TempDir(), "where the histories are written, in a directory that is removed")
	child := flag.String("child", "", "for the program itself: the task of this process")
	flag.Parse()
	if *child != "" {
		work(*child, flag.Args())
		return
	}
	wanted := names()
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) || flag.NArg() > 0 {
			fmt.Fprintf(os.Stderr, "linearizability: want no arguments, and lines among %s\n", strings.Join(names(), ", "))
			os.Exit(64)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kept, err := run(ctx, wanted, *dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "linearizability:", err)
	}
	if err != nil || !kept {
		stop()
		os.Exit(1)
	}
}

// run measures lines and reports whether all promises were kept.
func run(ctx context.Context, wanted []string, dir string) (kept bool, err error) {
	b := &bench{}
	if b.dir, err = os.MkdirTemp(dir, "capsize-bench-"); err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(b.dir) }() // it is a temporary one
	for _, line := range lines {
		if !slices.Contains(wanted, line.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", line.name, line.about)
		if err := line.measure(ctx, b); err != nil {
			return false, fmt.Errorf("measure %s: %w", line.name, err)
		}
		fmt.Println()
	}
	return b.report(), nil
}
