package invariants

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var stories = map[string]string{"story": story, "snapshots": snapshotStory, "membership": membershipStory, "reads": readStory, "succession": succession}

func milliseconds(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestACorrectRunPassesHoweverItsTracesAreMerged(t *testing.T) {
	tested := map[Invariant]uint64{}
	for name, script := range stories {
		events := parse(t, script)
		for seed := range uint64(200) {
			options := Options{OneClock: seed == 0}
			merged := events
			if seed > 0 {
				merged = interleave(events, rand.New(rand.NewPCG(seed, 1)))
			}
			r := check(merged, options)
			if len(r.Violations) > 0 || len(r.Undecided) > 0 || len(r.Incomplete) > 0 {
				t.Fatalf("%s, seed %d: %v\n%s", name, seed, r.Incomplete, explain(r))
			}
			for i, times := range r.Checks {
				tested[i] += times
			}
		}
	}
	for _, i := range All() {
		if tested[i] == 0 && i != Liveness {
			t.Errorf("%v was never put to the test", i)
		}
	}
}

type mutation struct {
	what     string
	script   string
	edits    []string // what to replace, and by what, in turn
	want     Invariant
	evidence []string // "node event" of the lines that the violation points at
}

var mutations = []mutation{
	{"two leaders of one term", story, []string{
		"n3 persist t=1 vote=n1\nn3 votePersist t=1 cand=n1\nn3 voteSend t=1 to=n1 granted ", `
n3 persist t=1 vote=n3
n3 votePersist t=1 cand=n3
n3 voteSend t=1 to=n3 granted
n3 leader t=1 conf=n3 voters=n3
n3 stepDown t=1`,
		"n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1", "n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n3",
	}, ElectionSafety, []string{"n1 leader", "n3 leader"}},
	{"two votes in a term", story, []string{"n3 voteSend t=1 to=n1 granted ", "n3 voteSend t=1 to=n2 granted "}, OneVote, []string{"n3 voteSend", "n3 persist"}},
	{"a second vote on disk", story, []string{"n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1", "n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n2"}, OneVote, []string{"n3 persist", "n3 persist"}},
	{"a leader that some did not vote for", story, []string{"n3 voteSend t=2 to=n2 granted candLast=1/1", ""}, VoteQuorum, []string{"n2 leader", "n2 voteSend"}},
	{"a leader that did not wait for votes", story, []string{"voters=n2,n3", "voters=n2"}, VoteQuorum, []string{"n2 leader", "n2 voteSend"}},
	{"a leader that is no voter", succession, []string{"conf=n1,n2,n3 voters=n2,n3", "conf=n1,n3+n2 voters=n2,n3"}, VoteQuorum, []string{"n2 leader"}},
	{"a vote for a shorter log", story, []string{"n3 voteSend t=2 to=n2 granted candLast=1/1", "n3 voteSend t=2 to=n2 granted candLast=0/1"}, UpToDateVotes, []string{"n3 voteSend", "n3 persist"}},
	{"a term that falls", story, []string{"n3 append i=2 t=2 h=ac", "n3 append i=2 t=2 h=ac\nn3 term t=1\nn3 term t=2"}, TermMonotone, []string{"n3 term", "n3 term"}},
	{"a term that a restart loses", story, []string{"n1 boot t=1 vote=n1", "n1 boot t=0"}, TermMonotone, []string{"n1 boot", "n1 term"}},
	{"a node that acts in an old term", story, []string{"n2 append i=2 t=2 h=ac\n", "n2 append i=2 t=2 h=ac\nn2 campaign t=1\n"}, TermMonotone, []string{"n2 campaign", "n2 term"}},
	{"another entry of the same term", story, []string{"n3 append i=2 t=2 h=ac\n", "n3 append i=2 t=1 h=ax\nn3 truncate from=2\nn3 append i=2 t=2 h=ac\n"}, LogMatching, []string{"n3 append", "n1 append"}},
	{"a log with a hole", story, []string{"n1 append i=2 t=2 h=ac\n", "n1 append i=3 t=2 h=acd\nn1 truncate from=2\nn1 append i=2 t=2 h=ac\n"}, LogMatching, []string{"n1 append"}},
	{"a leader that discards entries", story, []string{"n1 append i=2 t=1 h=ab", "n1 append i=2 t=1 h=ab\nn1 truncate from=2\nn1 append i=2 t=1 h=ab"}, LeaderAppendOnly, []string{"n1 truncate", "n1 leader"}},
	{"a leader that appends in another's name", story, []string{"n1 append i=2 t=1 h=ab", "n1 append i=2 t=5 h=ax\nn1 stepDown t=1\nn1 truncate from=2\nn1 append i=2 t=1 h=ab"}, LeaderAppendOnly, []string{"n1 append", "n1 leader"}},
	{"a commit that falls", story, []string{"n1 apply i=2 t=2 h=ac digest=AC", "n1 apply i=2 t=2 h=ac digest=AC\nn1 commit i=1 role=follower t=2"}, CommitSafety, []string{"n1 commit"}},
	{"a commit beyond the log", story, []string{"n3 append i=2 t=2 h=ac\n", "n3 commit i=2 role=follower t=2\nn3 append i=2 t=2 h=ac\n"}, CommitSafety, []string{"n3 commit"}},
	{"two entries committed at one index", story, []string{"n1 truncate from=2\n", "n1 commit i=2 role=follower t=2\nn1 truncate from=2\n"}, CommitSafety, []string{"n1 commit", "n2 commit", "n1 append", "n2 append"}},
	{"a commit without a quorum", story, []string{
		"n3 ackSend to=n2 t=2 i=2\nn2 progress t=2 peer=n3 match=2 next=3\n", "",
		"n1 ackSend to=n2 t=2 i=2\nn2 progress t=2 peer=n1 match=2 next=3\n", "",
	}, CommitRule, []string{"n2 commit"}},
	{"a commit without a quorum, by a node that does not tell what it knows", succession, []string{"n3 ackSend to=n1 t=1 i=1\n", "", "n2 ackSend to=n1 t=1 i=1\n", ""}, CommitRule, []string{"n1 commit"}},
	{"a commit before the quorum is known", story, []string{"n2 progress t=2 peer=n3 match=2 next=3\nn2 commit i=2 role=leader t=2", "n2 progress t=2 peer=n3 match=1 next=2\nn2 commit i=2 role=leader t=2\nn2 progress t=2 peer=n3 match=2 next=3"}, CommitRule, []string{"n2 commit"}},
	{"a commit that counts what is not durable here", story, []string{"n2 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2 commit=1", ""}, CommitRule, []string{"n2 commit"}},
	{"a commit of an earlier term's entry", story, []string{"n2 append i=2 t=2 h=ac\n", "n2 commit i=1 role=leader t=2\nn2 append i=2 t=2 h=ac\n"}, CommitRule, []string{"n2 commit", "n1 append"}},
	{"a commit that no leader made", story, []string{"n3 commit i=2 role=follower t=2", "n3 append i=3 t=2 h=acd\nn3 commit i=3 role=follower t=2"}, CommitRule, []string{"n3 commit", "n2 commit"}},
	{"a leader that lacks what is committed", succession, []string{
		"n2 append i=1 t=1 h=a\nn2 persist uptoIdx=1 uptoTerm=1 t=1\nn2 ackSend to=n1 t=1 i=1\n", "",
		"n2 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2", "n2 persist t=2 vote=n2",
		"n2 leader t=2 last=1 lastTerm=1 h=a", "n2 leader t=2",
	}, LeaderCompleteness, []string{"n2 leader", "n1 commit"}},
	{"a leader with another entry than is committed", succession, []string{
		"n2 append i=1 t=1 h=a\nn2 persist uptoIdx=1 uptoTerm=1 t=1\nn2 ackSend to=n1 t=1 i=1\n", "n2 append i=1 t=2 h=b\n",
		"n2 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2", "n2 persist uptoIdx=1 uptoTerm=2 t=2 vote=n2",
		"n2 leader t=2 last=1 lastTerm=1 h=a", "n2 leader t=2 last=1 lastTerm=2 h=b",
	}, LeaderCompleteness, []string{"n2 leader", "n1 commit", "n2 append", "n1 append"}},
	{"an entry applied twice", story, []string{"n2 apply i=2 t=2 h=ac digest=AC", "n2 apply i=1 t=1 h=a digest=A\nn2 apply i=2 t=2 h=ac digest=AC"}, StateMachine, []string{"n2 apply"}},
	{"an entry skipped", story, []string{"n3 apply i=1 t=1 h=a digest=A\n", ""}, StateMachine, []string{"n3 apply"}},
	{"an entry applied before it is committed", story, []string{"n2 commit i=2 role=leader t=2\nn2 apply i=2 t=2 h=ac digest=AC", "n2 apply i=2 t=2 h=ac digest=AC\nn2 commit i=2 role=leader t=2"}, StateMachine, []string{"n2 apply"}},
	{"another entry applied than is in the log", story, []string{"n3 apply i=2 t=2 h=ac digest=AC", "n3 apply i=2 t=1 h=ab digest=AC"}, StateMachine, []string{"n3 apply", "n2 append"}},
	{"states that differ", story, []string{"n3 apply i=2 t=2 h=ac digest=AC", "n3 apply i=2 t=2 h=ac digest=XX"}, StateMachine, []string{"n3 apply", "n2 apply"}},
	{"states that differ, and a snapshot of one", snapshotStory, []string{
		"n1 apply i=2 t=1 h=ab digest=AB", "n1 apply i=2 t=1 h=ab digest=XX", "n1 snapTake i=2 t=1 h=ab digest=AB", "n1 snapTake i=2 t=1 h=ab digest=XX",
	}, StateMachine, []string{"n2 apply", "n1 apply"}},
	{"an entry that is committed again as another", story, []string{
		"n1 boot t=1 vote=n1", "\nn3 boot t=2 vote=n2 last=1 lastTerm=1 h=a conf=n1,n2,n3\nn3 append i=2 t=3 h=ad\nn3 commit i=2 role=follower t=3\nn1 boot t=1 vote=n1",
		"n3 ackSend to=n2 t=2 i=2\nn2 progress t=2 peer=n3 match=2 next=3\n", "",
		"n2 commit i=2 role=leader t=2\nn2 apply i=2 t=2 h=ac digest=AC\n", "",
		"n2 progress t=2 peer=n1 match=2 next=3\n", "n2 progress t=2 peer=n1 match=2 next=3\nn2 commit i=2 role=leader t=2\nn2 apply i=2 t=2 h=ac digest=AC\n",
		"n3 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2\n", "",
	}, CommitSafety, []string{"n3 commit", "n3 commit", "n3 append", "n2 append"}},
	{"a vote that a restart loses", story, []string{"n1 boot t=1 vote=n1", "n1 boot t=1"}, Durability, []string{"n1 boot", "n1 persist"}},
	{"entries that a restart loses", story, []string{"n1 boot t=1 vote=n1 commit=1 last=2 lastTerm=1 h=ab conf=n1,n2,n3", "n1 boot t=1 vote=n1 commit=1 last=1 lastTerm=1 h=a conf=n1,n2,n3"}, Durability, []string{"n1 boot", "n1 persist"}},
	{"entries that a restart exchanges", story, []string{"n1 boot t=1 vote=n1 commit=1 last=2 lastTerm=1 h=ab", "n1 boot t=1 vote=n1 commit=1 last=2 lastTerm=2 h=ac"}, Durability, []string{"n1 boot", "n1 persist", "n1 append"}},
	{"an answer in a term that is not durable", story, []string{"n3 term t=2\nn3 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2", "n3 voteSend t=2 to=n2\nn3 term t=2\nn3 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2"}, PersistBeforeSend, []string{"n3 voteSend", "n3 term"}},
	{"a vote that is not durable", story, []string{"n3 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2\nn3 votePersist t=2 cand=n2\n", "n3 persist uptoIdx=1 uptoTerm=1 t=2\n"}, PersistBeforeSend, []string{"n3 voteSend"}},
	{"an acknowledgement before the write", story, []string{"n3 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2\nn3 ackSend to=n2 t=2 i=2", "n3 ackSend to=n2 t=2 i=2\nn3 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2"}, PersistBeforeSend, []string{"n3 ackSend"}},
	{"an acknowledgement of an entry whose predecessor there is durable", story, []string{"n1 persist uptoIdx=2 uptoTerm=2 t=2 commit=1\nn1 ackSend to=n2 t=2 i=2\n", `
n1 persist uptoIdx=2 uptoTerm=1 t=2 commit=1
n1 ackSend to=n2 t=2 i=2
n1 persist uptoIdx=2 uptoTerm=2 t=2 commit=1
`}, PersistBeforeSend, []string{"n1 ackSend"}},
	{"an acknowledgement in a term that is not durable", story, []string{"n1 term t=2\nn1 persist uptoIdx=2 uptoTerm=2 t=2 commit=1\n", "n1 persist uptoIdx=2 uptoTerm=2 t=1 vote=n1 commit=1\n"}, PersistBeforeSend, []string{"n1 ackSend", "n1 term"}},
	{"a snapshot of what is not applied", snapshotStory, []string{"n1 snapTake i=2 t=1 h=ab digest=AB conf=n1,n2", "n1 snapTake i=3 t=1 h=abc digest=AB conf=n1,n2"}, Snapshots, []string{"n1 snapTake"}},
	{"a snapshot of another state", snapshotStory, []string{"n1 snapTake i=2 t=1 h=ab digest=AB", "n1 snapTake i=2 t=1 h=ab digest=XX"}, Snapshots, []string{"n1 snapTake", "n1 apply"}},
	{"a snapshot of another log", snapshotStory, []string{"n1 snapTake i=2 t=1 h=ab", "n1 snapTake i=2 t=1 h=ax"}, Snapshots, []string{"n1 snapTake", "n1 append"}},
	{"a snapshot with another configuration", snapshotStory, []string{"n1 snapTake i=2 t=1 h=ab digest=AB conf=n1,n2", "n1 snapTake i=2 t=1 h=ab digest=AB conf=n1+n2"}, Snapshots, []string{"n1 snapTake"}},
	{"a snapshot installed over what is committed", snapshotStory, []string{"n2 commit i=2 role=follower t=1\nn2 apply i=2 t=1 h=ab digest=AB\nn2 confApply i=2 conf=n1,n2\nn2 boot", "n2 commit i=2 role=follower t=1\nn2 snapInstall i=2 t=1 h=ab digest=AB conf=n1,n2\nn2 persist uptoIdx=2 uptoTerm=1 t=1 commit=2\nn2 boot"}, Snapshots, []string{"n2 snapInstall"}},
	{"a snapshot installed with another state", snapshotStory, []string{"n2 snapInstall i=1 t=1 h=a digest=A ", "n2 snapInstall i=1 t=1 h=a digest=X "}, Snapshots, []string{"n2 snapInstall", "n1 apply"}},
	{"a log compacted beyond its snapshot", snapshotStory, []string{"n1 compact i=2", "n1 compact i=3"}, Snapshots, []string{"n1 compact"}},
	{"a second change of membership too early", membershipStory, []string{
		"n1 apply i=2 t=1 h=ab digest=AB\nn1 confApply i=2 conf=n1,n2,n3|n1\n", "",
		"n1 confAppend i=3 old=n1,n2,n3|n1 new=n1,n2,n3\n", `n1 confAppend i=3 old=n1,n2,n3|n1 new=n1,n2,n3
n1 apply i=2 t=1 h=ab digest=AB
n1 confApply i=2 conf=n1,n2,n3|n1
`,
	}, Membership, []string{"n1 confAppend", "n1 confAppend"}},
	{"a campaign with a change to apply", membershipStory, []string{"n2 apply i=3 t=1 h=abc digest=ABC\nn2 confApply i=3 conf=n1,n2,n3\n", ""}, Membership, []string{"n2 campaign", "n2 confAppend"}},
	{"two changes, the earlier one not known to be committed", membershipStory, []string{"n1 persist uptoIdx=3 uptoTerm=1 t=1 vote=n1 commit=2", "n1 persist uptoIdx=3 uptoTerm=1 t=1 vote=n1"}, Membership, []string{"n1 persist", "n1 confAppend", "n1 confAppend"}},
	{"two voters changed at once", membershipStory, []string{"n1 confAppend i=2 old=n1+n2,n3 new=n1,n2,n3|n1", "n1 confAppend i=2 old=n1+n2,n3 new=n1,n2,n3"}, Membership, []string{"n1 confAppend"}},
	{"a joint configuration left for others", membershipStory, []string{
		"n1 confApply i=3 conf=n1,n2,n3", "n1 confApply i=3 conf=n1,n2", "n2 confApply i=3 conf=n1,n2,n3", "n2 confApply i=3 conf=n1,n2",
	}, Membership, []string{"n1 confApply"}},
	{"different configurations after an entry", membershipStory, []string{"n2 confApply i=3 conf=n1,n2,n3", "n2 confApply i=3 conf=n1,n2,n3+n4"}, Membership, []string{"n2 confApply", "n1 confApply"}},
	{"a commit by one half", membershipStory, []string{"n2 ackSend to=n1 t=1 i=3\n", "", "n1 progress t=1 peer=n2 match=3 next=4\n", ""}, CommitRule, []string{"n1 commit"}},
	{"a read that is too old", readStory, []string{"n2 readIndex id=7 i=2", "n2 readIndex id=7 i=1"}, LinearizableReads, []string{"n2 readIndex", "n1 commit", "n2 readStart"}},
	{"a read served too early", readStory, []string{"n2 readServe id=7 applied=2", "n2 readServe id=7 applied=1"}, LinearizableReads, []string{"n2 readServe", "n2 readIndex"}},
	{"a read served unconfirmed", readStory, []string{"n2 readIndex id=7 i=2\n", ""}, LinearizableReads, []string{"n2 readServe"}},
	{"a match that falls", story, []string{"n2 progress t=2 peer=n1 match=2 next=3", "n2 progress t=2 peer=n3 match=1 next=3\nn2 progress t=2 peer=n1 match=2 next=3"}, ReplicationView, []string{"n2 progress", "n2 progress"}},
	{"a match that reaches next", story, []string{"n2 progress t=2 peer=n1 match=2 next=3", "n2 progress t=2 peer=n1 match=2 next=2"}, ReplicationView, []string{"n2 progress"}},
	{"a match that was not acknowledged", story, []string{"n2 progress t=2 peer=n1 match=2 next=3", "n2 progress t=2 peer=n1 match=3 next=4"}, ReplicationView, []string{"n2 progress", "n1 ackSend"}},
	{"a match of its own that is not durable", story, []string{"n1 progress t=1 peer=n1 match=2 next=3", "n1 progress t=1 peer=n1 match=3 next=4"}, ReplicationView, []string{"n1 progress"}},
}

func names(events []Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, fmt.Sprintf("%s %s", e.Node, e.Kind))
	}
	return list
}

