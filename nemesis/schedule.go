package nemesis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// stepsMost bounds a schedule: no run needs more, and each step in force costs memory.
const stepsMost = 10_000

// ScheduleError says what in a schedule cannot be carried out.
type ScheduleError struct {
	Step    int    // its number, from 1; 0 where it is not about one step
	Key     string // as it stands in the file: "target", "params.kind"
	Value   string // as given
	Allowed string // what would be right
}

func (e *ScheduleError) Error() string {
	if e.Step == 0 {
		return fmt.Sprintf("schedule: %s: %q is not possible: %s", e.Key, e.Value, e.Allowed)
	}
	return fmt.Sprintf("schedule step %d: %s: %q is not possible: %s", e.Step, e.Key, e.Value, e.Allowed)
}

// LoadSchedule reads a schedule from a YAML file. It does not validate what is in it.
func LoadSchedule(path string) (Schedule, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Schedule{}, fmt.Errorf("read schedule: %w", err)
	}
	s, err := ParseSchedule(data)
	if err != nil {
		return Schedule{}, fmt.Errorf("read schedule %s: %w", path, err)
	}
	return s, nil
}

// ParseSchedule reads a schedule from YAML. Durations are written like 2.5s. A key that is
// not known is an error.
func ParseSchedule(data []byte) (Schedule, error) {
	var s Schedule
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Schedule{}, err
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Schedule{}, errors.New("there is more than one document in it")
	}
	return s, nil
}

// Marshal writes the schedule as YAML.
func (s Schedule) Marshal() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("# Which fault, when, on whom. Run it again: checker run --schedule FILE\n")
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(s); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// Save writes the schedule to a YAML file, as a whole or not at all.
func (s Schedule) Save(path string) error {
	data, err := s.Marshal()
	if err != nil {
		return fmt.Errorf("save schedule: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(path), ".schedule-*")
	if err != nil {
		return fmt.Errorf("save schedule: %w", err)
	}
	_, err = part.Write(data)
	err = errors.Join(err, part.Chmod(0o644), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save schedule: %w", errors.Join(err, os.Remove(part.Name())))
	}
	return nil
}

// Validate reports the first thing in the schedule that cannot be carried out on these
// nodes within the time limit, as a [*ScheduleError]. A time limit of 0 allows any time.
func (s Schedule) Validate(nodes []string, timeLimit time.Duration) error {
	if len(s.Steps) > stepsMost {
		return &ScheduleError{Key: "steps", Value: fmt.Sprint(len(s.Steps)), Allowed: fmt.Sprintf("at most %d steps", stepsMost)}
	}
	if s.OutageLimit < 0 {
		return &ScheduleError{Key: "outage-limit", Value: s.OutageLimit.String(), Allowed: "0 for none, or a time such as 10s"}
	}
	for i, draw := range s.Draw {
		if wrong := draw.validate(); wrong != nil {
			wrong.Key = fmt.Sprintf("draw %d: %s", i+1, wrong.Key)
			return wrong
		}
	}
	for i, demand := range s.Coverage {
		if wrong := demand.validate(); wrong != nil {
			wrong.Key = fmt.Sprintf("coverage %d: %s", i+1, wrong.Key)
			return wrong
		}
	}
	var before time.Duration
	for i, step := range s.Steps {
		if wrong := step.validate(nodes, timeLimit, before); wrong != nil {
			wrong.Step = i + 1
			return wrong
		}
		before = step.At
	}
	return nil
}

func (s Step) validate(nodes []string, timeLimit, before time.Duration) *ScheduleError {
	fault, known := faultByName(s.Fault)
	switch {
	case !known:
		return &ScheduleError{Key: "fault", Value: s.Fault, Allowed: oneOf(FaultNames())}
	case s.At < before:
		return &ScheduleError{Key: "at", Value: s.At.String(), Allowed: fmt.Sprintf("%s or later: steps are ordered by time", before)}
	case s.Duration <= 0:
		return &ScheduleError{Key: "duration", Value: s.Duration.String(), Allowed: "more than 0, such as 2.5s"}
	case timeLimit > 0 && s.At >= timeLimit:
		return &ScheduleError{Key: "at", Value: s.At.String(), Allowed: fmt.Sprintf("before the time limit, %s", timeLimit)}
	case timeLimit > 0 && s.Duration > timeLimit-s.At:
		return &ScheduleError{Key: "duration", Value: s.Duration.String(), Allowed: fmt.Sprintf("at most %s: it is healed before the time limit, %s", timeLimit-s.At, timeLimit)}
	}
	if wrong := validateParams(fault.About().Params, s.Params); wrong != nil {
		return wrong
	}
	if wrong := validateTarget(s.Target, nodes); wrong != nil {
		return wrong
	}
	// A trial with a leader that is known finds what the fault itself cannot do.
	_, err := s.plan(0, View{Nodes: nodes, Leader: nodes[0]}, rand.New(rand.NewPCG(0, 0)))
	var wrong *ScheduleError
	if errors.As(err, &wrong) {
		return wrong
	}
	return nil
}

func oneOf(allowed []string) string { return "one of " + strings.Join(allowed, ", ") }
