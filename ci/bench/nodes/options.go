package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options say what is measured.
type options struct {
	rounds      int
	window      time.Duration // of one measurement
	warmup      time.Duration // before it, under the same load
	idle        time.Duration // between start and the look at an idle node
	clients     []int         // one measurement each
	connections []int         // gRPC connections that etcd's clients share; each is tried
	valueBytes  int
	spread      bool // clients talk to all nodes in turn, else to the leader
	trace       bool // our nodes write their protocol trace
	dir         string
	etcd        string // path of the program; empty: built here
	raftnode    string // path of the program; empty: built here
}

// mostValueBytes is what our node's store takes.
const mostValueBytes = 64 << 10

// parse reads the command line. It tells the user what is wrong with it.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("nodes", flag.ContinueOnError)
	flags.SetOutput(out)
	quick := flags.Bool("quick", false, "short measurements, for a first look; what other flags say still holds")
	flags.IntVar(&o.rounds, "rounds", 5, "`number` of rounds, each of which measures everything once")
	flags.DurationVar(&o.window, "window", 2500*time.Millisecond, "`duration` of one measurement")
	flags.DurationVar(&o.warmup, "warmup", 400*time.Millisecond, "`duration` of the same load before it, not counted")
	flags.DurationVar(&o.idle, "idle", 8*time.Second, "`duration` for which fresh nodes are left alone before their memory is looked at")
	clients := flags.String("clients", "1,16,64,256", "`numbers` of clients; each sends its next put when the last is answered")
	connections := flags.String("etcd-connections", "1,8", "`numbers` of gRPC connections for etcd's clients to share; the one that serves etcd best is compared")
	flags.IntVar(&o.valueBytes, "value-bytes", 16, "`size` of a value")
	to := flags.String("to", "leader", "where clients send puts: `leader or all` nodes in turn")
	flags.BoolVar(&o.trace, "trace", false, "let our nodes write their protocol trace")
	flags.StringVar(&o.dir, "dir", os.TempDir(), "`directory` on the disk to use; everything in it is removed again")
	flags.StringVar(&o.etcd, "etcd", "", "etcd `program`; built in the version of go.mod if empty")
	flags.StringVar(&o.raftnode, "raftnode", "", "raftnode `program`; built from this tree if empty")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.hurry(flags)
	}
	o.spread = *to == "all"
	err := func() (err error) {
		if flags.NArg() > 0 {
			return fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		if *to != "all" && *to != "leader" {
			return fmt.Errorf("-to %q: want leader or all", *to)
		}
		if o.clients, err = numbers(*clients, 4096); err != nil {
			return fmt.Errorf("-clients: %w", err)
		}
		if o.connections, err = numbers(*connections, 256); err != nil {
			return fmt.Errorf("-etcd-connections: %w", err)
		}
		return o.validate()
	}()
	if err != nil {
		fmt.Fprintf(out, "nodes: %v\nnodes -help lists all flags\n", err)
	}
	return o, err
}

// hurry shortens what the command line does not fix.
func (o *options) hurry(flags *flag.FlagSet) {
	fixed := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { fixed[f.Name] = true })
	if !fixed["rounds"] {
		o.rounds = 3
	}
	if !fixed["window"] {
		o.window = 500 * time.Millisecond
	}
	if !fixed["warmup"] {
		o.warmup = 150 * time.Millisecond
	}
	if !fixed["idle"] {
		o.idle = 2 * time.Second
	}
}

func (o *options) validate() error {
	switch {
	case o.rounds < 1 || o.rounds > 100:
		return fmt.Errorf("-rounds %d: want 1 to 100", o.rounds)
	case o.window < 100*time.Millisecond || o.window > time.Minute:
		return fmt.Errorf("-window %s: want 100ms to 1m", o.window)
	case o.warmup < 0 || o.warmup > time.Minute:
		return fmt.Errorf("-warmup %s: want 0s to 1m", o.warmup)
	case o.idle < 0 || o.idle > 5*time.Minute:
		return fmt.Errorf("-idle %s: want 0s to 5m", o.idle)
	case o.valueBytes < 1 || o.valueBytes > mostValueBytes:
		return fmt.Errorf("-value-bytes %d: want 1 to %d, which our node takes", o.valueBytes, mostValueBytes)
	}
	return nil
}

// numbers reads a list such as 1,16,64; each is 1 to most, and none stands in it twice.
func numbers(list string, most int) ([]int, error) {
	var all []int
	for item := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("%q: want numbers from 1 to %d, such as 1,8", item, most)
		}
		if slices.Contains(all, n) {
			return nil, errors.New(strconv.Itoa(n) + " is listed twice")
		}
		all = append(all, n)
	}
	return all, nil
}
