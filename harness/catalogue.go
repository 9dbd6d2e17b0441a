package harness

import (
	"context"
	"maps"
	"slices"

	"capsize/systems"
	"capsize/systems/raftnode"
	"capsize/workloads"
	"capsize/workloads/bank"
	"capsize/workloads/collections"
	"capsize/workloads/example"
	"capsize/workloads/locks"
	"capsize/workloads/queue"
	"capsize/workloads/ranges"
	"capsize/workloads/register"
	"capsize/workloads/rolling"
	"capsize/workloads/transact"
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
	register.Usual:      registers(register.Usual),
	register.Contention: registers(register.Contention),
	register.StaleReads: registers(register.StaleReads),
	register.Members:    registers(register.Members),

	"list-append":           func(p *Plan) (workloads.Workload, error) { return collections.NewLists(p.collections()) },
	"set":                   func(p *Plan) (workloads.Workload, error) { return collections.NewSets(p.collections()) },
	"counter":               func(p *Plan) (workloads.Workload, error) { return collections.NewCounters(p.collections()) },
	"queue":                 func(p *Plan) (workloads.Workload, error) { return queue.New(p.limits()) },
	"lock":                  func(*Plan) (workloads.Workload, error) { return locks.New(locks.Options{}) },
	"bank":                  func(p *Plan) (workloads.Workload, error) { return bank.New(p.limits()) },
	"ranges":                func(p *Plan) (workloads.Workload, error) { return ranges.New(p.limits()) },
	"watch":                 func(*Plan) (workloads.Workload, error) { return ranges.NewWatch(rolling.Limits{}) },
	"list-transactions":     func(p *Plan) (workloads.Workload, error) { return transact.NewLists(p.limits()) },
	"register-transactions": func(p *Plan) (workloads.Workload, error) { return transact.NewRegisters(p.limits()) },
	"unique-ids":            func(*Plan) (workloads.Workload, error) { return example.Workload{}, nil },
}

func registers(name string) func(p *Plan) (workloads.Workload, error) {
	return func(p *Plan) (workloads.Workload, error) {
		return register.New(register.OptionsOf(name, p.Keys, p.OpsPerKey, p.nodeNames()))
	}
}

func (p *Plan) limits() rolling.Limits { return rolling.Limits{Keys: p.Keys, Ops: p.OpsPerKey} }

func (p *Plan) collections() collections.Options {
	return collections.Options{Keys: p.Keys, OpsPerKey: p.OpsPerKey}
}

// A store that a system gives is a store that the register workload takes.
var _ register.Store = systems.KV(nil)

// Systems returns the names of the systems that a plan can test.
func Systems() []string { return slices.Sorted(maps.Keys(systemsByName)) }

// Workloads returns the names of the workloads that a plan can run.
func Workloads() []string { return slices.Sorted(maps.Keys(workloadsByName)) }