func TestEachInvariantFiresWhenItIsBroken(t *testing.T) {
	fired := map[Invariant]bool{Liveness: true} // it has a test of its own
	for _, m := range mutations {
		t.Run(m.what, func(t *testing.T) {
			r := check(parse(t, mutate(t, m.script, m.edits...)), Options{OneClock: true})
			if got := broken(r); !slices.Equal(got, []Invariant{m.want}) {
				t.Fatalf("broken are %v, want %v\n%s", got, m.want, explain(r))
			}
			if got := names(r.Violations[0].Events); !slices.Equal(got, m.evidence) {
				t.Errorf("the evidence is %q, want %q\n%s", got, m.evidence, explain(r))
			}
			if strings.Contains(explain(r), "%!") {
				t.Error(explain(r))
			}
			fired[m.want] = true
		})
	}
	for _, i := range All() {
		if !fired[i] {
			t.Errorf("no mutation breaks %v", i)
		}
	}
}

func TestABrokenRunIsFoundHoweverItsTracesAreMerged(t *testing.T) {
	for _, m := range mutations {
		if m.want == LinearizableReads {
			continue // needs the real order
		}
		events := parse(t, mutate(t, m.script, m.edits...))
		for seed := range uint64(50) {
			r := check(interleave(events, rand.New(rand.NewPCG(seed, 2))), Options{})
			if got := broken(r); !slices.Equal(got, []Invariant{m.want}) {
				t.Fatalf("%s, seed %d: broken are %v, want %v\n%s", m.what, seed, got, m.want, explain(r))
			}
		}
	}
}

func TestALeaderThatCommitsWhatItDoesNotHaveIsFound(t *testing.T) {
	line := "n1 commit i=1 role=leader t=1\n"
	r := check(parse(t, mutate(t, succession, line, line+"n1 commit i=5 role=leader t=1\n")), Options{})
	if got := broken(r); !slices.Equal(got, []Invariant{CommitSafety, CommitRule, LeaderCompleteness}) {
		t.Errorf("broken are %v\n%s", got, explain(r))
	}
}
