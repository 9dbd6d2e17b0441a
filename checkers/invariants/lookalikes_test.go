package invariants

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// boots starts nodes with empty disks.
func boots(conf string, nodes ...string) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s boot conf=%s\n", n, conf)
	}
	return b.String()
}

// elects is an election: each voter is followed by where its durable log ends, as
// term/index; the candidate comes first.
func elects(term int, conf string, votersAndLasts ...string) string {
	candidate, candLast := votersAndLasts[0], votersAndLasts[1]
	var voters []string
	b := fmt.Sprintf("%s campaign t=%d\n", candidate, term)
	for i := 0; i < len(votersAndLasts); i += 2 {
		v, last := votersAndLasts[i], votersAndLasts[i+1]
		voters = append(voters, v)
		b += fmt.Sprintf("%s term t=%d\n%s\n%[1]s votePersist t=%[2]d cand=%[4]s\n%[1]s voteSend t=%[2]d to=%[4]s granted candLast=%[5]s\n",
			v, term, persists(v, term, last, candidate), candidate, candLast)
	}
	lastTerm, last, _ := strings.Cut(candLast, "/")
	return b + fmt.Sprintf("%s leader t=%d last=%s lastTerm=%s HASH conf=%s voters=%s\n", candidate, term, last, lastTerm, conf, strings.Join(voters, ","))
}

func persists(node string, term int, last, vote string) string {
	lastTerm, index, _ := strings.Cut(last, "/")
	line := fmt.Sprintf("%s persist uptoIdx=%s uptoTerm=%s t=%d", node, index, lastTerm, term)
	if vote != "" {
		line += " vote=" + vote
	}
	return line
}

// at gives the hash of the new leader's last entry.
func at(hash, election string) string {
	if hash != "" {
		hash = "h=" + hash
	}
	return strings.Replace(election, "HASH", hash, 1)
}

const three = "n1,n2,n3"

