// Package harness carries out one run, from plan to verdict: it brings the cluster up,
// starts the system, drives the clients, breaks things through the nemesis, heals,
// collects, and judges. [Run] does all of it; [Judge] does the last part again from a
// run directory.
package harness

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"capsize/nemesis"
	"capsize/reports"
)

// Plan is everything that decides a run. It is what flags, environment and capsize.yaml
// resolve to, and is saved, seed included, as plan.yaml. The yaml names are also the
// names of the flags.
type Plan struct {
	Name      string        `yaml:"name"`
	Seed      uint64        `yaml:"seed"`
	TimeLimit time.Duration `yaml:"time-limit"`
	Runs      string        `yaml:"runs"`

	Cluster       string   `yaml:"cluster"`
	Nodes         int      `yaml:"nodes"`
	BasePort      int      `yaml:"base-port"`
	Image         string   `yaml:"image"`
	Hosts         []string `yaml:"hosts"`
	SSHKey        string   `yaml:"ssh-key"`
	SSHKnownHosts string   `yaml:"ssh-known-hosts"`
	KeepData      bool     `yaml:"keep-data"`

	System      string        `yaml:"system"`
	NodeBinary  string        `yaml:"node-binary"`
	AgentBinary string        `yaml:"agent-binary"`
	ReadyLimit  time.Duration `yaml:"ready-limit"`

	Workload    string        `yaml:"workload"`
	Concurrency int           `yaml:"concurrency"`
	Rate        float64       `yaml:"rate"`
	Load        string        `yaml:"load"`
	Keys        int           `yaml:"keys"`
	OpsPerKey   int           `yaml:"ops-per-key"`
	OpTimeout   time.Duration `yaml:"op-timeout"`

	Nemesis         []string      `yaml:"nemesis"`
	NemesisInterval time.Duration `yaml:"nemesis-interval"`
	NemesisOverlap  int           `yaml:"nemesis-overlap"`
	Swarm           bool          `yaml:"swarm"`
	OutageLimit     time.Duration `yaml:"outage-limit"`
	Schedule        string        `yaml:"schedule"`

	StopOnViolation bool          `yaml:"stop-on-violation"`
	Hold            time.Duration `yaml:"hold"`

	RecoveryLimit time.Duration `yaml:"recovery-limit"`
	MinOK         int           `yaml:"min-ok"`
	LogPattern    string        `yaml:"log-pattern"`
	LogIgnore     string        `yaml:"log-ignore"`
	CheckTimeout  time.Duration `yaml:"check-timeout"`
	CheckMemory   Bytes         `yaml:"check-memory"`
}

// DefaultPlan is what `checker run` does without being told anything: five reference
// nodes on loopback, the register workload, partitions, pauses and kills, 30 seconds.
func DefaultPlan() Plan {
	return Plan{
		TimeLimit:       30 * time.Second,
		Runs:            "runs",
		Cluster:         "local",
		Nodes:           5,
		Image:           "capsize-node:1",
		System:          "raftnode",
		ReadyLimit:      20 * time.Second,
		Workload:        "register",
		Concurrency:     10,
		Rate:            1000,
		Load:            steady,
		Keys:            5,
		OpsPerKey:       120,
		OpTimeout:       2 * time.Second,
		Nemesis:         []string{"partition", "pause", "kill"},
		NemesisInterval: 5 * time.Second,
		NemesisOverlap:  1,
		StopOnViolation: true,
		RecoveryLimit:   10 * time.Second,
		MinOK:           100,
		CheckTimeout:    time.Minute,
		CheckMemory:     2 << 30,
	}
}

// UsageError is bad input: what the user gave cannot be carried out, whatever the state
// of the world. The command line ends with status 64.
type UsageError struct {
	Key     string // flag and configuration key
	Value   string // as given
	Allowed string // what would be right
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%s: %q is not possible: %s", e.Key, e.Value, e.Allowed)
}

// Validate reports the first thing in the plan that cannot be carried out, as a
// [UsageError].
func (p *Plan) Validate() error {
	for _, check := range []func() error{p.validateCluster, p.validateClients, p.validateNemesis, p.validateBudgets, p.validateLogs} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) validateLogs() error {
	for key, text := range map[string]string{"log-pattern": p.LogPattern, "log-ignore": p.LogIgnore} {
		if _, err := regexp.Compile(text); err != nil {
			return &UsageError{key, text, fmt.Sprintf("a regular expression (%v)", err)}
		}
	}
	return nil
}

