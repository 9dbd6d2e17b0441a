package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"capsize/nemesis/agent/packets"
)

func TestAnAgentShapesWhatItsPeersSendAndHealsIt(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			s := newSession(t)
			s.hello(func(h *Hello) {
				h.Node, h.Peers = "n1", map[string]Peer{"n1": {Address: a.self}, "n2": {Address: a.peer}}
			})
			for _, ability := range s.must(Request{Survey: &struct{}{}}).Survey.Abilities {
				if strings.HasPrefix(ability.Name, "packet.") && ability.How == "" {
					t.Fatalf("%s: %s", ability.Name, ability.Why)
				}
			}
			all := packets.Shape{Loss: 1}
			lossy := Request{Shape: &Shape{Pairs: []ShapedPair{{Pair{"n2", "n1"}, all}, {Pair{"n1", "n2"}, all}}}}
			s.must(lossy)
			if got := datagrams(t, a.peer, a.self, 5); got != 0 {
				t.Errorf("%d datagrams arrived of a peer whose packets are all lost", got)
			}
			if got := datagrams(t, a.self, a.peer, 5); got != 5 {
				t.Errorf("%d of 5 arrive at the peer: that direction is the peer's to shape", got)
			}
			if got := s.must(lossy).Shape.Counts; len(got) != 1 || got[0] != (ShapedCount{Pair{"n2", "n1"}, packets.Count{Seen: 5, Lost: 5}}) {
				t.Errorf("counts %+v", got)
			}
			// A partition over it, and its heal, leave the shape in force.
			s.must(Request{Block: &Block{Pairs: []Pair{{"n2", "n1"}}}})
			s.must(Request{Block: &Block{}})
			if got := datagrams(t, a.peer, a.self, 5); got != 0 {
				t.Errorf("%d datagrams arrived after the heal of a partition", got)
			}
			s.must(Request{Shape: &Shape{}})
			if got := datagrams(t, a.peer, a.self, 5); got != 5 {
				t.Errorf("%d of 5 arrive after the heal", got)
			}
			if r := s.call(Request{Shape: &Shape{Pairs: []ShapedPair{{Pair{"n9", "n1"}, all}}}}); !strings.Contains(r.Error, `no node "n9"`) {
				t.Errorf("a node that is not known: %q", r.Error)
			}
			s.must(lossy)
			s.must(Request{Bye: &Bye{}})
			if got := tables(t); len(got) != 0 {
				t.Errorf("the agent left tables %v", got)
			}
		})
	}
}

func TestAShapeThatWasOvertakenIsRefused(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	p := newPacketTool(helloWithout3("127.0.0.1", "127.0.0.2"), noBarrier{})
	if p.shaper == nil {
		t.Fatal(p.why)
	}
	defer func() { _ = p.heal(t.Context()) }()
	if _, err := p.shape(2, nil); err != nil {
		t.Fatal(err)
	}
	_, err := p.shape(1, []ShapedPair{{Pair{"n2", "n1"}, packets.Shape{Delay: time.Second}}})
	if err == nil || !strings.Contains(err.Error(), "overtaken") || len(p.shaper.Counts()) != 0 {
		t.Errorf("%v, shaped %v", err, p.shaper.Counts())
	}
}

func TestPeersOfOneAddressCannotBeShaped(t *testing.T) {
	p := newPacketTool(helloWithout3("127.0.0.1", "::ffff:127.0.0.1"), noBarrier{})
	if p.shaper != nil || !strings.Contains(p.why.Error(), "n1 and n2 have one address, "+netip.MustParseAddr("127.0.0.1").String()) {
		t.Errorf("%v", p.why)
	}
	if _, err := p.shape(1, []ShapedPair{{Pair{"n2", "n1"}, packets.Shape{Loss: 1}}}); err == nil {
		t.Error("a shape without a shaper was accepted")
	}
}

// helloWithout3 is of nodes that all have addresses.
func helloWithout3(self, peer string) *Hello {
	h := helloWith(self, peer)
	delete(h.Peers, "n3")
	return h
}