// lookalikes are correct runs that look wrong to a checker that is not careful.
var lookalikes = map[string]string{
	"a leader commits what it does not hold durably itself": boots(three, "n1", "n2", "n3") +
		at("", elects(1, three, "n1", "0/0", "n2", "0/0")) + `
n1 append i=1 t=1 h=a
n2 append i=1 t=1 h=a
n2 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n2 ackSend to=n1 t=1 i=1
n3 term t=1
n3 append i=1 t=1 h=a
n3 persist uptoIdx=1 uptoTerm=1 t=1
n3 ackSend to=n1 t=1 i=1
n1 commit i=1 role=leader t=1
n1 boot t=1 vote=n1 conf=n1,n2,n3    # and then loses it
`,
	"term 4 commits an entry of term 2 while the leader of term 3, which lacks it, is cut off": boots(three, "n1", "n2", "n3") +
		at("", elects(2, three, "n1", "0/0", "n2", "0/0")) + `
n1 append i=1 t=2 h=a
n1 persist uptoIdx=1 uptoTerm=2 t=2 vote=n1
` + at("", elects(3, three, "n3", "0/0", "n2", "0/0")) + `
n1 stepDown t=2
` + at("a", elects(4, three, "n1", "2/1", "n2", "0/0")) + `
n1 append i=2 t=4 h=ab
n1 persist uptoIdx=2 uptoTerm=4 t=4 vote=n1
n2 append i=1 t=2 h=a
n2 append i=2 t=4 h=ab
n2 persist uptoIdx=2 uptoTerm=4 t=4 vote=n1
n2 ackSend to=n1 t=4 i=2
n1 commit i=2 role=leader t=4
n3 append i=1 t=3 h=c
n3 persist uptoIdx=1 uptoTerm=3 t=3 vote=n3
`,
	"a restart forgets how much is committed, and applies again": story + `
n2 boot t=2 vote=n2 commit=1 last=2 lastTerm=2 h=ac conf=n1,n2,n3
n2 apply i=1 t=1 h=a digest=A
n2 commit i=2 role=follower t=2
n2 apply i=2 t=2 h=ac digest=AC
`,
	"a restart finds writes of which no line said that they are durable": boots(three, "n1") + `
n1 append i=1 t=3 h=a
n1 append i=2 t=3 h=ab
n1 boot t=4 vote=n2 last=1 lastTerm=3 h=a conf=n1,n2,n3
n1 voteSend t=4 to=n2 granted candLast=3/1
`,
	"an acknowledgement leaves after the entry was replaced in memory": boots(three, "n1") + `
n1 append i=1 t=2 h=a
n1 append i=2 t=2 h=ab
n1 truncate from=2
n1 append i=2 t=3 h=ac
n1 term t=2
n1 persist uptoIdx=2 uptoTerm=2 t=2
n1 ackSend to=n2 t=2 i=2
n1 boot t=2 last=2 lastTerm=2 h=ab conf=n1,n2,n3
`,
	"an acknowledgement leaves with the write that replaces what it speaks of": boots(three, "n1") + `
n1 append i=1 t=2 h=a
n1 append i=2 t=2 h=ab
n1 append i=3 t=2 h=abc
n1 truncate from=2
n1 append i=2 t=3 h=ac
n1 term t=3
n1 persist uptoIdx=2 uptoTerm=3 t=3
n1 ackSend to=n2 t=2 i=3
n1 ackSend to=n3 t=3 i=2
n1 boot t=3 last=2 lastTerm=3 h=ac conf=n1,n2,n3
`,
	"an entry is replaced and put back while the first write of it is on its way": boots(three, "n1") + `
n1 append i=1 t=1 h=a
n1 truncate from=1
n1 append i=1 t=2 h=b
n1 truncate from=1
n1 append i=1 t=1 h=a
n1 term t=1
n1 persist uptoIdx=1 uptoTerm=1 t=1
n1 ackSend to=n2 t=1 i=1
n1 boot t=2 last=1 lastTerm=2 h=b conf=n1,n2,n3
`,
	"a voter's log grows between its vote and its answer": boots(three, "n1", "n2", "n3") + `
n2 append i=1 t=1 h=a
n2 term t=1
n2 persist uptoIdx=1 uptoTerm=1 t=1
n2 append i=2 t=1 h=ab    # from the other candidate of term 3, who has won
n2 term t=3
n2 persist uptoIdx=2 uptoTerm=1 t=3 vote=n1
n2 votePersist t=3 cand=n1
n2 voteSend t=3 to=n1 granted candLast=1/1
`,
	"a learner votes": boots("n1,n2+n3", "n1", "n2", "n3") + at("", elects(1, "n1,n2+n3", "n1", "0/0", "n2", "0/0", "n3", "0/0")),
	"a node leads alone": boots("n1", "n1") + at("", elects(1, "n1", "n1", "0/0")) + `
n1 append i=1 t=1 h=a
n1 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n1 progress t=1 peer=n1 match=1 next=2
n1 commit i=1 role=leader t=1
`,
	"a leader that was removed commits on; who was removed comes back; fewer have to agree": boots(three, "n1", "n2", "n3") +
		at("", elects(1, three, "n1", "0/0", "n2", "0/0")) + `
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ab
n1 confAppend i=2 old=n1,n2,n3 new=n1,n2
n1 append i=3 t=1 h=abc
n1 persist uptoIdx=3 uptoTerm=1 t=1 vote=n1
n2 append i=1 t=1 h=a
n2 append i=2 t=1 h=ab
n2 confAppend i=2 old=n1,n2,n3 new=n1,n2
n2 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1
n2 ackSend to=n1 t=1 i=2
n1 progress t=1 peer=n2 match=2 next=3
n1 commit i=2 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
n1 apply i=2 t=1 h=ab digest=AB
n1 confApply i=2 conf=n1,n2
n1 append i=4 t=1 h=abcd
n1 confAppend i=4 old=n1,n2 new=n1
n1 append i=5 t=1 h=abcde
n1 persist uptoIdx=5 uptoTerm=1 t=1 vote=n1 commit=2
n2 append i=3 t=1 h=abc
n2 append i=4 t=1 h=abcd
n2 confAppend i=4 old=n1,n2,n3 new=n1,n3
n2 persist uptoIdx=4 uptoTerm=1 t=1 vote=n1 commit=2
n2 ackSend to=n1 t=1 i=4
n1 progress t=1 peer=n2 match=4 next=5
n1 commit i=4 role=leader t=1
n1 apply i=3 t=1 h=abc digest=ABC
n1 apply i=4 t=1 h=abcd digest=ABCD
n1 commit i=5 role=leader t=1        # written before the change that makes it possible
n1 confApply i=4 conf=n1
n1 append i=6 t=1 h=f
n1 confAppend i=6 old=n1 new=n1,n2
n1 persist uptoIdx=6 uptoTerm=1 t=1 vote=n1 commit=5
n1 commit i=6 role=leader t=1
n1 apply i=5 t=1 h=abcde digest=E
n1 apply i=6 t=1 h=f digest=F
n1 confApply i=6 conf=n1,n2
n1 progress t=1 peer=n2 match=3 next=5
`,
	"a leader that is no member commits by the others": boots(three, "n1", "n2", "n3") +
		at("", elects(1, three, "n1", "0/0", "n2", "0/0")) + `
n1 append i=1 t=1 h=a
n1 confAppend i=1 old=n1,n2,n3 new=n2,n3
n1 append i=2 t=1 h=ab
n1 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1
n2 append i=1 t=1 h=a
n2 append i=2 t=1 h=ab
n2 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1
n2 ackSend to=n1 t=1 i=1
n1 commit i=1 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
n1 confApply i=1 conf=n2,n3
n2 ackSend to=n1 t=1 i=2
n3 term t=1
n3 append i=1 t=1 h=a
n3 append i=2 t=1 h=ab
n3 persist uptoIdx=2 uptoTerm=1 t=1
n3 ackSend to=n1 t=1 i=2
n1 commit i=2 role=leader t=1
`,
	"a crash takes back a snapshot that was not durable": boots(three, "n1") + `
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ax
n1 append i=3 t=1 h=axy
n1 term t=1
n1 persist uptoIdx=3 uptoTerm=1 t=1
n1 ackSend to=n2 t=1 i=3
n1 snapInstall i=2 t=2 h=ab digest=AB conf=n1,n2,n3
n1 boot t=1 last=3 lastTerm=1 h=axy conf=n1,n2,n3
`,
	"a crash keeps a snapshot that is shorter than the log before": boots(three, "n1") + `
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ax
n1 append i=3 t=1 h=axy
n1 term t=1
n1 persist uptoIdx=3 uptoTerm=1 t=1
n1 ackSend to=n2 t=1 i=3
n1 snapInstall i=2 t=2 h=ab digest=AB conf=n1,n2,n3
n1 term t=2
n1 persist uptoIdx=2 uptoTerm=2 t=2 commit=2
n1 ackSend to=n2 t=2 i=2
n1 boot t=2 commit=2 applied=2 snapIdx=2 snapTerm=2 last=2 lastTerm=2 h=ab conf=n1,n2,n3
n1 append i=3 t=2 h=abc
`,
	"a torn write keeps two changes of membership, and not how much is committed": boots(three, "n1") + `
n1 append i=1 t=1 h=a
n1 confAppend i=1 old=n1,n2,n3 new=n1,n2,n3,n4
n1 append i=2 t=1 h=ab
n1 confAppend i=2 old=n1,n2,n3
n1 boot t=1 last=2 lastTerm=1 h=ab conf=n1,n2,n3
n1 term t=2
n1 persist uptoIdx=2 uptoTerm=1 t=2
`,
	"a leader passes on two changes of membership, of which it does not know that one is committed": boots(three, "n1", "n2", "n3") + `
n1 append i=1 t=1 h=a
n1 confAppend i=1 old=n1,n2,n3 new=n1,n2,n3,n4
n1 append i=2 t=1 h=ab
n1 confAppend i=2 old=n1,n2,n3 new=n1,n2,n3,n5
n1 boot t=1 last=2 lastTerm=1 h=ab conf=n1,n2,n3
` + at("ab", elects(2, three, "n1", "1/2", "n3", "0/0")) + `
n1 append i=3 t=2 h=abc
n1 persist uptoIdx=3 uptoTerm=2 t=2 vote=n1
n2 term t=2
n2 append i=1 t=1 h=a
n2 confAppend i=1 old=n1,n2,n3 new=n1,n2,n3,n4
n2 append i=2 t=1 h=ab
n2 confAppend i=2 old=n1,n2,n3 new=n1,n2,n3,n5
n2 persist uptoIdx=2 uptoTerm=1 t=2
`,
	"a write names an entry that was replaced, and what is before it counts": boots(three, "n1") + `
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ab
n1 append i=3 t=1 h=abc
n1 truncate from=3
n1 append i=3 t=2 h=abd
n1 term t=1
n1 persist uptoIdx=3 uptoTerm=1 t=1
n1 ackSend to=n2 t=1 i=2
n1 boot t=1 last=3 lastTerm=1 h=abc conf=n1,n2,n3
`,
	"a vote is decided on while the log is another one for a moment": boots(three, "n1", "n2") + `
n1 append i=1 t=2 h=a
n1 truncate from=1
n1 append i=1 t=1 h=b      # now it votes for n2
n1 truncate from=1
n1 append i=1 t=2 h=a
n1 term t=2
n1 persist uptoIdx=1 uptoTerm=2 t=2
n1 term t=5
n1 persist uptoIdx=1 uptoTerm=1 t=5 vote=n2
n1 votePersist t=5 cand=n2
n1 voteSend t=5 to=n2 granted candLast=1/1
`,
	"a vote is decided on while the log is an older one for a moment": boots(three, "n1", "n2") + `
n1 append i=1 t=1 h=c
n1 append i=2 t=2 h=ca
n1 term t=2
n1 persist uptoIdx=2 uptoTerm=2 t=2
n1 truncate from=2
n1 append i=2 t=1 h=cb      # now it votes for n2
n1 truncate from=2
n1 append i=2 t=2 h=ca
n1 term t=5
n1 persist uptoIdx=2 uptoTerm=1 t=5 vote=n2
n1 votePersist t=5 cand=n2
n1 voteSend t=5 to=n2 granted candLast=1/2
`,
	"a slow disk sees an entry replaced many times": boots(three, "n1") +
		strings.Repeat("n1 append i=1 t=1 h=a\nn1 truncate from=1\nn1 append i=1 t=2 h=b\nn1 truncate from=1\n", cutsMost/2) + `
n1 append i=1 t=1 h=a
n1 truncate from=1
n1 append i=1 t=1 h=a
n1 term t=2
n1 persist uptoIdx=1 uptoTerm=1 t=2
n1 ackSend to=n2 t=2 i=1
n1 boot t=2 last=1 lastTerm=2 h=b conf=n1,n2,n3
`,
	"a snapshot is older than the log that it replaces": boots(three, "n1", "n2") + `
n1 append i=1 t=1 h=a
n1 append i=2 t=2 h=ax
n1 append i=3 t=2 h=axy
n1 confAppend i=3 old=n1,n2,n3 new=n1,n2
n1 term t=2
n1 persist uptoIdx=3 uptoTerm=2 t=2
n1 snapInstall i=2 t=1 h=ab digest=AB conf=n1,n2,n3
n1 term t=4
n1 persist uptoIdx=2 uptoTerm=1 t=4 vote=n2 commit=2
n1 votePersist t=4 cand=n2
n1 voteSend t=4 to=n2 granted candLast=1/2
n2 append i=1 t=1 h=a
n2 append i=2 t=1 h=ab
n2 append i=3 t=1 h=abc
n2 persist uptoIdx=3 uptoTerm=1
n2 commit i=3 role=leader t=1
n1 append i=3 t=1 h=abc
n1 commit i=3 role=follower t=4
n1 campaign t=5
`,
	"a new cluster commits its beginning, which no leader did": boots("", "n1", "n2") + `
n1 append i=1 t=1 h=a
n1 commit i=1 role=bootstrap t=1
n2 append i=1 t=1 h=a
n2 commit i=1 role=bootstrap t=1
`,
	"a change of membership is replaced by an entry that is none": boots(three, "n1", "n2") + `
n2 append i=1 t=2 h=b
n2 commit i=1 role=leader t=2
n1 append i=1 t=1 h=a
n1 confAppend i=1 old=n1,n2,n3 new=n1,n2
n1 truncate from=1
n1 append i=1 t=2 h=b
n1 commit i=1 role=follower t=2
n1 campaign t=3
`,
}

