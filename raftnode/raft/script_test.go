package raft

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts plays the scenarios in testdata: each command and what must come of it. With
// -rewrite they are written anew, to be read again from top to bottom.
//
//	cluster N [prevote] [checkquorum] [window=N] [message-size=N] [backlog=N]
//	node ID voters=(…) [log=(term, …)] [term=N] [vote=ID] [commit=N]   adds one node
//	campaign ID, tick ID [n=N], timeout ID n=N, propose ID DATA, read ID CONTEXT, unreachable ID peer=ID
//	ready ID, persist ID, crash ID
//	deliver [to=ID] [from=ID] [type=NAME] [twice]    keeps copies to deliver again
//	drop [to=ID] [from=ID] [type=NAME]
//	stabilize [ID …] [quiet], log, status [ID]
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		l := &lab{t: t, nodes: make(map[uint64]*labNode)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			l.t = t
			l.log.Reset()
			l.command(d)
			if d.HasArg("quiet") {
				return "ok"
			}
			if l.log.Len() == 0 {
				return "ok"
			}
			return l.log.String()
		})
	})
}

func (l *lab) command(d *datadriven.TestData) {
	switch d.Cmd {
	case "cluster":
		size, err := strconv.Atoi(d.CmdArgs[0].Key)
		must(l.t, err)
		fresh := newLab(l.t, size, configure(l.t, d))
		l.ids, l.nodes, l.wire = fresh.ids, fresh.nodes, nil
	case "node":
		l.addScripted(d)
	case "stabilize":
		l.stabilize(idArgs(d)...)
	case "deliver":
		wanted := filter(l.t, d)
		if d.HasArg("twice") {
			for _, m := range l.wire {
				if wanted(m) {
					l.wire = append(l.wire, m)
				}
			}
		}
		l.deliver(wanted)
	case "drop":
		l.drop(filter(l.t, d))
	case "log":
		for _, id := range l.ids {
			l.printf("%d: %s", id, l.terms(id))
		}
	case "status":
		ids := idArgs(d)
		if len(ids) == 0 {
			ids = l.ids
		}
		for _, id := range ids {
			l.printStatus(id)
		}
	default:
		l.nodeCommand(d)
	}
}

// nodeCommand is one whose first argument is a node.
func (l *lab) nodeCommand(d *datadriven.TestData) {
	id, err := strconv.ParseUint(d.CmdArgs[0].Key, 10, 64)
	must(l.t, err)
	n := l.nodes[id]
	switch d.Cmd {
	case "campaign":
		l.report(n.Campaign())
	case "tick":
		l.tick(id, number(l.t, d, "n", 1))
	case "timeout":
		n.raft.electionTimeout = number(l.t, d, "n", 0)
	case "propose":
		l.report(n.Propose([]byte(d.CmdArgs[1].Key)))
	case "read":
		l.report(n.ReadIndex([]byte(d.CmdArgs[1].Key)))
	case "unreachable":
		n.ReportUnreachable(uint64(number(l.t, d, "peer", 0)))
	case "ready":
		l.ready(id)
	case "persist":
		l.persist(id)
	case "crash":
		l.start(id)
	default:
		d.Fatalf(l.t, "no such command: %s", d.Cmd)
	}
}

func (l *lab) report(err error) {
	if err != nil {
		l.printf("%v", err)
	}
}

func (l *lab) addScripted(d *datadriven.TestData) {
	id, err := strconv.ParseUint(d.CmdArgs[0].Key, 10, 64)
	must(l.t, err)
	c := labConfig(id, numbers(l.t, d, "voters"), configure(l.t, d))
	l.add(c, numbers(l.t, d, "log"), HardState{
		Term: uint64(number(l.t, d, "term", 0)), Vote: uint64(number(l.t, d, "vote", 0)), Commit: uint64(number(l.t, d, "commit", 0)),
	})
}

func (l *lab) printStatus(id uint64) {
	s := l.nodes[id].Status()
	l.printf("%d: %v term %d leader %s commit %d applied %d last %d", id, s.Role, s.Term, nodeName(s.Leader), s.Commit, s.Applied, s.LastIndex)
	for _, p := range s.Progress {
		line := fmt.Sprintf("   %d: %v match %d next %d", p.ID, p.State, p.Match, p.Next)
		if p.Paused {
			line += " paused"
		}
		l.printf("%s", line)
	}
}

func configure(t testing.TB, d *datadriven.TestData) func(*Config) {
	return func(c *Config) {
		c.PreVote, c.CheckQuorum = d.HasArg("prevote"), d.HasArg("checkquorum")
		c.MaxInflightMsgs = number(t, d, "window", c.MaxInflightMsgs)
		if d.HasArg("message-size") {
			c.MaxSizePerMsg = uint64(number(t, d, "message-size", 0))
		}
		c.MaxUncommittedEntriesSize = uint64(number(t, d, "backlog", 0))
	}
}

// filter selects messages as a command's arguments say.
func filter(t testing.TB, d *datadriven.TestData) func(Message) bool {
	to, from := uint64(number(t, d, "to", 0)), uint64(number(t, d, "from", 0))
	var kind string
	d.MaybeScanArgs(t, "type", &kind)
	return func(m Message) bool {
		return (to == 0 || m.To == to) && (from == 0 || m.From == from) && (kind == "" || m.Type.String() == kind)
	}
}

func number(t testing.TB, d *datadriven.TestData, key string, otherwise int) int {
	d.MaybeScanArgs(t, key, &otherwise)
	return otherwise
}

func numbers(t testing.TB, d *datadriven.TestData, key string) []uint64 {
	var list []uint64
	for _, arg := range d.CmdArgs {
		if arg.Key != key {
			continue
		}
		for _, v := range arg.Vals {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			must(t, err)
			list = append(list, n)
		}
	}
	return list
}

func idArgs(d *datadriven.TestData) []uint64 {
	var ids []uint64
	for _, arg := range d.CmdArgs {
		if id, err := strconv.ParseUint(arg.Key, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
