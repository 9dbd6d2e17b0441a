//go:build linux

package nemesis

import (
	"context"
	"strings"
	"testing"
	"time"

	"capsize/nemesis/agent"
)

func TestASurveyTellsWhatWorksAndWhyNot(t *testing.T) {
	can := agent.Ability{Name: agent.Partitions, How: "nftables"}
	cannot := agent.Ability{Name: agent.Partitions, Why: "it takes CAP_NET_ADMIN"}
	about := partition{}.About()
	for name, c := range map[string]struct {
		survey Survey
		want   Way
	}{
		"all can":     {Survey{"n1": {can}, "n2": {can}}, Way{Works: true, How: "nftables"}},
		"one cannot":  {Survey{"n1": {can}, "n2": {cannot}}, Way{Why: "it takes CAP_NET_ADMIN"}},
		"an old one":  {Survey{"n1": {}}, Way{Why: `its agent knows nothing of "partitions"`}},
		"two reasons": {Survey{"n1": {cannot}, "n2": {{Name: agent.Partitions, Why: "no kernel"}}}, Way{Why: "n1: it takes CAP_NET_ADMIN; n2: no kernel"}},
	} {
		if got := c.survey.Way(about, withDefaults(about.Params, nil)); got != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	schedule := Schedule{Draw: []Draw{{From: []string{"partition", "kill"}}}, Steps: []Step{{Fault: "pause"}, {Fault: "partition"}}}
	survey := Survey{"n1": {cannot}}
	if err := survey.Check(schedule); err == nil || !strings.Contains(err.Error(), `schedule step 2: fault: "partition" is not possible: it does not work here: it takes CAP_NET_ADMIN`) {
		t.Error(err)
	}
	if err := (Survey{"n1": {can}}).Check(schedule); err != nil {
		t.Error(err)
	}
	if missing := survey.Missing(schedule); len(missing) != 1 || missing[0] != "partition: it takes CAP_NET_ADMIN" {
		t.Error(missing)
	}
	drawn := Schedule{Seed: 1, Draw: []Draw{{From: []string{"partition", "kill"}, Interval: 2 * time.Second}}}.Drawn(Circumstances{Nodes: names(5), TimeLimit: time.Minute, Works: survey.Works})
	if len(drawn.Steps) == 0 || survey.Check(drawn) != nil {
		t.Errorf("%+v", drawn)
	}
}

func TestTheAgentsAreSurveyed(t *testing.T) {
	f := newFixture(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	abilities, err := f.controller.Survey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	survey := Survey(abilities)
	about := partition{}.About()
	if way := survey.Way(about, withDefaults(about.Params, nil)); !way.Works || way.How != "proxy" {
		t.Errorf("%+v", way)
	}
}

func TestASurveyWithoutAnAbilityRefusesWhatNeedsIt(t *testing.T) {
	survey := Survey{"n1": {{Name: agent.LimitIO, How: "cgroup"}, {Name: agent.LimitCPU, How: "cgroup"}}}
	lacking := survey.Without(agent.LimitIO, "the disk is covered")
	if way := lacking.Way(slowIO{}.About(), nil); way.Works || way.Why != "the disk is covered" {
		t.Errorf("io: %+v", way)
	}
	if way := lacking.Way(starveCPU{}.About(), nil); !way.Works {
		t.Errorf("cpu: %+v", way)
	}
	if way := survey.Way(slowIO{}.About(), nil); !way.Works {
		t.Errorf("the survey itself has changed: %+v", way)
	}
}

func TestAScheduleNeedsWhatItsStepsAndItsDrawsDo(t *testing.T) {
	for name, c := range map[string]struct {
		schedule Schedule
		needs    bool
	}{
		"nothing":               {Schedule{}, false},
		"other steps":           {Schedule{Steps: []Step{{Fault: "kill"}, {Fault: "file"}}}, false},
		"a step":                {Schedule{Steps: []Step{{Fault: "kill"}, {Fault: "kill-at"}}}, true},
		"a draw of the package": {Schedule{Draw: []Draw{{From: []string{"disk"}}}}, true},
		"a draw of all":         {Schedule{Draw: []Draw{{From: []string{"all"}}}}, true},
		"another draw":          {Schedule{Draw: []Draw{{From: []string{"kill", "clock"}}}}, false},
	} {
		if got := c.schedule.Needs(agent.Disks); got != c.needs {
			t.Errorf("%s: %t", name, got)
		}
	}
}
