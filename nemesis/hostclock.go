package nemesis

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"capsize/nemesis/agent"
)

// hostClock sets the clock of whole machines.
type hostClock struct{}

func (hostClock) About() About {
	return About{
		Name: "host-clock", Package: "clock",
		Meaning: "the clock of the whole machine is set, or runs at another pace, as an administrator or a bad time server would do it: every process there sees it. " +
			"Only on hosts of --cluster ssh that are no containers, and whose clock no NTP keeps",
		Params: []Param{
			{
				Name: "kind", Default: jump, Allowed: []string{jump, rate, strobe},
				Meaning: "jump: the clock is set ahead or back; rate: it runs slow or fast; strobe: it jumps there and back, over and over",
			},
			{Name: "by", Kind: Duration, Default: "1m", Least: "-8760h", Most: "8760h", Meaning: "of jump and strobe: how far; below 0 is back"},
			{Name: "rate", Kind: Number, Default: "1.05", Least: "0.9", Most: "1.1", Meaning: "of rate: seconds that pass on the clock in a second; the kernel allows no more"},
			{Name: "period", Kind: Duration, Default: "1s", Least: "100ms", Most: "1h", Meaning: "of strobe: there, and back again"},
		},
		Target: always(One), Needs: always([]string{agent.HostClock}),
	}
}

func (hostClock) Plan(scene Scene) (Planned, error) {
	p := scene.Params
	detail := p["kind"] + " by " + p["by"]
	switch p["kind"] {
	case rate:
		detail = "rate " + p["rate"]
	case strobe:
		detail += " every " + p["period"]
	}
	return Planned{Nodes: scene.Targets, Detail: detail + " on " + strings.Join(scene.Targets, " ")}, nil
}

func hostClockLayer(p Planned) agent.HostClockLayer {
	layer := agent.HostClockLayer{ID: fmt.Sprint(p.ID), Rate: 1}
	if p.Params.Is("kind", rate) {
		layer.Rate = p.Params.Number("rate")
	} else {
		layer.Jump = p.Params.Duration("by")
	}
	return layer
}

func (hostClock) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	layer := hostClockLayer(p)
	return onEach(p.Nodes, func(node string) (string, error) {
		clocks := e.hostClocks[node]
		clocks.mu.Lock()
		defer clocks.mu.Unlock()
		alone := len(clocks.all()) == 0
		clocks.put(p.ID, layer) // before the proof: what may be in force must be healed
		reply, err := e.sendHostClock(ctx, node)
		if err != nil {
			return "", err
		}
		if err := hostClockLanded(layer, reply, alone); err != nil {
			return "", fmt.Errorf("%s: %w", node, err)
		}
		return fmt.Sprintf("%s: the machine's clock is at %s, rate %.4g", node, signed(reply.After), reply.Rate), nil
	})
}

// hostClockLanded holds what was read back against what was asked for. Beside other steps only the
// jump can be told.
func hostClockLanded(layer agent.HostClockLayer, reply agent.HostClocksReply, alone bool) error {
	if moved := reply.After - reply.Before; (moved - layer.Jump).Abs() > clockTolerant {
		return fmt.Errorf("the machine's clock moved by %s, not by %s", signed(moved), layer.Jump)
	}
	if alone && math.Abs(reply.Rate-layer.Rate) > hostRateTolerant {
		return fmt.Errorf("the machine's clock runs at %.4g, not at %.4g", reply.Rate, layer.Rate)
	}
	return nil
}

// hostClockHealed holds what was read back against an untouched clock.
func hostClockHealed(reply agent.HostClocksReply) bool {
	return reply.After.Abs() <= hostClockTolerant && near(reply.Rate, 1)
}

// Sustain moves the clock there and back.
func (hostClock) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	if !p.Params.Is("kind", strobe) {
		return nil, nil
	}
	jumps := 1 // Inject's
	for there := true; sleep(ctx, p.Params.Duration("period")/2); there = !there {
		jumps++
		layer := agent.HostClockLayer{ID: fmt.Sprintf("%d/%d", p.ID, jumps), Rate: 1}
		if !there {
			layer.Jump = p.Params.Duration("by")
		}
		uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
		_, err := onEach(p.Nodes, func(node string) (string, error) {
			clocks := e.hostClocks[node]
			clocks.mu.Lock()
			defer clocks.mu.Unlock()
			clocks.put(p.ID, layer) // the layer before it takes its jump back
			_, err := e.sendHostClock(uncut, node)
			return "", err
		})
		cancel()
		if err != nil {
			return nil, err
		}
	}
	return []string{fmt.Sprintf("%d jumps there and back", jumps)}, nil
}

func (hostClock) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		clocks := e.hostClocks[node]
		clocks.mu.Lock()
		defer clocks.mu.Unlock()
		clocks.drop(p.ID)
		reply, err := e.sendHostClock(ctx, node)
		if err != nil {
			return "", err
		}
		line := fmt.Sprintf("%s: the machine's clock is at %s, rate %.4g", node, signed(reply.After), reply.Rate)
		if len(clocks.all()) > 0 {
			return line + ", by other steps", nil
		}
		if !hostClockHealed(reply) {
			return "", fmt.Errorf("%s, so it is not healed", line)
		}
		return line, nil
	})
}

const (
	hostClockTolerant = 100 * time.Millisecond // between two readings and a setting of a clock, on a busy machine
	hostRateTolerant  = 2e-4                   // the kernel counts the rate in steps of 1e-4
)

// sendHostClock tells a node's agent all that is in force. The caller holds the clock's lock.
func (e *Effects) sendHostClock(ctx context.Context, node string) (agent.HostClocksReply, error) {
	reply, err := e.ask(ctx, node, agent.Request{HostClock: &agent.HostClocks{Layers: e.hostClocks[node].all()}})
	if err != nil || reply.HostClock == nil {
		return agent.HostClocksReply{}, err
	}
	return *reply.HostClock, nil
}
