package invariants

// story is a correct run. n1 leads term 1 and commits entry 1; entry 2 gets no further than
// its own disk before it crashes. n2 leads term 2 and replaces entry 2, on n1, too, which
// has come back.
const story = `
n1 boot conf=n1,n2,n3
n2 boot conf=n1,n2,n3
n3 boot conf=n1,n2,n3

n1 campaign t=1
n1 term t=1
n1 persist t=1 vote=n1
n1 votePersist t=1 cand=n1
n1 voteSend t=1 to=n1 granted
n2 term t=1
n2 persist t=1 vote=n1
n2 votePersist t=1 cand=n1
n2 voteSend t=1 to=n1 granted
n3 term t=1
n3 persist t=1 vote=n1
n3 votePersist t=1 cand=n1
n3 voteSend t=1 to=n1 granted     # on its way until n1 leads
n1 leader t=1 conf=n1,n2,n3 voters=n1,n2

n1 append i=1 t=1 h=a
n1 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n1 progress t=1 peer=n1 match=1 next=2
n2 append i=1 t=1 h=a
n2 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n2 ackSend to=n1 t=1 i=1
n1 progress t=1 peer=n2 match=1 next=2
n1 commit i=1 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
n3 append i=1 t=1 h=a
n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n3 ackSend to=n1 t=1 i=1
n2 commit i=1 role=follower t=1
n2 apply i=1 t=1 h=a digest=A
n1 append i=2 t=1 h=ab
n1 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1 commit=1
n1 progress t=1 peer=n1 match=2 next=3

n2 campaign t=2
n2 term t=2
n2 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2 commit=1
n2 votePersist t=2 cand=n2
n2 voteSend t=2 to=n2 granted candLast=1/1
n3 term t=2
n3 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2
n3 votePersist t=2 cand=n2
n3 voteSend t=2 to=n2 granted candLast=1/1
n2 leader t=2 last=1 lastTerm=1 h=a conf=n1,n2,n3 voters=n2,n3
n2 append i=2 t=2 h=ac
n2 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2 commit=1
n3 append i=2 t=2 h=ac
n3 persist uptoIdx=2 uptoTerm=2 t=2 vote=n2
n3 ackSend to=n2 t=2 i=2
n2 progress t=2 peer=n3 match=2 next=3
n2 commit i=2 role=leader t=2
n2 apply i=2 t=2 h=ac digest=AC
n3 commit i=2 role=follower t=2
n3 apply i=1 t=1 h=a digest=A
n3 apply i=2 t=2 h=ac digest=AC

n1 boot t=1 vote=n1 commit=1 last=2 lastTerm=1 h=ab conf=n1,n2,n3
n1 apply i=1 t=1 h=a digest=A
n1 truncate from=2
n1 append i=2 t=2 h=ac
n1 term t=2
n1 persist uptoIdx=2 uptoTerm=2 t=2 commit=1
n1 ackSend to=n2 t=2 i=2
n2 progress t=2 peer=n1 match=2 next=3
n1 commit i=2 role=follower t=2
n1 apply i=2 t=2 h=ac digest=AC
`

// snapshotStory is a leader of one voter, with a learner that gets a snapshot.
const snapshotStory = `
n1 boot conf=n1+n2
n1 campaign t=1
n1 term t=1
n1 persist t=1 vote=n1
n1 votePersist t=1 cand=n1
n1 voteSend t=1 to=n1 granted
n1 leader t=1 conf=n1+n2 voters=n1
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ab
n1 confAppend i=2 old=n1+n2 new=n1,n2
n1 append i=3 t=1 h=abc
n1 persist uptoIdx=3 uptoTerm=1 t=1 vote=n1
n1 commit i=1 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
n1 snapTake i=1 t=1 h=a digest=A conf=n1+n2
n1 compact i=1
n2 boot conf=n1+n2
n2 term t=1
n2 snapInstall i=1 t=1 h=a digest=A conf=n1+n2
n2 persist uptoIdx=1 uptoTerm=1 t=1 commit=1
n2 ackSend to=n1 t=1 i=1
n2 append i=2 t=1 h=ab
n2 confAppend i=2 old=n1+n2 new=n1,n2
n2 persist uptoIdx=2 uptoTerm=1 t=1 commit=1
n2 ackSend to=n1 t=1 i=2
n1 progress t=1 peer=n2 match=2 next=3
n1 commit i=2 role=leader t=1
n1 apply i=2 t=1 h=ab digest=AB
n1 confApply i=2 conf=n1,n2
n1 snapTake i=2 t=1 h=ab digest=AB conf=n1,n2
n1 compact i=2
n2 commit i=2 role=follower t=1
n2 apply i=2 t=1 h=ab digest=AB
n2 confApply i=2 conf=n1,n2
n2 boot t=1 commit=1 applied=1 snapIdx=1 snapTerm=1 last=2 lastTerm=1 h=ab conf=n1+n2
n2 commit i=2 role=follower t=1
n2 apply i=2 t=1 h=ab digest=AB
n2 confApply i=2 conf=n1,n2
`

