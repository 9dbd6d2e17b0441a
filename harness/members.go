package harness

import (
	"context"

	"capsize/clusters"
	"capsize/nemesis"
	"capsize/nemesis/agent"
	"capsize/systems"
)

// members is a system's interface to its members, as the nemesis wants it.
type members struct {
	system  systems.Membership
	cluster clusters.Cluster
	prepare func(clusters.Process) clusters.Process // for the faults of the schedule
}

// members returns nil where the system has no such interface.
func (d *deployment) members() nemesis.Members {
	if system, ok := d.system.(systems.Membership); ok {
		return members{system, d.cluster, d.prepare}
	}
	return nil
}

// addMembership adds to what the agents can do what the system itself can.
func (d *deployment) addMembership(survey nemesis.Survey) {
	ability := agent.Ability{Name: nemesis.Membership, How: "the system's own interface"}
	if d.members() == nil {
		ability.How, ability.Why = "", d.system.Name()+" has no interface to change its members: choose other faults"
	}
	for node := range survey {
		survey[node] = append(survey[node], ability)
	}
}

func (m members) List(ctx context.Context, node string) ([]nemesis.Member, error) {
	list, err := m.system.Members(ctx, m.cluster, node)
	converted := make([]nemesis.Member, len(list))
	for i, one := range list {
		converted[i] = nemesis.Member(one)
	}
	return converted, err
}

func (m members) Change(ctx context.Context, changes ...nemesis.MemberChange) error {
	converted := make([]systems.MemberChange, len(changes))
	for i, one := range changes {
		converted[i] = systems.MemberChange{Op: systems.MemberOp(one.Op), Node: one.Node}
	}
	return m.system.Change(ctx, m.cluster, converted...)
}

func (m members) Transfer(ctx context.Context, to string) error {
	return m.system.Transfer(ctx, m.cluster, to)
}

func (m members) Joining(node, through string) clusters.Process {
	return m.prepare(m.system.Joining(m.cluster, node, through))
}
