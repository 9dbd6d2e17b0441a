package nemesis

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const memberPoll = 20 * time.Millisecond

var (
	needsMembers = always([]string{Membership})
	leastVoters  = Param{
		Name: "voters", Kind: Count, Default: "3", Least: "1", Most: "25",
		Meaning: "how many voters must be left; the step misses where there would be fewer",
	}
)

// enoughVoters refuses a step that takes the vote from too many.
func enoughVoters(scene Scene, at int) *ScheduleError {
	least := int(scene.Params.Count("voters"))
	if left := len(scene.Nodes) - at; left < least {
		return &ScheduleError{Key: "target", Value: scene.Target, Allowed: fmt.Sprintf("fewer nodes, or params.voters: %d (%d nodes would be left as voters, and that wants %d)", max(left, 1), left, least)}
	}
	return nil
}

// remove takes members out of the cluster.
type remove struct{}

func (remove) About() About {
	return About{
		Name: "remove", Package: "membership",
		Meaning: "the node is removed from the cluster and its process ended; at the end it joins with no data, as a learner at first, and is a voter again",
		Params:  []Param{leastVoters},
		Target:  always(Spare),
		Needs:   needsMembers,
		Cards:   []Card{{Spare, nil, 1, 4}, {Leader, nil, 3, 4}},
	}
}

func (remove) Plan(scene Scene) (Planned, error) {
	if wrong := enoughVoters(scene, len(scene.Targets)); wrong != nil {
		return Planned{}, wrong
	}
	return Planned{Nodes: scene.Targets, Down: scene.Targets, Removed: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (remove) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		return e.expel(ctx, node, p.ID, int(p.Params.Count("voters")))
	})
}

func (remove) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) { return e.readmit(ctx, node, p.ID) })
}

// demote makes learners of voters.
type demote struct{}

func (demote) About() About {
	return About{
		Name: "demote", Package: "membership",
		Meaning: "the node loses its vote, and goes on as a learner; at the end it is promoted",
		Params:  []Param{leastVoters},
		Target:  always(Spare),
		Needs:   needsMembers,
		Cards:   []Card{{Spare, nil, 3, 4}, {Leader, nil, 3, 4}},
	}
}

func (demote) Plan(scene Scene) (Planned, error) {
	if wrong := enoughVoters(scene, len(scene.Targets)); wrong != nil {
		return Planned{}, wrong
	}
	return Planned{Nodes: scene.Targets, Learners: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (demote) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, errNoMembers
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		e.membership.Lock()
		defer e.membership.Unlock()
		list, err := e.awaitMembers(ctx, node+" as a voter", func(list []Member) bool { m, _ := memberOf(list, node); return m.Voter })
		if err != nil {
			return "", err
		}
		state := e.states[node]
		state.learnerBy, state.promotedBy = p.ID, 0
		return e.demote(ctx, node, list, int(p.Params.Count("voters")))
	})
}

func (demote) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, nil
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		e.membership.Lock()
		defer e.membership.Unlock()
		state := e.states[node]
		if state.learnerBy != p.ID {
			return "", nil // it kept its vote, or is another member since
		}
		line, err := e.promote(ctx, node)
		if err == nil {
			state.learnerBy = 0
		}
		return line, err
	})
}

// replace puts a fresh member in the place of another, in one change.
type replace struct{}

func (replace) About() About {
	return About{
		Name: "replace", Package: "membership",
		Meaning: "the node is killed, its data put aside, and a fresh voter of the same name takes its place in one joint change: a machine that was replaced as it should be",
		Params:  []Param{leastVoters},
		Target:  always(Spare),
		Needs:   needsMembers,
		Cards:   []Card{{Spare, nil, 3, 4}, {Leader, nil, 3, 4}},
	}
}

func (replace) Plan(scene Scene) (Planned, error) {
	if wrong := enoughVoters(scene, len(scene.Targets)); wrong != nil {
		return Planned{}, wrong
	}
	return takesDown(scene)
}

