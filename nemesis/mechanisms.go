package nemesis

import (
	"fmt"
	"slices"
	"strings"

	"capsize/nemesis/agent"
)

// Mechanism is how an ability is had on one kind of cluster.
type Mechanism struct {
	How   string // in the order in which an agent tries them
	Needs string // what the machine must give; empty for nothing
}

// ClusterKinds are the kinds of clusters that mechanisms are listed for.
var ClusterKinds = []string{"local", "docker", "ssh"}

// mechanisms says for each ability how it is had on local, docker and ssh clusters. What the
// agents find on a given machine is what counts; this is what to expect, for people.
var mechanisms = map[string][3]Mechanism{
	agent.Partitions: {
		{"link proxies in user space", ""},
		{"nftables by netlink", "CAP_NET_ADMIN in the container"},
		{"nftables by netlink", "root"},
	},
	agent.Clients: {
		{"link proxies in user space", ""},
		{"nftables by netlink, at the client ports", "CAP_NET_ADMIN in the container"},
		{"nftables by netlink, at the client ports", "root"},
	},
	agent.PacketDelay:     onPackets("link proxies"),
	agent.PacketLoss:      onPackets("link proxies: what is lost of a stream arrives as late as TCP would send it again"),
	agent.PacketCorrupt:   onPackets("link proxies: as loss"),
	agent.PacketRate:      onPackets("link proxies"),
	agent.PacketDuplicate: onPackets("duplicate: none on streams"),
	agent.PacketReorder:   onPackets("reorder: none on streams"),
	agent.DataFiles:       {{"files of the run", ""}, {"files of the run", ""}, {"files of the run", ""}},
	agent.Disks: {
		{"FUSE", "root, /dev/fuse"},
		{"FUSE", "/dev/fuse and CAP_SYS_ADMIN in the container: given to runs that need it, to no others"},
		{"FUSE", "root, /dev/fuse"},
	},
	Membership: {
		{"the system's own interface", "a system that has one"},
		{"the system's own interface", "a system that has one"},
		{"the system's own interface", "a system that has one"},
	},
	agent.Clocks: {
		{"vDSO hook, amd64 and arm64", "the right to trace one's own children"},
		{"vDSO hook, amd64 and arm64", ""},
		{"vDSO hook, amd64 and arm64", ""},
	},
	agent.HostClock: {
		{"none", "the machine is not ours alone"},
		{"none", "a container's clock is the machine's"},
		{"clock_settime and adjtimex", "root, no NTP, no container"},
	},
	agent.LimitCPU: {
		{"cgroup, else stop and continue", "a writable cgroup for the first"},
		{"stop and continue", ""},
		{"cgroup, else stop and continue", "a writable cgroup for the first"},
	},
	agent.LimitMemory: {
		{"RLIMIT_DATA; a cgroup for at-limit: kill", "a writable cgroup for the second"},
		{"RLIMIT_DATA", ""},
		{"RLIMIT_DATA; a cgroup for at-limit: kill", "a writable cgroup for the second"},
	},
	agent.LimitFiles: {{"RLIMIT_NOFILE", ""}, {"RLIMIT_NOFILE", ""}, {"RLIMIT_NOFILE", ""}},
	agent.LimitProcesses: {
		{"cgroup, else RLIMIT_NPROC", "a writable cgroup; the second binds no root process"},
		{"none", "RLIMIT_NPROC does not bind root, and the container's cgroups are read-only"},
		{"cgroup, else RLIMIT_NPROC", "a writable cgroup; the second binds no root process"},
	},
	agent.LimitIO: {
		{"cgroup", "a writable cgroup, data on a block device"},
		{"none", "the container's cgroups are read-only; a slow disk is a fault of the disk layer"},
		{"cgroup", "a writable cgroup, data on a block device"},
	},
	agent.Freezing: {
		{"cgroup freezer", "a writable cgroup"},
		{"none", "the container's cgroups are read-only; pause does nearly the same"},
		{"cgroup freezer", "a writable cgroup"},
	},
}

// onPackets is how the network is made bad: in the kernel, but on local clusters as it says.
func onPackets(local string) [3]Mechanism {
	const queue = "packets queued by the kernel (NFQUEUE), verdicts by the agent"
	return [3]Mechanism{{local, ""}, {queue, "CAP_NET_ADMIN in the container"}, {queue, "root"}}
}

// variant is a choice of a fault's parameters.
type variant struct {
	with   string // the choice that is no default
	params Params
}

// variants returns the parameters under which a fault may need different things: the defaults,
// and each other choice of each parameter.
func (a About) variants() []variant {
	all := []variant{{params: withDefaults(a.Params, nil)}}
	for _, p := range a.Params {
		for _, value := range p.Allowed {
			if value != p.Default {
				all = append(all, variant{p.Name + "=" + value, withDefaults(a.Params, map[string]string{p.Name: value})})
			}
		}
	}
	return all
}

