package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// Members is the system's own interface to the members of its cluster.
type Members interface {
	// List returns the members as one node knows them.
	List(ctx context.Context, node string) ([]Member, error)
	// Change makes changes together, and returns when they are in force. It goes through
	// elections until ctx ends.
	Change(ctx context.Context, changes ...MemberChange) error
	// Transfer makes a voter lead, and returns when it does.
	Transfer(ctx context.Context, to string) error
	// Joining is the process of a node that was added while it had no data: it joins through
	// another, and goes on with its data when it is started again.
	Joining(node, through string) clusters.Process
}

// Member is a member of the cluster. One that was removed and added again has another ID.
type Member struct {
	Node  string
	ID    uint64
	Voter bool // else a learner
	Joint bool // a change of its vote is under way
}

// MemberChange is one change of the members.
type MemberChange struct{ Op, Node string }

// The operations of a change.
const (
	addVoter     = "add"
	addLearner   = "add-learner"
	promoteVoter = "promote"
	demoteVoter  = "demote"
	removeMember = "remove"
)

// Membership is the ability that the faults of membership need. No agent has it: whoever
// gives the nemesis its Members adds it to the survey.
const Membership = "members"

var errNoMembers = errors.New("the system has no interface to change its members")

func memberOf(list []Member, node string) (Member, bool) {
	i := slices.IndexFunc(list, func(m Member) bool { return m.Node == node })
	if i < 0 {
		return Member{}, false
	}
	return list[i], true
}

func votersIn(list []Member) int {
	n := 0
	for _, m := range list {
		if m.Voter {
			n++
		}
	}
	return n
}

func describeMembers(list []Member) string {
	var each []string
	for _, m := range list {
		one := fmt.Sprintf("%s (%d)", m.Node, m.ID)
		if !m.Voter {
			one += " learner"
		}
		each = append(each, one)
	}
	return strings.Join(each, ", ")
}

// awaitMembers waits until a majority of the voters list members for which holds is true, and
// returns that list: what they agree on can be undone by another change only.
func (e *Effects) awaitMembers(ctx context.Context, goal string, holds func([]Member) bool) ([]Member, error) {
	for {
		agree, seen := make(map[string]int), make(map[string][]Member)
		var views []string
		for _, node := range e.nodes {
			list, err := e.members.List(ctx, node)
			if err != nil {
				views = append(views, fmt.Sprintf("%s does not tell (%v)", node, err))
				continue
			}
			views = append(views, fmt.Sprintf("%s lists %s", node, describeMembers(list)))
			if me, present := memberOf(list, node); !present || !me.Voter || !holds(list) {
				continue
			}
			key := fmt.Sprint(list)
			agree[key]++
			seen[key] = list
			if agree[key] > votersIn(list)/2 {
				return list, nil
			}
		}
		if !sleep(ctx, memberPoll) {
			return nil, fmt.Errorf("no majority of the voters lists %s (%w): %s", goal, ctx.Err(), strings.Join(views, "; "))
		}
	}
}

// expel removes a node from the cluster for a step, and ends its process.
func (e *Effects) expel(ctx context.Context, node string, id int, least int) (string, error) {
	if e.members == nil {
		return "", errNoMembers
	}
	e.membership.Lock()
	defer e.membership.Unlock()
	return e.putOut(ctx, node, id, least)
}

