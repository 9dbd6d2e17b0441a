// Command raftnode runs one node of the reference key-value store.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"capsize/raftnode/server"
)

func main() {
	config, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(64) // parse has said why
	}
	if err := run(config); err != nil {
		fmt.Fprintf(os.Stderr, "raftnode %s: %v\n", config.Name, err)
		os.Exit(1)
	}
}

// parse reads the command line. It tells the user what is wrong with it.
func parse(args []string, out io.Writer) (server.Config, error) {
	var c server.Config
	flags := flag.NewFlagSet("raftnode", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&c.Name, "name", "", "this node's `name`")
	peers := flags.String("peers", "", "the members with which a new cluster begins, this one too, the same list on each: n1=`host:port`,n2=host:port")
	flags.StringVar(&c.Join, "join", "", "instead of --peers, `host:port` at which any member serves clients: this node joins its cluster, to which it was added before")
	dial := flags.String("dial", "", "addresses at which this node reaches members in place of those that they give: n2=`host:port`")
	flags.StringVar(&c.ListenPeer, "listen-peer", "", "`host:port` on which peers reach this node")
	flags.StringVar(&c.ListenClient, "listen-client", "", "`host:port` on which clients reach this node")
	flags.StringVar(&c.DataDir, "data", "", "`directory` of the log and the snapshots; created if missing")
	flags.StringVar(&c.TraceFile, "trace", "", "`file` to which protocol events are appended; none if empty")
	flags.DurationVar(&c.Tick, "tick", 25*time.Millisecond, "length of a tick")
	flags.IntVar(&c.ElectionTicks, "election-ticks", 20, "ticks without a leader before an election, at least; the real `number` is drawn from that to twice that")
	flags.IntVar(&c.HeartbeatTicks, "heartbeat-ticks", 2, "`number` of ticks between heartbeats")
	flags.Uint64Var(&c.SnapshotEntries, "snapshot-entries", 0, "`number` of log entries after which a snapshot is taken; 0: 100000")
	flags.Uint64Var(&c.SnapshotBytes, "snapshot-bytes", 0, "`bytes` of log entries after which a snapshot is taken; 0: 64 MiB")
	flags.Uint64Var(&c.KeepEntries, "keep-entries", 0, "`number` of log entries behind a snapshot that stay in the log; 0: 10000")
	flags.Int64Var(&c.SnapshotRate, "snapshot-rate", 0, "`bytes` a second that the stream of a snapshot may take; 0: no bound")
	flags.Uint64Var(&c.Seed, "seed", 0, "`seed` of the election time-outs")
	flags.StringVar(&c.Cluster, "cluster-id", "capsize", "`id` that all members share; data and peers of another cluster are refused")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	c.Logf = log.New(os.Stderr, "", log.LstdFlags|log.Lmicroseconds).Printf
	err := func() (err error) {
		if flags.NArg() > 0 {
			return fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		if c.Peers, err = server.ParsePeers(*peers); err != nil {
			return err
		}
		if c.Dial, err = server.ParsePeers(*dial); err != nil {
			return err
		}
		return c.Validate()
	}()
	if err != nil {
		fmt.Fprintf(out, "raftnode: %v\nraftnode --help lists all flags\n", err)
	}
	return c, err
}

// ballastBytes are allocated and never used: they make the collector leave more room between two collections: a busy node with
// little data would collect several times a second, which its slowest requests notice. They
// are never written to, so they cost addresses and no memory.
const ballastBytes = 64 << 20

func run(config server.Config) error {
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	node, err := server.Start(config)
	if err != nil {
		return err
	}
	fmt.Printf("raftnode %s %s\n", config.Name, node.Describe())
	return node.Run(ctx)
}
