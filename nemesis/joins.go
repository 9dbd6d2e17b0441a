package nemesis

import (
	"context"
	"fmt"
	"strings"
)

// addMember lets a node join that another step has removed: the removal is what holds it out, so
// that nobody is taken from the cluster for the sake of being added to it.
type addMember struct{}

// What an added node joins as.
const (
	asVoter   = "voter"
	asLearner = "learner"
)

func (addMember) About() About {
	return About{
		Name: "add", Package: "membership",
		Meaning: "a node that a step of the fault remove holds out of the cluster joins it with no data, under load; at the end it is removed again, or stays when the other step has ended before",
		Params: []Param{
			{Name: "as", Default: asVoter, Allowed: []string{asVoter, asLearner}, Meaning: "voter: it counts in every majority from the first moment, while it has nothing yet; learner: it has no vote"},
			leastVoters,
		},
		Target: always(Removed),
		Needs:  needsMembers,
	}
}

func (addMember) Plan(scene Scene) (Planned, error) {
	planned := Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ") + " as " + scene.Params["as"]}
	if scene.Params["as"] == asLearner {
		planned.Learners = scene.Targets
	}
	return planned, nil
}

func (addMember) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, errNoMembers
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		if !e.lockWhen(ctx, func() bool { return state.outBy != 0 }) {
			return "", fmt.Errorf("add %s: it is a member: %w", node, errNoneRemoved)
		}
		defer e.membership.Unlock()
		if state.addedBy != 0 {
			return "", fmt.Errorf("add %s: step %d has added it already", node, state.addedBy)
		}
		if _, err := e.awaitMembers(ctx, "no "+node, func(list []Member) bool { _, present := memberOf(list, node); return !present }); err != nil {
			return "", err
		}
		return e.letIn(ctx, node, p.ID, p.Params["as"])
	})
}

// letIn makes a node that is out a member for a step. Its process stays with the step that
// has removed it.
func (e *Effects) letIn(ctx context.Context, node string, id int, as string) (string, error) {
	state := e.states[node]
	state.addedBy = id
	change := MemberChange{addVoter, node}
	if as == asLearner {
		change.Op, state.learnerBy = addLearner, id
	}
	if err := e.join(ctx, node, state.outBy, change); err != nil {
		return "", err
	}
	list, err := e.awaitMembers(ctx, node+" as a "+as, func(list []Member) bool {
		m, present := memberOf(list, node)
		return present && m.Voter == (as == asVoter) && !m.Joint
	})
	if err != nil {
		return "", err
	}
	if err := e.restart(ctx, node, state.outBy); err != nil {
		return "", err
	}
	m, _ := memberOf(list, node)
	return fmt.Sprintf("%s joins as a %s, member %d: a majority of the voters lists %s", node, as, m.ID, describeMembers(list)), nil
}

func (addMember) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, nil
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		e.membership.Lock()
		defer e.membership.Unlock()
		state := e.states[node]
		if state.addedBy != p.ID {
			return "", nil // it was not added, or was removed again since
		}
		if state.outBy == 0 {
			state.addedBy = 0
			return e.stays(ctx, node)
		}
		list, err := e.awaitMembers(ctx, "anything", func([]Member) bool { return true })
		if err != nil {
			return "", err
		}
		if _, present := memberOf(list, node); !present {
			state.addedBy, state.learnerBy = 0, 0
			return "", nil
		}
		return e.putOut(ctx, node, state.outBy, int(p.Params.Count("voters")))
	})
}

// promote gives a learner a vote that another step left without one.
type promote struct{}

func (promote) About() About {
	return About{
		Name: "promote", Package: "membership",
		Meaning: "a learner, which a step of the fault demote or add has made, becomes a voter, under load; at the end it is a learner again, or stays a voter when the other step has ended before",
		Params:  []Param{leastVoters},
		Target:  always(Learner),
		Needs:   needsMembers,
	}
}

func (promote) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (promote) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, errNoMembers
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		if !e.lockWhen(ctx, func() bool { return state.learnerBy != 0 }) {
			return "", fmt.Errorf("promote %s: %w", node, errNoLearner)
		}
		defer e.membership.Unlock()
		if state.promotedBy != 0 {
			return "", fmt.Errorf("promote %s: step %d has promoted it already", node, state.promotedBy)
		}
		if _, err := e.awaitMembers(ctx, node+" as a learner", func(list []Member) bool {
			m, present := memberOf(list, node)
			return present && !m.Voter && !m.Joint
		}); err != nil {
			return "", err
		}
		state.promotedBy = p.ID
		return e.promote(ctx, node)
	})
}

func (promote) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	if e.members == nil {
		return Proof{}, nil
	}
	return onEach(p.Nodes, func(node string) (string, error) {
		e.membership.Lock()
		defer e.membership.Unlock()
		state := e.states[node]
		if state.promotedBy != p.ID {
			return "", nil // it was not promoted, or is another member since
		}
		line, err := e.takeVoteAgain(ctx, node, int(p.Params.Count("voters")))
		if err == nil {
			state.promotedBy = 0
		}
		return line, err
	})
}

// takeVoteAgain makes a learner of a node again while the step goes on that made it one.
func (e *Effects) takeVoteAgain(ctx context.Context, node string, least int) (string, error) {
	if e.states[node].learnerBy == 0 {
		return e.stays(ctx, node)
	}
	list, err := e.awaitMembers(ctx, node, func(list []Member) bool {
		m, present := memberOf(list, node)
		return present && !m.Joint
	})
	if err != nil {
		return "", err
	}
	if m, _ := memberOf(list, node); !m.Voter {
		return fmt.Sprintf("%s has no vote: a majority of the voters lists %s", node, describeMembers(list)), nil
	}
	return e.demote(ctx, node, list, least)
}

// stays tells that a node is a member when the step is over that would have it otherwise.
func (e *Effects) stays(ctx context.Context, node string) (string, error) {
	list, err := e.awaitMembers(ctx, node, func(list []Member) bool { _, present := memberOf(list, node); return present })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s stays as it is, since the step that this one built on is over: a majority of the voters lists %s", node, describeMembers(list)), nil
}

// lockWhen locks the members as soon as that holds: the step that a fault builds on may be
// under way. It gives up after [leaderLimit].
func (e *Effects) lockWhen(ctx context.Context, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderLimit)
	defer cancel()
	for {
		e.membership.Lock()
		if holds() {
			return true
		}
		e.membership.Unlock()
		if !sleep(ctx, memberPoll) {
			return false
		}
	}
}