// putOut is expel, for who holds the members' lock. A process that the step itself has ended
// before stays down.
func (e *Effects) putOut(ctx context.Context, node string, id int, least int) (string, error) {
	down := e.downBy(node)
	if down != 0 && down != id {
		return "", fmt.Errorf("%s is down: step %d killed it", node, down)
	}
	list, err := e.awaitMembers(ctx, node, func(list []Member) bool { _, present := memberOf(list, node); return present })
	if err != nil {
		return "", err
	}
	before, _ := memberOf(list, node)
	if left := votersIn(list) - 1; before.Voter && left < least {
		return "", fmt.Errorf("remove %s: %d voters would be left, and no fewer than %d may be (parameter voters)", node, left, least)
	}
	if err := e.members.Change(ctx, MemberChange{removeMember, node}); err != nil {
		return "", err
	}
	list, err = e.awaitMembers(ctx, "no "+node, func(list []Member) bool { _, present := memberOf(list, node); return !present })
	if err != nil {
		return "", err
	}
	state := e.states[node]
	state.outBy, state.addedBy, state.learnerBy, state.promotedBy = id, 0, 0, 0
	line := node + ": its process is down"
	if down == 0 {
		if line, err = e.takeDown(ctx, node, id, "kill"); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s, member %d, removed: a majority of the voters lists %s; %s", node, before.ID, describeMembers(list), line), nil
}

func (e *Effects) downBy(node string) int {
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	return state.downBy
}

// readmit undoes expel: the node joins with no data as a learner, and is promoted. Whatever of
// that is done already is not done again.
func (e *Effects) readmit(ctx context.Context, node string, id int) (string, error) {
	if e.members == nil {
		return "", nil // nothing was done either
	}
	e.membership.Lock()
	defer e.membership.Unlock()
	list, err := e.awaitMembers(ctx, "anything", func([]Member) bool { return true })
	if err != nil {
		return "", err
	}
	if _, present := memberOf(list, node); !present {
		if err := e.join(ctx, node, id, MemberChange{addLearner, node}); err != nil {
			return "", err
		}
	}
	if err := e.restart(ctx, node, id); err != nil {
		return "", err
	}
	line, err := e.promote(ctx, node)
	if state := e.states[node]; err == nil && state.outBy == id {
		state.outBy, state.learnerBy = 0, 0
	}
	return line, err
}

// join makes a node that is no member, or leaves by these changes, a member without data. Its
// process is down afterwards, and joins when it is started.
func (e *Effects) join(ctx context.Context, node string, id int, changes ...MemberChange) error {
	state := e.states[node]
	if by := e.downBy(node); by == 0 {
		if _, err := e.takeDown(ctx, node, id, "kill"); err != nil {
			return err
		}
	} else if by != id {
		return fmt.Errorf("%s is down: step %d killed it", node, by)
	}
	process := e.processes[node]
	if process.Data == "" {
		return fmt.Errorf("%s: it is not known where its process keeps its data", node)
	}
	state.mu.Lock()
	err := e.settleKill(ctx, node)
	state.mu.Unlock()
	if err != nil {
		return err
	}
	if _, err := e.ask(ctx, node, agent.Request{Aside: &agent.Aside{Process: process.Name, Dir: process.Data}}); err != nil {
		return err
	}
	if err := e.members.Change(ctx, changes...); err != nil {
		return err
	}
	list, err := e.awaitMembers(ctx, node, func(list []Member) bool { _, present := memberOf(list, node); return present })
	if err != nil {
		return err
	}
	// Whoever is asked for the way in must know of this node already.
	through, err := e.through(ctx, node, list)
	if err != nil {
		return err
	}
	joining := e.members.Joining(node, through)
	state.mu.Lock()
	defer state.mu.Unlock()
	state.joining = &joining
	return nil
}

// through returns a node that lists another under its present ID.
func (e *Effects) through(ctx context.Context, node string, list []Member) (string, error) {
	now, _ := memberOf(list, node)
	for _, other := range without(e.nodes, []string{node}) {
		view, err := e.members.List(ctx, other)
		if err != nil {
			continue
		}
		if seen, _ := memberOf(view, node); seen.ID == now.ID {
			return other, nil
		}
	}
	return "", fmt.Errorf("%s cannot join: no node lists it as member %d any more", node, now.ID)
}

// demote makes a learner of a voter of that list, and proves that it is one. The caller holds
// the members' lock.
func (e *Effects) demote(ctx context.Context, node string, list []Member, least int) (string, error) {
	if left := votersIn(list) - 1; left < least {
		return "", fmt.Errorf("demote %s: %d voters would be left, and no fewer than %d may be (parameter voters)", node, left, least)
	}
	if err := e.members.Change(ctx, MemberChange{demoteVoter, node}); err != nil {
		return "", err
	}
	list, err := e.awaitMembers(ctx, node+" as a learner", func(list []Member) bool {
		m, present := memberOf(list, node)
		return present && !m.Voter && !m.Joint
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s has no vote: a majority of the voters lists %s", node, describeMembers(list)), nil
}

// promote makes a voter of a member, and proves that it is one and serves.
func (e *Effects) promote(ctx context.Context, node string) (string, error) {
	list, err := e.awaitMembers(ctx, node, func(list []Member) bool { _, present := memberOf(list, node); return present })
	if err != nil {
		return "", err
	}
	if m, _ := memberOf(list, node); !m.Voter {
		if err := e.members.Change(ctx, MemberChange{promoteVoter, node}); err != nil {
			return "", err
		}
	}
	list, err = e.awaitMembers(ctx, node+" as a voter", func(list []Member) bool {
		m, _ := memberOf(list, node)
		return m.Voter && !m.Joint
	})
	if err != nil {
		return "", err
	}
	if err := e.provenReady(ctx, node); err != nil {
		return "", err
	}
	m, _ := memberOf(list, node)
	return fmt.Sprintf("%s is a voter, member %d, and answers: a majority of the voters lists %s", node, m.ID, describeMembers(list)), nil
}
