package raft

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, name string) []byte {
	if b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, name); len(b) > 0 {
		return b
	}
	return nil // empty and absent are the same on the wire
}

func drawEntry(t *rapid.T) Entry {
	return Entry{
		Type: EntryType(rapid.Int32Range(0, 1).Draw(t, "type")), Term: rapid.Uint64().Draw(t, "term"),
		Index: rapid.Uint64().Draw(t, "index"), Data: drawBytes(t, "data"),
	}
}

func drawMessage(t *rapid.T) Message {
	m := Message{
		Type: MessageType(rapid.Int32Range(0, 18).Draw(t, "type")),
		To:   rapid.Uint64().Draw(t, "to"), From: rapid.Uint64().Draw(t, "from"),
		Term: rapid.Uint64().Draw(t, "term"), LogTerm: rapid.Uint64().Draw(t, "logTerm"), Index: rapid.Uint64().Draw(t, "index"),
		Commit: rapid.Uint64().Draw(t, "commit"), Reject: rapid.Bool().Draw(t, "reject"),
		RejectHint: rapid.Uint64().Draw(t, "hint"), Context: drawBytes(t, "context"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "entries") {
		m.Entries = append(m.Entries, drawEntry(t))
	}
	return m
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		got, err := DecodeMessage(EncodeMessage(nil, m))
		if err != nil || !cmp.Equal(got, m) {
			t.Fatalf("%v\n%s", err, cmp.Diff(m, got))
		}
		e := drawEntry(t)
		gotEntry, err := DecodeEntry(EncodeEntry(nil, e))
		if err != nil || !cmp.Equal(gotEntry, e) {
			t.Fatalf("%v\n%s", err, cmp.Diff(e, gotEntry))
		}
	})
}

