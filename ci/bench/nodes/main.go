// Command nodes measures the reference node beside etcd: three local processes of each,
// both with fsync on the same disk, the same puts from the same number of clients, in turns
// within one run, so that whatever else the machine does meets both alike.
//
//	go -C ci/bench/nodes run .          # under four minutes
//	go -C ci/bench/nodes run . -quick   # a first look, under 40 seconds
//
// when Go has built etcd once, which takes it a minute.
//
// It prints throughput, p50 and p99 of both with the CPU time that a put cost the servers
// and the clients, and the ratios between the two. Ratios are formed within a round, where
// the two measurements lie seconds apart, and the median over the rounds is the result:
// absolute numbers of a shared machine say little.
//
// Nothing here fails because it is slow. Linux only: it reads /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	// Servers are killed when the thread that started them ends (see start). The main thread
	// ends with the program.
	runtime.LockOSThread()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(64) // parse has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o, os.Stdout, os.Stderr)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // and not everything that failed because of it
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// limit is how long a whole run may take, the building of both programs included.
const limit = 10 * time.Minute

// run measures and writes the result to out; what happens meanwhile goes to progress.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	dir, err := os.MkdirTemp(o.dir, "capsize-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the nodes: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sync, err := probeDisk(dir)
	if err != nil {
		return err
	}
	if err := build(ctx, &o, dir, progress); err != nil {
		return err
	}

	systems := []system{etcd{o.etcd}, raftnode{o.raftnode, o.trace}}
	clusters := make([]*cluster, 0, len(systems))
	defer func() {
		for _, c := range clusters {
			c.stop()
		}
	}()
	for _, s := range systems {
		c, err := startCluster(ctx, s, filepath.Join(dir, s.name()))
		if err != nil {
			return err
		}
		clusters = append(clusters, c)
	}
	idle, err := measureIdle(ctx, clusters, o.idle)
	if err != nil {
		return err
	}
	results, err := measureLoad(ctx, o, clusters[0], clusters[1], progress)
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, o.etcd, "--version").Output()
	if err != nil {
		return fmt.Errorf("ask etcd for its version: %w", err)
	}
	name, _, _ := strings.Cut(string(version), "\n")
	return writeReport(out, report{
		options: o, etcd: strings.TrimSpace(strings.TrimPrefix(name, "etcd Version:")),
		sync: sync, load: loadAverage(), idle: idle, results: results,
	})
}

// build makes the programs that o does not name, in dir.
func build(ctx context.Context, o *options, dir string, progress io.Writer) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find this module: %w", err)
	}
	here := filepath.Dir(strings.TrimSpace(string(mod)))
	for _, p := range []struct {
		path    *string
		name    string
		in, pkg string
	}{
		{&o.etcd, "etcd", here, "go.etcd.io/etcd/server/v3"},
		{&o.raftnode, "raftnode", filepath.Join(here, "../../.."), "capsize/cmd/raftnode"},
	} {
		if *p.path != "" {
			continue
		}
		*p.path = filepath.Join(dir, p.name+".bin")
		fmt.Fprintf(progress, "building %s\n", p.pkg)
		compile := exec.CommandContext(ctx, "go", "build", "-o", *p.path, p.pkg)
		compile.Dir = p.in
		if text, err := compile.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s in %s (run this with go -C ci/bench/nodes run .): %w\n%s", p.pkg, p.in, err, text)
		}
	}
	return nil
}
