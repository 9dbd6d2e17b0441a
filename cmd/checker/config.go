package main

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"capsize/harness"
)

const envPrefix = "CAPSIZE"

// testVariables begin like configuration but belong to the project's own tests.
var testVariables = []string{"CAPSIZE_REQUIRE_DOCKER", "CAPSIZE_SOAK"}

// usageOf explains each key of the plan. A key without an explanation does not compile
// into a flag: a test holds that every key has one.
var usageOf = map[string]string{
	"name":              "name of the test; runs go to <runs>/<name>/<time> (default <system>-<workload>)",
	"seed":              "seed of everything random; 0 draws one and prints it",
	"time-limit":        "how long the clients run",
	"runs":              "where run directories are made",
	"cluster":           "where the nodes run: local (processes on loopback), docker, ssh",
	"nodes":             "number of nodes (with ssh: the number of hosts)",
	"base-port":         "local: first of the ports to use; 0 chooses free ones",
	"image":             "docker: the node image, as ci/base-image makes it",
	"hosts":             "ssh: [user@]host[:port] of each node, separated by commas",
	"ssh-key":           "ssh: private key file",
	"ssh-known-hosts":   "ssh: known_hosts file with the hosts' keys; they are always checked",
	"keep-data":         "keep the nodes' data directories after the run",
	"system":            "what is under test",
	"node-binary":       "the node's program (default: beside the checker, else built from source)",
	"agent-binary":      "the agent's program (default: beside the checker, else built from source)",
	"ready-limit":       "how long the cluster may take to answer after its start",
	"workload":          "what the clients do",
	"concurrency":       "number of clients; they are spread over the nodes in turn",
	"rate":              "operations per second of all clients together; 0 for as fast as the cluster answers",
	"load":              "how the rate goes: steady; ramp, from a tenth to all of it within the run; bursts, a second of work and a second of rest",
	"keys":              "number of independent keys in use at a time",
	"ops-per-key":       "operations on a key before a fresh key takes its place",
	"op-timeout":        "time-out of one operation; its outcome is unknown then",
	"nemesis":           "packages of faults to draw from, or single faults, separated by commas (checker faults lists them); or none",
	"nemesis-interval":  "about how often a fault begins",
	"nemesis-overlap":   "how many faults may be in force at a time",
	"swarm":             "draw from a random part of the faults, parameters and targets only, at a random pace",
	"outage-limit":      "how long faults may keep every majority from working together; then the latest are healed early; 0: no limit",
	"schedule":          "YAML file with the faults to inject, instead of drawing them from the seed",
	"stop-on-violation": "end the run at the first violation that is seen while it goes on, seconds after it happened",
	"hold":              "after such a violation, keep faults and nodes as they are for so long, for a look (Ctrl-C goes on); 0: not at all",
	"recovery-limit":    "how long the cluster may take to answer after everything is healed",
	"min-ok":            "fewer ok operations than this make a run unknown: it tested nothing",
	"log-pattern":       "a regular expression: a line of a node's log that matches makes the run invalid, as a panic does",
	"log-ignore":        "a regular expression: lines of the nodes' logs that match are not looked at",
	"check-timeout":     "time budget of the checkers",
	"check-memory":      "memory budget of the checkers",
}

// addPlanFlags gives cmd one flag for every key of the plan, with its default.
func addPlanFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringP("config", "c", "", "configuration file (default ./capsize.yaml where there is one)")
	for _, field := range planFields(harness.DefaultPlan()) {
		usage := usageOf[field.key]
		switch value := field.value.(type) {
		case time.Duration:
			flags.Duration(field.key, value, usage)
		case int:
			flags.Int(field.key, value, usage)
		case uint64:
			flags.Uint64(field.key, value, usage)
		case float64:
			flags.Float64(field.key, value, usage)
		case bool:
			flags.Bool(field.key, value, usage)
		case []string:
			flags.StringSlice(field.key, value, usage)
		default:
			flags.String(field.key, fmt.Sprint(value), usage)
		}
	}
}

type planField struct {
	key   string
	value any
}

func planFields(plan harness.Plan) []planField {
	v := reflect.ValueOf(plan)
	fields := make([]planField, 0, v.NumField())
	for i := range v.NumField() {
		fields = append(fields, planField{v.Type().Field(i).Tag.Get("yaml"), v.Field(i).Interface()})
	}
	return fields
}

// resolve makes the plan from flags over environment over the configuration file over
// defaults, and validates it.
func resolve(cmd *cobra.Command) (harness.Plan, error) {
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	keys := make(map[string]bool)
	for _, field := range planFields(harness.DefaultPlan()) {
		keys[field.key] = true
		if err := v.BindPFlag(field.key, cmd.Flags().Lookup(field.key)); err != nil {
			return harness.Plan{}, fmt.Errorf("bind flag %s: %w", field.key, err)
		}
	}
	if err := checkEnvironment(keys); err != nil {
		return harness.Plan{}, err
	}
	file, err := readConfig(cmd.Flags(), v, keys)
	if err != nil {
		return harness.Plan{}, err
	}
	plan, err := decode(v)
	if err != nil {
		return harness.Plan{}, err
	}
	if plan.Schedule != "" && fromFile(cmd.Flags(), v, "schedule") && !filepath.IsAbs(plan.Schedule) {
		plan.Schedule = filepath.Join(filepath.Dir(file), plan.Schedule)
	}
	if plan.Cluster == "ssh" && len(plan.Hosts) > 0 {
		plan.Nodes = len(plan.Hosts)
	}
	if err := plan.Validate(); err != nil {
		return harness.Plan{}, err
	}
	return plan, nil
}

