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
//	cluster N [OPTION …]; OPTION is prevote, checkquorum, stepdown, noforward, novalidate,
//	    window=N, window-bytes=N, message-size=N or backlog=N
//	node ID voters=(…) [learners=(…)] [log=(term, …)] [snapshot=(index, term)] [term=N] [vote=ID] [commit=N] [OPTION …]
//	campaign ID, tick ID [n=N], timeout ID n=N, propose ID DATA, read ID CONTEXT, unreachable ID peer=ID
//	change ID [v1 | auto | implicit | explicit] {add | learner | remove | update}=ID …, change ID leave
//	transfer ID to=ID, forget ID, compact ID index=N, snapshot-status ID peer=ID [failed]
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
	id := parseID(l.t, d.CmdArgs[0].Key)
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
	case "change":
		l.report(n.ProposeConfChange(change(l.t, d)))
	case "transfer":
		n.TransferLeader(uint64(number(l.t, d, "to", 0)))
	case "forget":
		l.report(n.ForgetLeader())
	case "compact":
		l.compact(n, uint64(number(l.t, d, "index", 0)))
	case "snapshot-status":
		status := SnapshotFinish
		if d.HasArg("failed") {
			status = SnapshotFailure
		}
		n.ReportSnapshot(uint64(number(l.t, d, "peer", 0)), status)
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

// change is the change of membership that a command describes.
func change(t testing.TB, d *datadriven.TestData) ConfChangeI {
	types := map[string]ConfChangeType{
		"add": ConfChangeAddNode, "learner": ConfChangeAddLearnerNode, "remove": ConfChangeRemoveNode, "update": ConfChangeUpdateNode,
	}
	var v2 ConfChangeV2
	for _, arg := range d.CmdArgs[1:] {
		kind, changes := types[arg.Key]
		switch {
		case changes:
			for _, v := range arg.Vals {
				v2.Changes = append(v2.Changes, ConfChangeSingle{Type: kind, NodeID: parseID(t, v)})
			}
		case arg.Key == "implicit":
			v2.Transition = TransitionJointImplicit
		case arg.Key == "explicit":
			v2.Transition = TransitionJointExplicit
		}
	}
	if d.HasArg("v1") {
		return ConfChange{Type: v2.Changes[0].Type, NodeID: v2.Changes[0].NodeID}
	}
	return v2
}

// compact makes a node take a snapshot at index and drop its log up to there.
func (l *lab) compact(n *labNode, index uint64) {
	_, err := n.storage.CreateSnapshot(index, n.raft.members.State(), nil)
	must(l.t, err)
	must(l.t, n.storage.Compact(index))
}

func (l *lab) report(err error) {
	if err != nil {
		l.printf("%v", err)
	}
}

func (l *lab) addScripted(d *datadriven.TestData) {
	id := parseID(l.t, d.CmdArgs[0].Key)
	c := labConfig(id, numbers(l.t, d, "voters"), configure(l.t, d))
	c.Learners = numbers(l.t, d, "learners")
	if s := numbers(l.t, d, "snapshot"); len(s) == 2 {
		c.Snapshot = &Snapshot{Metadata: SnapshotMetadata{
			Index: s[0], Term: s[1], ConfState: ConfState{Voters: c.Voters, Learners: c.Learners},
		}}
	}
	l.add(c, numbers(l.t, d, "log"), HardState{
		Term: uint64(number(l.t, d, "term", 0)), Vote: uint64(number(l.t, d, "vote", 0)), Commit: uint64(number(l.t, d, "commit", 0)),
	})
}

func (l *lab) printStatus(id uint64) {
	s := l.nodes[id].Status()
	l.printf("%d: %v term %d leader %s commit %d applied %d last %d", id, s.RaftState, s.Term, nodeName(s.Lead), s.Commit, s.Applied, s.LastIndex)
	for _, p := range s.Progress {
		line := fmt.Sprintf("   %d: %v match %d next %d", p.ID, p.State, p.Match, p.Next)
		if p.Paused {
			line += " paused"
		}
		if p.IsLearner {
			line += " learner"
		}
		if p.PendingSnapshot > 0 {
			line += fmt.Sprintf(" snapshot %d", p.PendingSnapshot)
		}
		l.printf("%s", line)
	}
}

func configure(t testing.TB, d *datadriven.TestData) func(*nodeConfig) {
	return func(c *nodeConfig) {
		c.PreVote, c.CheckQuorum = d.HasArg("prevote"), d.HasArg("checkquorum")
		c.StepDownOnRemoval, c.DisableProposalForwarding = d.HasArg("stepdown"), d.HasArg("noforward")
		c.DisableConfChangeValidation = d.HasArg("novalidate")
		c.MaxInflightBytes = uint64(number(t, d, "window-bytes", 0))
		if c.MaxInflightBytes > 0 {
			c.MaxSizePerMsg = c.MaxInflightBytes
		}
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
			list = append(list, parseID(t, v))
		}
	}
	return list
}

func parseID(t testing.TB, text string) uint64 {
	id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	must(t, err)
	return id
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