func TestACorrectRunThatLooksWrongPasses(t *testing.T) {
	for name, script := range lookalikes {
		t.Run(name, func(t *testing.T) {
			events := parse(t, script)
			for seed := range uint64(50) {
				merged := events
				if seed > 0 {
					merged = interleave(events, rand.New(rand.NewPCG(seed, 3)))
				}
				if r := check(merged, Options{}); len(r.Violations) > 0 || len(r.Incomplete) > 0 {
					t.Fatalf("seed %d: %v\n%s", seed, r.Incomplete, explain(r))
				}
			}
		})
	}
}

// Each of these differs from a correct run that looks wrong by what makes it wrong.
func TestAWrongRunThatLooksLikeACorrectOneIsFound(t *testing.T) {
	for _, test := range []struct {
		run   string
		edits []string
		want  Invariant
	}{
		{"a leader commits what it does not hold durably itself", []string{"n3 ackSend to=n1 t=1 i=1\n", ""}, CommitRule},
		{"a write names an entry that was replaced, and what is before it counts", []string{"n1 append i=3 t=2 h=abd\nn1 term t=1\nn1 persist uptoIdx=3 uptoTerm=1 t=1\nn1 ackSend to=n2 t=1 i=2\nn1 boot t=1 last=3 lastTerm=1 h=abc", `
n1 append i=3 t=2 h=abd
n1 term t=2
n1 persist uptoIdx=3 uptoTerm=1 t=2
n1 ackSend to=n2 t=2 i=3
n1 boot t=2 last=3 lastTerm=1 h=abc`}, PersistBeforeSend},
		{"a new cluster commits its beginning, which no leader did", []string{"n2 commit i=1 role=bootstrap", "n2 commit i=1 role=follower"}, CommitRule},
		{"a learner votes", []string{"n2 voteSend t=1 to=n1 granted candLast=0/0\n", ""}, VoteQuorum},
		{"an acknowledgement leaves after the entry was replaced in memory", []string{"ackSend to=n2 t=2 i=2", "ackSend to=n2 t=2 i=3"}, PersistBeforeSend},
		{"an acknowledgement leaves with the write that replaces what it speaks of", []string{"n1 ackSend to=n2 t=2 i=3", "n1 ackSend to=n2 t=3 i=3"}, PersistBeforeSend},
		{"an entry is replaced and put back while the first write of it is on its way", []string{
			"n1 persist uptoIdx=1 uptoTerm=1 t=1\nn1 ackSend to=n2 t=1 i=1\n", `
n1 append i=2 t=3 h=ab
n1 persist uptoIdx=2 uptoTerm=3 t=1
n1 ackSend to=n2 t=1 i=1
`,
		}, Durability},
		{"a voter's log grows between its vote and its answer", []string{
			"n2 term t=3\n", "n2 term t=3\nn2 persist uptoIdx=2 uptoTerm=1 t=3\n",
		}, UpToDateVotes},
		{"a leader that was removed commits on; who was removed comes back; fewer have to agree", []string{"n1 confApply i=4 conf=n1\n", "", "n1 progress t=1 peer=n2 match=3 next=5\n", ""}, CommitRule},
		{"a leader that is no member commits by the others", []string{"n3 ackSend to=n1 t=1 i=2\n", ""}, CommitRule},
		{"a crash keeps a snapshot that is shorter than the log before", []string{"n1 boot t=2 commit=2 applied=2 snapIdx=2 snapTerm=2 last=2 lastTerm=2 h=ab", "n1 boot t=2 last=1 lastTerm=1 h=a", "n1 append i=3 t=2 h=abc\n", ""}, Durability},
	} {
		t.Run(test.run, func(t *testing.T) {
			events := parse(t, mutate(t, lookalikes[test.run], test.edits...))
			for seed := range uint64(50) {
				r := check(interleave(events, rand.New(rand.NewPCG(seed, 4))), Options{})
				if got := broken(r); !slices.Equal(got, []Invariant{test.want}) {
					t.Fatalf("seed %d: broken are %v, want %v\n%s", seed, got, test.want, explain(r))
				}
			}
		})
	}
}