func (p *Plan) validateCluster() error {
	if err := oneOf("cluster", p.Cluster, clusterKinds); err != nil {
		return err
	}
	if err := oneOf("system", p.System, Systems()); err != nil {
		return err
	}
	if p.Name != "" && !plainName(p.Name) {
		return &UsageError{"name", p.Name, "letters, digits, dot, dash and underscore, not beginning with a dot (it names a directory)"}
	}
	if p.Nodes < 1 || p.Nodes > maxNodes {
		return usage("nodes", p.Nodes, fmt.Sprintf("1 to %d nodes", maxNodes))
	}
	if p.BasePort != 0 && (p.BasePort < 1024 || p.BasePort > 65000) {
		return usage("base-port", p.BasePort, "0 (choose free ports) or a port from 1024 to 65000")
	}
	if p.Cluster == "ssh" {
		if len(p.Hosts) == 0 {
			return &UsageError{"hosts", "", "--cluster ssh needs --hosts, one [user@]host[:port] per node, separated by commas"}
		}
		if p.SSHKey == "" || p.SSHKnownHosts == "" {
			return &UsageError{"ssh-key", p.SSHKey, "--cluster ssh needs --ssh-key and --ssh-known-hosts (host keys are always checked)"}
		}
	} else if len(p.Hosts) > 0 {
		return &UsageError{"hosts", strings.Join(p.Hosts, ","), "hosts are for --cluster ssh only"}
	}
	for key, path := range map[string]string{"node-binary": p.NodeBinary, "agent-binary": p.AgentBinary, "schedule": p.Schedule, "ssh-key": p.SSHKey, "ssh-known-hosts": p.SSHKnownHosts} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return &UsageError{key, path, "a file that exists"}
		}
	}
	return nil
}

func (p *Plan) validateClients() error {
	if err := oneOf("workload", p.Workload, Workloads()); err != nil {
		return err
	}
	if p.Concurrency < 1 || p.Concurrency > 1000 {
		return usage("concurrency", p.Concurrency, "1 to 1000 clients")
	}
	if p.Rate < 0 || p.Rate > 1e6 {
		return usage("rate", p.Rate, "operations per second, up to 1000000; 0 for as fast as the cluster answers")
	}
	if err := oneOf("load", p.Load, loads); err != nil {
		return err
	}
	if p.Load == ramp && p.Rate == 0 {
		return &UsageError{"load", p.Load, "a rate to grow to: --rate above 0"}
	}
	if p.Keys < 1 || p.Keys > 10000 {
		return usage("keys", p.Keys, "1 to 10000 keys in use at a time")
	}
	if p.OpsPerKey < 10 || p.OpsPerKey > 1_000_000 {
		return usage("ops-per-key", p.OpsPerKey, "10 to 1000000 operations before a key is replaced by a fresh one")
	}
	workload, err := workloadsByName[p.Workload](p)
	if err != nil {
		return &UsageError{"workload", p.Workload, err.Error()}
	}
	if err := workload.Fits(systemsByName[p.System].client); err != nil {
		return &UsageError{"workload", p.Workload, fmt.Sprintf("with the system %s: %v", p.System, err)}
	}
	return positive(duration{"op-timeout", p.OpTimeout, time.Minute}, duration{"time-limit", p.TimeLimit, 24 * time.Hour})
}