func (replace) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, errNoMembers
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		e.membership.Lock()
		defer e.membership.Unlock()
		if by := e.downBy(node); by != 0 {
			return "", fmt.Errorf("%s is down: step %d killed it", node, by)
		}
		list, err := e.awaitMembers(ctx, node, func(list []Member) bool { _, present := memberOf(list, node); return present })
		if err != nil {
			return "", err
		}
		before, _ := memberOf(list, node)
		if err := e.join(ctx, node, p.ID, MemberChange{removeMember, node}, MemberChange{addVoter, node}); err != nil {
			return "", err
		}
		list, err = e.awaitMembers(ctx, "a fresh "+node, func(list []Member) bool {
			m, present := memberOf(list, node)
			return present && m.ID != before.ID && m.Voter && !m.Joint
		})
		if err != nil {
			return "", err
		}
		if err := e.restart(ctx, node, p.ID); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, member %d, replaced: a majority of the voters lists %s", node, before.ID, describeMembers(list)), nil
	})
}

func (replace) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return remove{}.Heal(ctx, e, p)
}

// transfer hands leadership over.
type transfer struct{}

func (transfer) About() About {
	return About{
		Name: "transfer", Package: "membership",
		Meaning: "leadership is handed over to the target, by the system's own means",
		Target:  always(Follower),
		Needs:   needsMembers,
		Cards:   []Card{{Follower, nil, 3, 2}},
	}
}

func (transfer) Plan(scene Scene) (Planned, error) {
	if len(scene.Targets) != 1 {
		return Planned{}, &ScheduleError{Key: "target", Value: scene.Target, Allowed: "a single node: there is one leader"}
	}
	return Planned{Nodes: scene.Targets, Detail: "to " + scene.Targets[0]}, nil
}

func (transfer) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, errNoMembers
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		if err := e.members.Transfer(ctx, node); err != nil {
			return "", err
		}
		return node + " leads, as the cluster answers, instead of " + p.Leader, nil
	})
}

func (transfer) Heal(context.Context, *Effects, Planned) (Proof, error) {
	return Proof{Lines: []string{"nothing to undo: who leads may change at any time"}}, nil
}

// churn removes members one after the other, and lets each of them join again.
type churn struct{}

func (churn) About() About {
	return About{
		Name: "churn", Package: "membership",
		Meaning: "one target after the other is removed, and joins again with no data, for as long as the step lasts",
		Params: []Param{leastVoters, {
			Name: "out", Kind: Duration, Default: "200ms", Least: "0s", Most: "10m", Meaning: "how long each of them is no member",
		}},
		Target: always(All),
		Needs:  needsMembers,
		Cards:  []Card{{All, nil, 3, 4}},
	}
}

func (churn) Plan(scene Scene) (Planned, error) {
	if wrong := enoughVoters(scene, 1); wrong != nil {
		return Planned{}, wrong
	}
	return Planned{Nodes: scene.Targets, Down: scene.Targets[:1], Detail: strings.Join(scene.Targets, ", then ")}, nil
}

// Inject removes the first target.
func (churn) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes[:1], func(node string) (string, error) {
		return e.expel(ctx, node, p.ID, int(p.Params.Count("voters")))
	})
}

// Sustain goes round the targets.
func (churn) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	rounds := 0
	said := func() []string { return []string{fmt.Sprintf("%d members removed and joined again", rounds)} }
	for i := 0; ; i++ {
		node := p.Nodes[i%len(p.Nodes)]
		// Once begun, a change is finished: so it is known who is a member.
		uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit+e.readyLimit)
		var err error
		if i > 0 {
			_, err = e.expel(uncut, node, p.ID, int(p.Params.Count("voters")))
		}
		if err == nil && sleep(ctx, p.Params.Duration("out")) {
			if _, err = e.readmit(uncut, node, p.ID); err == nil {
				rounds++
			}
		}
		cancel()
		if err != nil || ctx.Err() != nil {
			return said(), err
		}
	}
}

func (churn) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return remove{}.Heal(ctx, e, p)
}
