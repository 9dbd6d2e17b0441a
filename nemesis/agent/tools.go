package agent

import (
	"context"
	"errors"

	"capsize/clusters"
)

// Names of abilities. A fault says which of them it needs.
const (
	Partitions = "partitions"
	Clients    = "partitions.clients" // cut from the checker's clients
	Processes  = "processes"          // start, kill, pause: every agent can
	DataFiles  = "files of data"      // change them while the process is down: every agent can

	PacketDelay     = "packet.delay"
	PacketLoss      = "packet.loss"
	PacketDuplicate = "packet.duplicate"
	PacketReorder   = "packet.reorder"
	PacketCorrupt   = "packet.corrupt"
	PacketRate      = "packet.rate"
)

// Ability is one thing that an agent can do on its node, or why it cannot.
type Ability struct {
	Name string `json:"name"`
	How  string `json:"how,omitempty"` // the mechanism: "nftables", "vDSO hook"; empty where there is none
	Why  string `json:"why,omitempty"` // there is none, and what to do about it
}

// tool makes one kind of fault on the node. Its own requests come through agent.handle,
// several at a time.
type tool interface {
	// survey tells what the tool can do here, and disturbs nothing by finding out.
	survey(ctx context.Context) []Ability
	// started is called for each new life of a process, before anyone is told of it: what
	// is in force for the process by its name applies to that life too.
	started(ctx context.Context, spec clusters.Process, pid int) error
	// heal undoes everything that the tool did, and lets go of what it holds. Nothing is
	// asked of the tool afterwards.
	heal(ctx context.Context) error
}

// newTools makes the tools of a session.
func (a *agent) newTools() []tool {
	a.limits = newLimitTool(a.hello, a.journal)
	a.packets = newPacketTool(a.hello, a.barrier)
	a.clocks = newClockTool(a.journal)
	a.disks = newDiskTool(a.hello.Dir, a.journal)
	a.hostClock = newHostClockTool(a.hello, a.journal)
	return []tool{a.limits, a.packets, a.clocks, a.disks, a.hostClock}
}

// survey asks all tools what they can do.
func (a *agent) survey(ctx context.Context) *SurveyReply {
	reply := &SurveyReply{Abilities: []Ability{{Name: Processes, How: "signals of the parent"}, {Name: DataFiles, How: "files of the run"}, a.partitions, a.clients}}
	for _, tool := range a.tools {
		reply.Abilities = append(reply.Abilities, tool.survey(ctx)...)
	}
	return reply
}

// started tells all tools of a new life of a process.
func (a *agent) started(ctx context.Context, spec clusters.Process, pid int) error {
	var problems []error
	for _, tool := range a.tools {
		problems = append(problems, tool.started(ctx, spec, pid))
	}
	return errors.Join(problems...)
}
