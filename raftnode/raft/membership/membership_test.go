package membership

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"capsize/raftnode/raft/quorum"
)

func restore(t *testing.T, s State) Config {
	t.Helper()
	c, err := Restore(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func add(id uint64) Change     { return Change{AddNode, id} }
func learner(id uint64) Change { return Change{AddLearnerNode, id} }
func remove(id uint64) Change  { return Change{RemoveNode, id} }

func TestSimpleChanges(t *testing.T) {
	three := State{Voters: []uint64{1, 2, 3}}
	for _, test := range []struct {
		name    string
		from    State
		changes []Change
		want    string
		err     error
	}{
		{"the first voter", State{}, []Change{add(1)}, "voters=(1)", nil},
		{"one more voter", three, []Change{add(4)}, "voters=(1 2 3 4)", nil},
		{"a voter that is one", three, []Change{add(2)}, "voters=(1 2 3)", nil},
		{"a voter less", three, []Change{remove(1)}, "voters=(2 3)", nil},
		{"nobody that is removed", three, []Change{remove(9)}, "voters=(1 2 3)", nil},
		{"two voters at once", three, []Change{add(4), add(5)}, "", ErrTooMuch},
		{"one for another at once", three, []Change{add(4), remove(3)}, "", ErrTooMuch},
		{"there and back", three, []Change{add(4), remove(4)}, "voters=(1 2 3)", nil},
		{"the last voter", State{Voters: []uint64{1}}, []Change{remove(1)}, "", ErrNoVoter},
		{"many learners at once", three, []Change{learner(4), learner(5), learner(6)}, "voters=(1 2 3) learners=(4 5 6)", nil},
		{"a learner that is promoted", State{Voters: []uint64{1}, Learners: []uint64{2}}, []Change{add(2)}, "voters=(1 2)", nil},
		{"a voter that is demoted", three, []Change{learner(3)}, "voters=(1 2) learners=(3)", nil},
		{"what the user decided against", three, []Change{remove(0), add(0)}, "voters=(1 2 3)", nil},
		{"an update", three, []Change{{UpdateNode, 2}}, "voters=(1 2 3)", nil},
		{"while joint", State{Voters: []uint64{1}, VotersOutgoing: []uint64{1, 2}}, []Change{add(3)}, "", ErrJoint},
	} {
		t.Run(test.name, func(t *testing.T) {
			from := restore(t, test.from)
			before := from.String()
			got, err := from.Simple(test.changes...)
			if !errors.Is(err, test.err) || err == nil && got.String() != test.want {
				t.Errorf("got %v, %v, want %s, %v", got, err, test.want, test.err)
			}
			if err != nil && got.String() != before || from.String() != before {
				t.Errorf("a change that failed, or the change of a copy, made %v of %s", got, before)
			}
		})
	}
}

func TestJointChanges(t *testing.T) {
	for _, test := range []struct {
		name        string
		from        State
		changes     []Change
		joint, left string
	}{
		{
			"two more voters", State{Voters: []uint64{1}}, []Change{add(2), add(3)},
			"voters=(1 2 3)&&(1)", "voters=(1 2 3)",
		},
		{
			"one for another", State{Voters: []uint64{1, 2, 3}}, []Change{add(4), remove(1)},
			"voters=(2 3 4)&&(1 2 3)", "voters=(2 3 4)",
		},
		{
			"a voter that is demoted learns only when it is left", State{Voters: []uint64{1, 2}}, []Change{learner(2), learner(3)},
			"voters=(1)&&(1 2) learners=(3) learners_next=(2)", "voters=(1) learners=(2 3)",
		},
		{
			"demoted, then wanted again", State{Voters: []uint64{1, 2}}, []Change{learner(2), add(2)},
			"voters=(1 2)&&(1 2)", "voters=(1 2)",
		},
		{
			"demoted, then removed", State{Voters: []uint64{1, 2}}, []Change{learner(2), remove(2)},
			"voters=(1)&&(1 2)", "voters=(1)",
		},
		{
			"no change at all", State{Voters: []uint64{1, 2}}, nil,
			"voters=(1 2)&&(1 2)", "voters=(1 2)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			joint, err := restore(t, test.from).EnterJoint(false, test.changes...)
			if err != nil || joint.String() != test.joint {
				t.Fatalf("got %v, %v, want %s", joint, err, test.joint)
			}
			if _, err := joint.EnterJoint(false, add(9)); !errors.Is(err, ErrJoint) {
				t.Errorf("a joint configuration was entered again: %v", err)
			}
			left, err := joint.LeaveJoint()
			if err != nil || left.String() != test.left {
				t.Fatalf("got %v, %v, want %s", left, err, test.left)
			}
			if _, err := left.LeaveJoint(); !errors.Is(err, ErrNotJoint) {
				t.Errorf("it was left twice: %v", err)
			}
		})
	}
	if _, err := (Config{}).EnterJoint(false, add(1)); !errors.Is(err, ErrNoVoter) {
		t.Errorf("a configuration without voters was left for another: %v", err)
	}
}

func TestStatesThatCannotBeAreRefused(t *testing.T) {
	for name, s := range map[string]State{
		"a voter that learns":              {Voters: []uint64{1, 2}, Learners: []uint64{2}},
		"an outgoing voter that learns":    {Voters: []uint64{1}, VotersOutgoing: []uint64{2}, Learners: []uint64{2}},
		"a learner to be that is no voter": {Voters: []uint64{1}, VotersOutgoing: []uint64{1}, LearnersNext: []uint64{2}},
		"a learner to be that goes on":     {Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1, 2}, LearnersNext: []uint64{2}},
		"to be left, but not joint":        {Voters: []uint64{1}, AutoLeave: true},
		"nobody":                           {Voters: []uint64{0}},
	} {
		if c, err := Restore(s); err == nil {
			t.Errorf("%s: restored as %v", name, c)
		}
	}
}

