package harness

import (
	"time"

	"capsize/workloads"
	"capsize/workloads/generators"
)

// How the rate of operations goes over the run.
const (
	steady = "steady"
	ramp   = "ramp"   // from a tenth of the rate to all of it, within the run
	bursts = "bursts" // a second at the rate, a second of rest, and so on
)

var loads = []string{steady, ramp, bursts}

const (
	rampFrom   = 10 // the interval at first, in intervals of the rate
	burstWorks = time.Second
	burstRests = time.Second
)

// pace lets a generator give operations at the plan's rate: 0 is as fast as the cluster answers.
func (p *Plan) pace(of workloads.Generator) workloads.Generator {
	var every time.Duration
	if p.Rate > 0 {
		every = time.Duration(float64(time.Second) / p.Rate)
	}
	switch p.Load {
	case ramp:
		return generators.Ramp(rampFrom*every, every, p.TimeLimit, of)
	case bursts:
		return generators.Burst(burstWorks, burstRests, generators.Stagger(every, of))
	default:
		return generators.Stagger(every, of)
	}
}
