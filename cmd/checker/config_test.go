package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"capsize/harness"
)

// resolved resolves a command line in an empty directory with the given configuration
// file and environment.
func resolved(t *testing.T, file string, env map[string]string, args ...string) (harness.Plan, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile("capsize.yaml", []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	cmd := &cobra.Command{Use: "run"}
	addPlanFlags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return resolve(cmd)
}

func TestFlagsWinOverEnvironmentOverFileOverDefaults(t *testing.T) {
	const file = "time-limit: 1m\nconcurrency: 7\nkeys: 9\nnemesis: [pause, kill]\ncheck-memory: 512MiB\n"
	plan, err := resolved(t, file, map[string]string{"CAPSIZE_CONCURRENCY": "8", "CAPSIZE_KEYS": "11"}, "--keys=12")
	if err != nil {
		t.Fatal(err)
	}
	if plan.Keys != 12 || plan.Concurrency != 8 || plan.TimeLimit != time.Minute || plan.Nodes != 5 {
		t.Errorf("keys %d (flag 12), concurrency %d (environment 8), time limit %s (file 1m), nodes %d (default 5)",
			plan.Keys, plan.Concurrency, plan.TimeLimit, plan.Nodes)
	}
	if !slices.Equal(plan.Nemesis, []string{"pause", "kill"}) || plan.CheckMemory != 512<<20 {
		t.Errorf("nemesis %v, check memory %s", plan.Nemesis, plan.CheckMemory)
	}
}

func TestAListIsReadTheSameFromFlagEnvironmentAndFile(t *testing.T) {
	want := []string{"partition", "kill"}
	for _, c := range []struct {
		file string
		env  map[string]string
		args []string
	}{
		{file: "nemesis: [partition, kill]"},
		{file: "nemesis: partition, kill"},
		{env: map[string]string{"CAPSIZE_NEMESIS": "partition,kill"}},
		{args: []string{"--nemesis=partition,kill"}},
	} {
		plan, err := resolved(t, c.file, c.env, c.args...)
		if err != nil || !slices.Equal(plan.Nemesis, want) {
			t.Errorf("%+v: %v, %v", c, plan.Nemesis, err)
		}
	}
}

func TestBadInputNamesKeyValueAndWhatIsAllowed(t *testing.T) {
	for name, c := range map[string]struct {
		file     string
		schedule string
		env      map[string]string
		args     []string
		want     []string
	}{
		"unknown key in the file":      {file: "time-limt: 30s", want: []string{"capsize.yaml: time-limt", "30s", "time-limit"}},
		"unknown variable":             {env: map[string]string{"CAPSIZE_TIMELIMIT": "30s"}, want: []string{"CAPSIZE_TIMELIMIT", "time-limit"}},
		"number without unit":          {file: "time-limit: 30", want: []string{"time-limit", "30", "unit"}},
		"bad duration in the variable": {env: map[string]string{"CAPSIZE_OP_TIMEOUT": "soon"}, want: []string{"op-timeout", "soon", "duration"}},
		"half a node":                  {file: "nodes: 2.5", want: []string{"nodes", "2.5", "whole number"}},
		"no such fault":                {args: []string{"--nemesis=partition,earthquake"}, want: []string{"nemesis", "earthquake", "partition, packet, pause"}},
		"none beside others":           {args: []string{"--nemesis=none,kill"}, want: []string{"nemesis", "alone"}},
		"no such cluster":              {args: []string{"--cluster=cloud"}, want: []string{"cluster", "cloud", "local, docker, ssh"}},
		"no such workload":             {args: []string{"--workload=tetris"}, want: []string{"workload", "tetris", "register"}},
		"no such load":                 {args: []string{"--load=heavy"}, want: []string{"load", "heavy", "steady, ramp, bursts"}},
		"no regular expression":        {args: []string{"--log-ignore=("}, want: []string{"log-ignore", "regular expression"}},
		"a ramp to nowhere":            {args: []string{"--load=ramp", "--rate=0"}, want: []string{"load", "ramp", "rate"}},
		"too few to partition":         {args: []string{"--nodes=2"}, want: []string{"nodes", "2", "3"}},
		"ssh without hosts":            {args: []string{"--cluster=ssh"}, want: []string{"hosts", "ssh"}},
		"hosts without ssh":            {args: []string{"--hosts=a,b,c"}, want: []string{"hosts", "a,b,c", "ssh"}},
		"a name that escapes":          {args: []string{"--name=../../etc"}, want: []string{"name", "../../etc"}},
		"a file that is not there":     {args: []string{"--schedule=nowhere.yaml"}, want: []string{"schedule", "nowhere.yaml"}},
		"a node that is not there":     {schedule: "steps:\n- {at: 1s, duration: 1s, fault: pause, target: n9}\n", want: []string{"schedule", "n9", "n1"}},
		"a step beyond the end":        {schedule: "steps:\n- {at: 90s, duration: 1s, fault: pause, target: n1}\n", want: []string{"schedule", "1m30s"}},
		"a file that is no YAML":       {file: "nodes: [", want: []string{"config", "capsize.yaml"}},
		"nothing can be enough":        {args: []string{"--min-ok=0"}, want: []string{"min-ok", "0"}},
		"memory without unit":          {file: "check-memory: lots", want: []string{"check-memory", "lots", "MiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.schedule != "" {
				path := filepath.Join(t.TempDir(), "s.yaml")
				if err := os.WriteFile(path, []byte(c.schedule), 0o600); err != nil {
					t.Fatal(err)
				}
				c.args = []string{"--schedule=" + path}
			}
			_, err := resolved(t, c.file, c.env, c.args...)
			var wrong *harness.UsageError
			if !errors.As(err, &wrong) {
				t.Fatalf("error %v is no usage error", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not mention %q", err, want)
				}
			}
		})
	}
}

func TestEveryKeyOfThePlanIsExplained(t *testing.T) {
	for _, field := range planFields(harness.DefaultPlan()) {
		if usageOf[field.key] == "" {
			t.Errorf("key %q has no explanation", field.key)
		}
	}
}

func TestASavedPlanIsAConfigurationThatResolvesToItself(t *testing.T) {
	plan, err := resolved(t, "", nil, "--seed=7", "--keys=3", "--nemesis=kill")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := plan.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := resolved(t, "", nil, "--config="+path)
	if err != nil {
		t.Fatal(err)
	}
	if again.Seed != 7 || again.Keys != 3 || !slices.Equal(again.Nemesis, plan.Nemesis) || again.CheckMemory != plan.CheckMemory {
		t.Errorf("resolved again to %+v", again)
	}
}

func TestWrongUsageExitsWith64(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"run", "--no-such-flag"}, {"fly"}, {"check"}, {"check", "nowhere"}, {"run", "--time-limit=soon"}, {"config", "--nodes=0"}, {"run", "extra"}} {
		if status := execute(args); status != harness.StatusUsage {
			t.Errorf("checker %v: exit status %d", args, status)
		}
	}
}

func TestHelpExitsWith0(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {}} {
		if status := execute(args); status != harness.StatusValid {
			t.Errorf("checker %v: exit status %d", args, status)
		}
	}
}