// Whatever is changed, in whatever order: any majority before and any after share a node,
// a configuration and its stored form are the same, and no change alters what it began with.
func TestAnyChangesKeepMajoritiesOverlapping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := Config{}.Simple(add(1))
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			changes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Change {
				return Change{ChangeType(rapid.Int32Range(0, 3).Draw(t, "type")), rapid.Uint64Range(0, 5).Draw(t, "node")}
			}), 0, 3).Draw(t, "changes")
			before := c.String()
			var next Config
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				next, err = c.Simple(changes...)
			case 1:
				next, err = c.EnterJoint(rapid.Bool().Draw(t, "auto"), changes...)
			default:
				next, err = c.LeaveJoint()
			}
			if c.String() != before {
				t.Fatalf("a change made %v of %s", c, before)
			}
			if err != nil {
				continue
			}
			if !overlap(c.Voters, next.Voters) {
				t.Fatalf("%v and %v could decide apart", c, next)
			}
			again, err := Restore(next.State())
			if err != nil || again.String() != next.String() || !again.State().Equivalent(next.State()) {
				t.Fatalf("%v is restored as %v: %v", next, again, err)
			}
			c = next
		}
	})
}

// overlap tries all sets of nodes: two that decide, one in each configuration, share one.
func overlap(a, b quorum.Joint) bool {
	ids := quorum.New(slices.Concat(a.Voters(), b.Voters()))
	decides := func(j quorum.Joint, set uint) bool {
		return j.Vote(func(id uint64) quorum.Answer {
			if set>>slices.Index(ids, id)&1 == 1 {
				return quorum.Yes
			}
			return quorum.No
		}) == quorum.Won
	}
	for set := uint(0); set < 1<<len(ids); set++ {
		if decides(a, set) && decides(b, ^set) {
			return false
		}
	}
	return true
}