// Abilities returns the names of all abilities that some step of a fault needs, in order.
func (a About) Abilities() []string {
	var names []string
	for _, variant := range a.variants() {
		names = append(names, a.needs(variant.params)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Reference returns docs/faults.md: every fault, its parameters, and how it works where.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	b.WriteString("\n## Which fault works where\n\n| fault | package | local | docker | ssh |\n|---|---|---|---|---|\n")
	for _, fault := range faults {
		about := fault.About()
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |", about.Name, about.Name, about.Package)
		for kind := range ClusterKinds {
			fmt.Fprintf(&b, " %s |", mechanismsOf(about, kind))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## The faults\n")
	for _, fault := range faults {
		describe(&b, fault.About())
	}
	return b.String()
}

// mechanismsOf tells in a cell of a table how a fault works on a kind of cluster.
func mechanismsOf(about About, kind int) string {
	names := about.Abilities()
	if len(names) == 0 {
		return "signals of the parent"
	}
	var cells []string
	for _, name := range names {
		m := mechanisms[name][kind]
		cell := m.How
		if m.Needs != "" {
			cell += " (" + m.Needs + ")"
		}
		if !slices.Contains(cells, cell) {
			cells = append(cells, cell)
		}
	}
	return strings.Join(cells, "; ")
}

func describe(b *strings.Builder, about About) {
	fmt.Fprintf(b, "\n### %s\n\n%s%s.\n\n", about.Name, strings.ToUpper(about.Meaning[:1]), about.Meaning[1:])
	target := about.Target(withDefaults(about.Params, nil))
	fmt.Fprintf(b, "Package `%s`; target when none is named: `%s`. ", about.Package, target)
	if len(about.Cards) == 0 {
		b.WriteString("Never drawn: only as a step that somebody wrote.")
	} else {
		b.WriteString("Drawn from its package.")
	}
	b.WriteString("\n")
	if beyond := about.beyond(withDefaults(about.Params, nil)); beyond != "" {
		fmt.Fprintf(b, "\n**A correct system may fail under it**: %s.\n", beyond)
	}
	if about.MayEnd != nil && about.MayEnd(withDefaults(about.Params, nil)) {
		b.WriteString("\nA process that ends by itself under it has not failed: it is started again when the fault is healed.\n")
	}
	if len(about.Params) == 0 {
		return
	}
	b.WriteString("\n| parameter | default | values | meaning |\n|---|---|---|---|\n")
	for _, p := range about.Params {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", p.Name, code(p.Default), p.Values(), strings.ReplaceAll(p.Meaning, "|", "\\|"))
	}
}

func code(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

const referenceHead = "# Faults\n\n" + `Made by ` + "`checker faults --markdown`" + ` from the registry; a test holds that this page is what it prints.
` + "`checker doctor`" + ` tells which of them work on the cluster at hand, and how.

## A schedule

YAML, for ` + "`checker run --schedule FILE`" + `. Everything is optional; times count from when the clients begin.

` + "```yaml" + `
seed: 7                    # of targets and draws; the run's own where it is left out
outage-limit: 10s          # no majority can work for longer: the latest faults are healed early
steps:                     # written by hand, ordered by time; they may overlap
  - {at: 2s, duration: 4s, fault: partition, target: leader, params: {kind: isolate-leader}}
  - {at: 4s, duration: 1s, fault: kill, target: spare}
draw:                      # drawn from the seed, and saved with the run as steps
  - {from: [kill, pause], interval: 3s, overlap: 2, swarm: true, at: 10s, duration: 20s}
coverage:                  # a run that misses one of these is unknown
  - {fault: partition, leader: minority, times: 2, in-force: 3s, operations: 5}
` + "```" + `

A target is a role, resolved when the step begins, or names joined by commas: ` + "`one`, `leader`, `follower`, `spare`" + ` (a
node without which a majority still works, whatever else is in force), ` + "`minority`, `majority`, `all`, `removed`" + ` and ` + "`learner`" + `
(a node that a step in force has removed, or left without a vote), ` + "`n1,n3`" + `. What it resolved to is in the history, and in
` + "`resolved.yaml`" + ` of the run directory as a schedule: run that to hit the same nodes again, or schedule.yaml to hit the same
roles.

Packages to draw from: ` + "`--nemesis partition,kill,…`" + ` or ` + "`all`" + `. What does not work on a cluster is left out of a draw, and
the run says so; a step that does not work is refused before the system starts. Faults that break what Raft builds on
are never drawn, nor those that build on another step (` + "`add`, `promote`" + `).

Every fault proves that it landed and that it was healed; the proofs stand in the history and the report. One that
missed makes the run unknown.
`