// readConfig reads the configuration file into v and returns its path. Without --config
// or CAPSIZE_CONFIG, capsize.yaml in the working directory is read if it is there.
func readConfig(flags *pflag.FlagSet, v *viper.Viper, keys map[string]bool) (string, error) {
	path, _ := flags.GetString("config")
	if path == "" {
		path = os.Getenv(envPrefix + "_CONFIG")
	}
	asked := path != ""
	if !asked {
		path = "capsize.yaml"
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !asked {
		return path, nil
	}
	if err != nil {
		return "", &harness.UsageError{Key: "config", Value: path, Allowed: "a readable YAML file: " + err.Error()}
	}
	var raw map[string]any
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return "", &harness.UsageError{Key: "config", Value: path, Allowed: "YAML with one key a line: " + err.Error()}
	}
	for key, value := range raw {
		if !keys[key] {
			return "", unknownKey(path+": "+key, fmt.Sprint(value), key, keys)
		}
	}
	if err := v.MergeConfigMap(raw); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return path, nil
}

// checkEnvironment refuses a variable that looks like configuration but is none: a typing
// mistake would otherwise silently test something else.
func checkEnvironment(keys map[string]bool) error {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, envPrefix+"_")
		if !ours || rest == "CONFIG" || slices.Contains(testVariables, name) {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(rest), "_", "-")
		if !keys[key] {
			return unknownKey("environment variable "+name, value, key, keys)
		}
	}
	return nil
}

func unknownKey(where, value, key string, keys map[string]bool) error {
	known := make([]string, 0, len(keys))
	for k := range keys {
		known = append(known, k)
	}
	slices.Sort(known)
	return &harness.UsageError{Key: where, Value: value, Allowed: fmt.Sprintf("there is no key %q; the keys are %s", key, strings.Join(known, ", "))}
}

// decode turns what viper resolved into a plan, key by key, so that an error names its
// key. Values are parsed from their text: a file's `time-limit: 30` is refused like the
// flag's, instead of meaning 30 nanoseconds.
func decode(v *viper.Viper) (harness.Plan, error) {
	plan := harness.DefaultPlan()
	target := reflect.ValueOf(&plan).Elem()
	for i := range target.NumField() {
		key := target.Type().Field(i).Tag.Get("yaml")
		raw := v.Get(key)
		if err := parse(raw, target.Field(i).Addr().Interface()); err != nil {
			return plan, &harness.UsageError{Key: key, Value: fmt.Sprint(raw), Allowed: wanted(target.Field(i).Interface())}
		}
	}
	return plan, nil
}

func parse(raw, target any) (err error) {
	text := strings.TrimSpace(fmt.Sprint(raw))
	switch target := target.(type) {
	case *string:
		*target = text
	case *time.Duration:
		*target, err = time.ParseDuration(text)
	case *int:
		*target, err = strconv.Atoi(text)
	case *uint64:
		*target, err = strconv.ParseUint(text, 10, 64)
	case *float64:
		*target, err = strconv.ParseFloat(text, 64)
	case *bool:
		*target, err = strconv.ParseBool(text)
	case *[]string:
		*target, err = parseList(raw)
	case encoding.TextUnmarshaler:
		err = target.UnmarshalText([]byte(text))
	default:
		err = fmt.Errorf("no way to parse a %T", target)
	}
	return err
}

func parseList(raw any) ([]string, error) {
	var items []string
	switch raw := raw.(type) {
	case []string:
		items = raw
	case []any:
		for _, item := range raw {
			items = append(items, fmt.Sprint(item))
		}
	case string:
		items = strings.Split(raw, ",")
	case nil:
	default:
		return nil, fmt.Errorf("%v is no list", raw)
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list, nil
}

func wanted(target any) string {
	switch target.(type) {
	case time.Duration:
		return "a duration with a unit, such as 500ms, 30s or 2m"
	case int, uint64:
		return "a whole number"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case harness.Bytes:
		return "an amount of memory with a unit, such as 512MiB or 2GiB"
	case []string:
		return "a list separated by commas"
	default:
		return "a text"
	}
}

// fromFile reports whether the value of key comes from the configuration file.
func fromFile(flags *pflag.FlagSet, v *viper.Viper, key string) bool {
	_, inEnv := os.LookupEnv(envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_")))
	return v.InConfig(key) && !flags.Changed(key) && !inEnv
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the resolved configuration, as run would use it",
		Long:  "Print what flags, CAPSIZE_* environment variables, capsize.yaml and defaults resolve to, in that order of\nprecedence, as YAML that --config takes.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := resolve(cmd)
			if err != nil {
				return err
			}
			data, err := yaml.Marshal(plan)
			if err != nil {
				return fmt.Errorf("print the configuration: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
	addPlanFlags(cmd)
	return cmd
}
