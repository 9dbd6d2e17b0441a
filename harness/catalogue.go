package harness

import (
	"context"
	"maps"
	"slices"

	"capsize/systems"
	"capsize/systems/raftnode"
	"capsize/workloads"
	"capsize/workloads/collections"
	"capsize/workloads/register"
)

// The catalogue: what a plan can name. A new system or workload is one line here.

// system is a system that a plan can name.
type system struct {
	client systems.KV // connected to nothing: what its clients can do
	make   func(ctx context.Context, p *Plan) (systems.System, error)
}

var systemsByName = map[string]system{
	"raftnode": {client: raftnode.Client(), make: func(ctx context.Context, p *Plan) (systems.System, error) {
		path, err := program(ctx, "raftnode", p.NodeBinary)
		if err != nil {
			return nil, err
		}
		return raftnode.New(raftnode.Options{Binary: path, Seed: p.Seed, Retries: 1})
	}},
}

var workloadsByName = map[string]func(p *Plan) (workloads.Workload, error){
	"register": func(p *Plan) (workloads.Workload, error) {
		return register.New(register.Options{Keys: p.Keys, OpsPerKey: p.OpsPerKey})
	},
	"list-append": func(p *Plan) (workloads.Workload, error) { return collections.NewLists(p.collections()) },
	"set":         func(p *Plan) (workloads.Workload, error) { return collections.NewSets(p.collections()) },
	"counter":     func(p *Plan) (workloads.Workload, error) { return collections.NewCounters(p.collections()) },
}

func (p *Plan) collections() collections.Options {
	return collections.Options{Keys: p.Keys, OpsPerKey: p.OpsPerKey}
}

// A store that a system gives is a store that the register workload takes.
var _ register.Store = systems.KV(nil)

// Systems returns the names of the systems that a plan can test.
func Systems() []string { return slices.Sorted(maps.Keys(systemsByName)) }

// Workloads returns the names of the workloads that a plan can run.
func Workloads() []string { return slices.Sorted(maps.Keys(workloadsByName)) }