func (p *Plan) validateNemesis() error {
	if len(p.Nemesis) > 1 && slices.Contains(p.Nemesis, "none") {
		return &UsageError{"nemesis", strings.Join(p.Nemesis, ","), `"none" stands alone`}
	}
	if p.Schedule != "" {
		_, err := p.faults()
		return err
	}
	if p.Faultless() {
		return nil
	}
	for _, name := range p.Nemesis {
		if len(nemesis.FaultsIn(name)) == 0 {
			return &UsageError{"nemesis", name, "packages of faults (" + strings.Join(nemesis.Packages(), ", ") + "), or single ones (" + strings.Join(nemesis.FaultNames(), ", ") + "), or none; checker faults explains them"}
		}
	}
	if p.Nodes < 3 && slices.Contains(p.Nemesis, "partition") {
		return usage("nodes", p.Nodes, "at least 3 nodes to partition; or choose --nemesis pause,kill or --nemesis none")
	}
	if p.TimeLimit < 5*time.Second {
		return &UsageError{"time-limit", p.TimeLimit.String(), "at least 5s, so that a fault can land and heal; or --nemesis none"}
	}
	if p.OutageLimit < 0 || p.OutageLimit > time.Hour {
		return &UsageError{"outage-limit", p.OutageLimit.String(), "0 for none, or a time up to 1h"}
	}
	if _, err := p.faults(); err != nil {
		return err
	}
	return positive(duration{"nemesis-interval", p.NemesisInterval, time.Hour})
}

func (p *Plan) validateBudgets() error {
	if p.Hold < 0 || p.Hold > 24*time.Hour {
		return &UsageError{"hold", p.Hold.String(), "0 for not at all, or a time up to 24h"}
	}
	if p.Hold > 0 && !p.StopOnViolation {
		return &UsageError{"hold", p.Hold.String(), "the cluster can be held for a look only with --stop-on-violation"}
	}
	if p.MinOK < 1 {
		return usage("min-ok", p.MinOK, "at least 1: a run in which nothing happened must never be valid")
	}
	if p.CheckMemory < 64<<20 {
		return &UsageError{"check-memory", p.CheckMemory.String(), "at least 64MiB"}
	}
	return positive(
		duration{"recovery-limit", p.RecoveryLimit, time.Hour},
		duration{"check-timeout", p.CheckTimeout, 24 * time.Hour},
		duration{"ready-limit", p.ReadyLimit, time.Hour},
	)
}

// nodeNames returns n1 to nN.
func (p *Plan) nodeNames() []string {
	names := make([]string, p.Nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// Faultless reports whether the plan injects nothing.
func (p *Plan) Faultless() bool {
	return p.Schedule == "" && (len(p.Nemesis) == 0 || p.Nemesis[0] == "none")
}

// Save writes the plan as YAML.
func (p *Plan) Save(path string) error {
	data, err := yaml.Marshal(p)
	if err != nil {
		return fmt.Errorf("save plan: %w", err)
	}
	head := "# What this run did, everything resolved. Do it again: checker run --config " + path + "\n"
	return writeFile(path, append([]byte(head), data...))
}

// LoadPlan reads a plan that Save wrote.
func LoadPlan(path string) (Plan, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Plan{}, fmt.Errorf("read plan: %w", err)
	}
	plan := DefaultPlan()
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&plan); err != nil {
		return Plan{}, fmt.Errorf("read plan %s: %w", path, err)
	}
	return plan, nil
}

const maxNodes = 25

var clusterKinds = []string{"local", "docker", "ssh"}

func usage(key string, value any, allowed string) error {
	return &UsageError{key, fmt.Sprint(value), allowed}
}

func oneOf(key, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return &UsageError{key, value, "one of " + strings.Join(allowed, ", ")}
}

type duration struct {
	key   string
	value time.Duration
	most  time.Duration
}

func positive(durations ...duration) error {
	for _, d := range durations {
		if d.value <= 0 || d.value > d.most {
			return &UsageError{d.key, d.value.String(), fmt.Sprintf("more than 0 and at most %s, such as 30s or 2m", d.most)}
		}
	}
	return nil
}

// plainName reports whether s can safely be a path element and part of a container's name.
func plainName(s string) bool {
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return false
		}
	}
	return s != "" && s[0] != '.' && len(s) <= 100
}

// fields returns the plan's keys and values, in order, for people.
func (p *Plan) fields() []reports.Field {
	v := reflect.ValueOf(*p)
	fields := make([]reports.Field, 0, v.NumField())
	for i := range v.NumField() {
		value := fmt.Sprint(v.Field(i).Interface())
		if list, ok := v.Field(i).Interface().([]string); ok {
			value = strings.Join(list, ",")
		}
		fields = append(fields, reports.Field{Key: v.Type().Field(i).Tag.Get("yaml"), Value: value})
	}
	return fields
}