// The bytes are spelt out: field numbers are a promise to others.
func TestTheWireFormHasEtcdRaftsFieldNumbers(t *testing.T) {
	m := Message{
		Type: MsgApp, To: 2, From: 3, Term: 4, LogTerm: 5, Index: 6,
		Entries: []Entry{{Type: EntryConfChange, Term: 7, Index: 8, Data: []byte("d")}, {}},
		Commit:  9, Reject: true, RejectHint: 10, Context: []byte("c"),
	}
	want := "0803" + "1002" + "1803" + "2004" + "2805" + "3006" + "3a09" + "0801" + "1007" + "1808" + "220164" + "3a00" + "4009" + "5001" + "580a" + "620163"
	if got := hex.EncodeToString(EncodeMessage(nil, m)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEncodingAppends(t *testing.T) {
	if got := EncodeEntry([]byte("before"), Entry{Term: 1}); !bytes.HasPrefix(got, []byte("before")) {
		t.Errorf("got %q", got)
	}
	if got := EncodeMessage([]byte("before"), Message{Term: 1}); !bytes.HasPrefix(got, []byte("before")) {
		t.Errorf("got %q", got)
	}
}

func TestDecodingKeepsNothingOfTheBuffer(t *testing.T) {
	buffer := EncodeMessage(nil, Message{Entries: []Entry{{Data: []byte("data")}}, Context: []byte("context")})
	m, err := DecodeMessage(buffer)
	must(t, err)
	clear(buffer)
	if string(m.Entries[0].Data) != "data" || string(m.Context) != "context" {
		t.Errorf("got %q, %q", m.Entries[0].Data, m.Context)
	}
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	b := EncodeMessage(nil, Message{Type: MsgVote, Term: 3})
	b = protowire.AppendBytes(protowire.AppendTag(b, 77, protowire.BytesType), []byte("of another time"))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 99, protowire.Fixed64Type), 1)
	m, err := DecodeMessage(b)
	if err != nil || m.Type != MsgVote || m.Term != 3 {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	number := func(f protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, f, protowire.VarintType), v)
	}
	text := func(f protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, f, protowire.BytesType), v)
	}
	for name, b := range map[string][]byte{
		"cut off":                         EncodeMessage(nil, Message{Context: []byte("context")})[:4],
		"a tag cut off":                   {0x80},
		"a term that is bytes":            text(fieldTerm, []byte("x")),
		"a context that is a number":      number(fieldContext, 1),
		"entries that are a number":       number(fieldEntries, 1),
		"an entry cut off":                text(fieldEntries, []byte{0x80}),
		"an entry whose data is a number": text(fieldEntries, number(fieldEntryData, 1)),
		// Cut to 32 bits it would be a MsgHup.
		"a type that does not fit":        number(fieldType, 1<<32),
		"an entry type that does not fit": text(fieldEntries, number(fieldEntryType, 1<<32)),
	} {
		if m, err := DecodeMessage(b); err == nil {
			t.Errorf("%s: decoded to %v", name, m)
		}
	}
	for name, b := range map[string][]byte{"cut off": {0x10}, "an index that is bytes": text(fieldEntryIndex, nil)} {
		if e, err := DecodeEntry(b); err == nil {
			t.Errorf("%s: decoded to %v", name, e)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(EncodeMessage(nil, Message{Type: MsgApp, To: 1, From: 2, Term: 3, LogTerm: 2, Index: 1, Commit: 1, Entries: []Entry{{Index: 2, Term: 3, Data: []byte("x")}, {}}}))
	f.Add(EncodeMessage(nil, Message{Type: MsgAppResp, Reject: true, RejectHint: 4, Context: []byte("c")}))
	f.Add([]byte{0x3a, 0x80})
	f.Add([]byte{0x4a, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := DecodeMessage(EncodeMessage(nil, m))
		if err != nil || !cmp.Equal(m, again) {
			t.Fatalf("%v became %v, %v", m, again, err)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(EncodeEntry(nil, Entry{Type: EntryConfChange, Term: 1, Index: 2, Data: []byte("data")}))
	f.Add([]byte{0x22, 0x05, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		again, err := DecodeEntry(EncodeEntry(nil, e))
		if err != nil || !cmp.Equal(e, again) {
			t.Fatalf("%v became %v, %v", e, again, err)
		}
	})
}

// FuzzStep lets anything that decodes come from the network, in any role: the node may
// refuse it or stand still, but not crash, and its own data must stay sound.
func FuzzStep(f *testing.F) {
	frame := func(messages ...Message) (b []byte) {
		for _, m := range messages {
			b = protowire.AppendBytes(b, EncodeMessage(nil, m))
		}
		return b
	}
	f.Add(uint8(Follower), frame(
		Message{Type: MsgApp, From: 2, To: 1, Term: 2, Entries: []Entry{{Index: 1, Term: 1}, {Index: 2, Term: 2}}},
		Message{Type: MsgApp, From: 3, To: 1, Term: 3, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 3}}, Commit: 9},
		Message{Type: MsgHeartbeat, From: 3, To: 1, Term: 3, Commit: 9}))
	f.Add(uint8(Candidate), frame(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1}, Message{Type: MsgPreVote, From: 2, To: 1, Term: ^uint64(0) - 1}))
	f.Add(uint8(Leader), frame(
		Message{Type: MsgAppResp, From: 2, To: 1, Term: 1, Index: 9, Reject: true, RejectHint: ^uint64(0), LogTerm: 1},
		Message{Type: MsgAppResp, From: 2, To: 1, Term: 1, Index: ^uint64(0)},
		Message{Type: MsgHeartbeatResp, From: 2, To: 1, Term: 1, Context: []byte("\xff\xff\xff\xff\xff\xff\xff\xff")},
		Message{Type: MsgProp, From: 2, To: 1, Entries: []Entry{{Data: []byte("x")}}},
		Message{Type: MsgReadIndex, From: 3, To: 1, Entries: []Entry{{}}}))
	f.Fuzz(func(t *testing.T, role uint8, b []byte) {
		l := newLab(t, 3, func(c *nodeConfig) { c.PreVote, c.CheckQuorum, c.MaxInflightMsgs = role&4 != 0, role&8 != 0, 2 })
		n := l.nodes[1]
		switch Role(role % 4) {
		case Leader:
			l.elect(1)
		case Candidate, PreCandidate:
			must(t, n.Campaign())
		case Follower:
		}
		for len(b) > 0 {
			data, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return
			}
			b = b[size:]
			m, err := DecodeMessage(data)
			if err != nil {
				continue
			}
			_ = n.Step(m)
			if n.Err() != nil {
				return
			}
			l.ready(1)
			l.persist(1)
			if n.Err() != nil {
				return
			}
			checkSound(t, n.raft)
		}
	})
}

func checkSound(t *testing.T, r *raft) {
	if r.log.committed > r.log.lastIndex() || r.log.apply.given > r.log.applicable(false) {
		t.Errorf("committed up to %d, given out up to %d, of %d", r.log.committed, r.log.apply.given, r.log.lastIndex())
	}
	for _, p := range r.progress {
		if r.role == Leader && (p.match >= p.next || p.match > r.log.lastIndex() || p.inflight.count > p.inflight.mostMessages) {
			t.Errorf("progress of node %d: %+v", p.id, p)
		}
	}
}
