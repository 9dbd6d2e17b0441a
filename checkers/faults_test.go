package checkers

import (
	"strings"
	"testing"

	"capsize/histories"
)

func TestFaults(t *testing.T) {
	whole := func(l *timeline, at float64, id int, nodes ...string) {
		l.fault(at, id, histories.Inject, nodes...)
		l.fault(at+1, id, histories.Landed, nodes...)
		l.fault(at+2, id, histories.Heal, nodes...)
		l.fault(at+3, id, histories.Healed, nodes...)
	}
	// unproven takes the proof away from the last event.
	unproven := func(l *timeline) { l.events[len(l.events)-1].Fault.Proof = nil }
	for name, test := range map[string]struct {
		planned  int
		history  func(l *timeline)
		want     Verdict
		says     string
		evidence FaultsEvidence // the numbers
	}{
		"none planned": {0, func(*timeline) {}, Valid, "no fault was planned", FaultsEvidence{}},
		"all landed and healed": {2, func(l *timeline) {
			whole(l, 1, 1, "n1")
			whole(l, 2, 2, "n2")
		}, Valid, "all 2 faults landed and were healed, 0 of them hit the leader", FaultsEvidence{Landed: 2, Healed: 2}},
		"one missed": {2, func(l *timeline) {
			whole(l, 1, 1, "n1")
			l.fault(5, 2, histories.Inject, "n2")
			l.fault(6, 2, histories.Missed, "n2")
		}, Unknown, "fault 2 (pause of one, n2): it missed: no such process", FaultsEvidence{Landed: 1, Healed: 1}},
		"one never began": {2, func(l *timeline) {
			whole(l, 1, 1, "n1")
		}, Unknown, "only 1 of 2 planned faults began", FaultsEvidence{Landed: 1, Healed: 1}},
		"none began": {2, func(*timeline) {}, Unknown, "only 0 of 2 planned faults began", FaultsEvidence{}},
		"one has no end": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Landed, "n1")
		}, Unknown, "still in force when the recording ended", FaultsEvidence{Landed: 1}},
		"one was only injected": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
		}, Unknown, "nothing says that it landed", FaultsEvidence{}},
		"one is stuck": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Landed, "n1")
			l.fault(3, 1, histories.Stuck, "n1")
		}, Unknown, "it is stuck, not healed: no such process", FaultsEvidence{Landed: 1}},
		"one is healed at the second try": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Landed, "n1")
			l.fault(3, 1, histories.Stuck, "n1")
			l.fault(4, 1, histories.Healed, "n1")
		}, Valid, "", FaultsEvidence{Landed: 1, Healed: 1}},
		"landed without proof": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Landed, "n1")
			unproven(l)
			l.fault(3, 1, histories.Healed, "n1")
		}, Unknown, "landed, without proof", FaultsEvidence{Healed: 1}},
		"healed without proof": {1, func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Landed, "n1")
			l.fault(3, 1, histories.Healed, "n1")
			unproven(l)
		}, Unknown, "healed, without proof", FaultsEvidence{Landed: 1}},
		"on the leader of the moment": {3, func(l *timeline) {
			l.at(0, says("n1", "leader", 2))
			l.at(0, says("n2", "follower", 2))
			whole(l, 1, 1, "n1", "n3") // hits
			l.at(5, says("n2", "leader", 3))
			whole(l, 6, 2, "n1") // n1 leads an older term
			whole(l, 10, 3, "n2")
		}, Valid, "2 of them hit the leader", FaultsEvidence{Landed: 3, Healed: 3, OnLeader: 2}},
		"on a leader that is gone": {1, func(l *timeline) {
			l.at(0, says("n1", "leader", 2))
			l.at(0, histories.Event{Process: histories.Observer, Type: histories.Info, Node: "n1", Status: &histories.Status{}})
			whole(l, 1, 1, "n1")
		}, Valid, "0 of them", FaultsEvidence{Landed: 1, Healed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var l timeline
			test.history(&l)
			result := (&Faults{Planned: test.planned}).Check(t.Context(), &Run{History: l.events})
			if result.Verdict != test.want || !strings.Contains(result.Summary, test.says) {
				t.Errorf("%s: %s", result.Verdict, result.Summary)
			}
			e := result.Faults
			if e.Landed != test.evidence.Landed || e.Healed != test.evidence.Healed || e.OnLeader != test.evidence.OnLeader || e.Planned != test.planned || e.ByName["pause"] != e.Landed {
				t.Errorf("%+v", e)
			}
			if (len(e.Problems) > 0) != (result.Verdict == Unknown) {
				t.Errorf("problems %q", e.Problems)
			}
		})
	}
}