// membershipStory leads n1 alone through a joint configuration to n1, n2 and n3.
const membershipStory = `
n1 boot conf=n1+n2,n3
n2 boot conf=n1+n2,n3
n3 boot conf=n1+n2,n3
n1 campaign t=1
n1 term t=1
n1 persist t=1 vote=n1
n1 votePersist t=1 cand=n1
n1 voteSend t=1 to=n1 granted
n1 leader t=1 conf=n1+n2,n3 voters=n1
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ab
n1 confAppend i=2 old=n1+n2,n3 new=n1,n2,n3|n1
n1 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1
n1 commit i=2 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
n1 apply i=2 t=1 h=ab digest=AB
n1 confApply i=2 conf=n1,n2,n3|n1
n2 term t=1
n2 append i=1 t=1 h=a
n2 append i=2 t=1 h=ab
n2 confAppend i=2 old=n1+n2,n3 new=n1,n2,n3|n1
n2 persist uptoIdx=2 uptoTerm=1 t=1
n2 ackSend to=n1 t=1 i=2
n1 progress t=1 peer=n2 match=2 next=3
n1 append i=3 t=1 h=abc
n1 confAppend i=3 old=n1,n2,n3|n1 new=n1,n2,n3
n1 persist uptoIdx=3 uptoTerm=1 t=1 vote=n1 commit=2
n2 commit i=2 role=follower t=1
n2 append i=3 t=1 h=abc
n2 confAppend i=3 old=n1+n2,n3
n2 persist uptoIdx=3 uptoTerm=1 t=1 commit=2
n2 ackSend to=n1 t=1 i=3
n2 apply i=1 t=1 h=a digest=A
n2 apply i=2 t=1 h=ab digest=AB
n2 confApply i=2 conf=n1,n2,n3|n1
n1 progress t=1 peer=n2 match=3 next=4
n1 commit i=3 role=leader t=1
n1 apply i=3 t=1 h=abc digest=ABC
n1 confApply i=3 conf=n1,n2,n3
n2 commit i=3 role=follower t=1
n2 apply i=3 t=1 h=abc digest=ABC
n2 confApply i=3 conf=n1,n2,n3
n2 campaign t=2
n2 term t=2
n2 persist uptoIdx=3 uptoTerm=1 t=2 vote=n2 commit=3
n2 votePersist t=2 cand=n2
n2 voteSend t=2 to=n2 granted candLast=1/3
`

// readStory has a read on a node that leads alone.
const readStory = `
n1 boot conf=n1
n2 boot conf=n1+n2
n1 campaign t=1
n1 term t=1
n1 persist t=1 vote=n1
n1 votePersist t=1 cand=n1
n1 voteSend t=1 to=n1 granted
n1 leader t=1 conf=n1 voters=n1
n1 append i=1 t=1 h=a
n1 append i=2 t=1 h=ab
n1 persist uptoIdx=2 uptoTerm=1 t=1 vote=n1
n1 commit i=2 role=leader t=1
n2 readStart id=7
n2 term t=1
n2 append i=1 t=1 h=a
n2 append i=2 t=1 h=ab
n2 commit i=2 role=follower t=1
n2 apply i=1 t=1 h=a digest=A
n2 readIndex id=7 i=2
n2 apply i=2 t=1 h=ab digest=AB
n2 readServe id=7 applied=2
`

// succession is two elections and one commit.
const succession = `
n1 boot conf=n1,n2,n3
n2 boot conf=n1,n2,n3
n3 boot conf=n1,n2,n3
n1 campaign t=1
n1 term t=1
n1 persist t=1 vote=n1
n1 votePersist t=1 cand=n1
n1 voteSend t=1 to=n1 granted
n3 term t=1
n3 persist t=1 vote=n1
n3 votePersist t=1 cand=n1
n3 voteSend t=1 to=n1 granted
n1 leader t=1 conf=n1,n2,n3 voters=n1,n3
n1 append i=1 t=1 h=a
n1 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n3 append i=1 t=1 h=a
n3 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n3 ackSend to=n1 t=1 i=1
n1 commit i=1 role=leader t=1
n2 term t=1
n2 append i=1 t=1 h=a
n2 persist uptoIdx=1 uptoTerm=1 t=1
n2 ackSend to=n1 t=1 i=1
n2 campaign t=2
n2 term t=2
n2 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2
n2 votePersist t=2 cand=n2
n2 voteSend t=2 to=n2 granted candLast=1/1
n3 term t=2
n3 persist uptoIdx=1 uptoTerm=1 t=2 vote=n2
n3 votePersist t=2 cand=n2
n3 voteSend t=2 to=n2 granted candLast=1/1
n2 leader t=2 last=1 lastTerm=1 h=a conf=n1,n2,n3 voters=n2,n3
`
