package nemesis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"capsize/nemesis/agent"
)

// changeClock changes the clocks that processes read, each process apart.
type changeClock struct{}

const (
	jump          = "jump"
	freezeClock   = "freeze"
	rate          = "rate"
	strobe        = "strobe"
	realtime      = "realtime"
	monotonic     = "monotonic"
	bothClocks    = "both"
	clockTolerant = 2 * time.Second // between two readings on a busy machine
)

func (changeClock) About() About {
	of := func(kind, clock string, more ...string) map[string]string {
		params := map[string]string{"kind": kind, "clock": clock}
		for i := 0; i < len(more); i += 2 {
			params[more[i]] = more[i+1]
		}
		return params
	}
	return About{
		Name: "clock", Package: "clock",
		Meaning: "the process reads another time than the machine's: a clock that was set, drifts, or stands still. No other process is concerned",
		Params: []Param{
			{
				Name: "kind", Default: jump, Allowed: []string{jump, freezeClock, rate, strobe},
				Meaning: "jump: the clock is set ahead or back; freeze: it stands still; rate: it runs slow or fast; strobe: it jumps there and back, over and over",
			},
			{Name: "clock", Default: realtime, Allowed: []string{realtime, monotonic, bothClocks}, Meaning: "the wall clock (REALTIME), the one that time-outs are counted by (MONOTONIC), or both at one instant"},
			{Name: "by", Kind: Duration, Default: "1m", Least: "-8760h", Most: "8760h", Meaning: "of jump and strobe: how far; below 0 is back"},
			{Name: "rate", Kind: Number, Default: "2", Least: "0.1", Most: "10", Meaning: "of rate: seconds that pass on the clock in a second"},
			{Name: "period", Kind: Duration, Default: "200ms", Least: "10ms", Most: "1h", Meaning: "of strobe: there, and back again"},
		},
		Target: always(One), Needs: always([]string{agent.Clocks}),
		Cards: []Card{
			{Leader, of(jump, realtime, "by", "1h"), 1, 1},
			{Leader, of(freezeClock, bothClocks), 1, 1},
			{Leader, of(rate, bothClocks, "rate", "0.2"), 2, 1},
			{Minority, of(rate, monotonic, "rate", "5"), 2, 3},
			{One, of(strobe, realtime, "by", "300ms"), 3, 1},
			{Leader, of(jump, bothClocks, "by", "10s"), 3, 1},
			{Minority, of(jump, realtime, "by", "-24h"), 3, 3},
			{All, of(jump, realtime, "by", "10m"), 3, 1},
			{Majority, of(freezeClock, monotonic), 3, 3},
		},
	}
}

func (changeClock) Plan(scene Scene) (Planned, error) {
	p := scene.Params
	detail := p["kind"] + " " + p["clock"]
	switch p["kind"] {
	case jump:
		detail += " by " + p["by"]
	case rate:
		detail += " " + p["rate"]
	case strobe:
		detail += fmt.Sprintf(" by %s every %s", p["by"], p["period"])
	}
	return Planned{Nodes: scene.Targets, Detail: detail + " on " + strings.Join(scene.Targets, " ")}, nil
}

// clockLayer is what a step does to the clocks.
func clockLayer(p Planned) agent.ClockLayer {
	shift := agent.ClockShift{Rate: 1}
	switch p.Params["kind"] {
	case jump, strobe:
		shift.Jump = p.Params.Duration("by")
	case freezeClock:
		shift.Rate = 0
	case rate:
		shift.Rate = p.Params.Number("rate")
	}
	return clockLayerOf(fmt.Sprint(p.ID), p.Params["clock"], shift)
}

func clockLayerOf(id, clock string, shift agent.ClockShift) agent.ClockLayer {
	layer := agent.ClockLayer{ID: id, Realtime: agent.ClockShift{Rate: 1}, Monotonic: agent.ClockShift{Rate: 1}}
	if clock != monotonic {
		layer.Realtime = shift
	}
	if clock != realtime {
		layer.Monotonic = shift
	}
	return layer
}

func (changeClock) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	layer := clockLayer(p)
	return e.onEachUp(p, func(node string) (string, error) {
		state, clocks := e.states[node], e.clocks[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		if state.downBy != 0 {
			return "", fmt.Errorf("%s is down: step %d killed it", node, state.downBy)
		}
		clocks.mu.Lock()
		defer clocks.mu.Unlock()
		alone := len(clocks.all()) == 0
		own, ownErr := e.ownTime(ctx, node)
		clocks.put(p.ID, layer) // before the proof: what may be in force must be healed
		reply, err := e.setClock(ctx, node)
		if err != nil {
			return "", err
		}
		if err := clockLanded(layer, reply, alone); err != nil {
			return "", fmt.Errorf("%s: %w", node, err)
		}
		line := describeClock(node, reply)
		if ownErr != nil || e.clock == nil || p.Params["clock"] == monotonic || layer.Realtime.Jump == 0 {
			return line, nil // there is nothing to compare
		}
		said, err := e.sawJump(ctx, node, own, layer.Realtime.Jump)
		return line + said, err
	})
}

// clockLanded holds what was read back against what was asked for. Beside other steps only the
// jump can be told, within what passes between two readings at their rates.
func clockLanded(layer agent.ClockLayer, reply agent.ClockReply, alone bool) error {
	for _, class := range []struct {
		name  string
		asked agent.ClockShift
		shown agent.ClockShown
	}{{"REALTIME", layer.Realtime, reply.Realtime}, {"MONOTONIC", layer.Monotonic, reply.Monotonic}} {
		if alone && !near(class.shown.Rate, class.asked.Rate) {
			return fmt.Errorf("%s runs at %.3g, not at %.3g, in the memory of pid %d", class.name, class.shown.Rate, class.asked.Rate, reply.Pid)
		}
		moved := class.shown.Offset - class.shown.Before
		if off := (moved - class.asked.Jump).Abs(); off > clockTolerant {
			return fmt.Errorf("%s moved by %s, not by %s, in the memory of pid %d", class.name, moved, class.asked.Jump, reply.Pid)
		}
	}
	return nil
}

func near(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 }

func describeClock(node string, reply agent.ClockReply) string {
	class := func(name string, shown agent.ClockShown) string {
		return fmt.Sprintf("%s %s at rate %.3g", name, signed(shown.Offset), shown.Rate)
	}
	line := fmt.Sprintf("%s: pid %d reads %s, %s", node, reply.Pid, class("REALTIME", reply.Realtime), class("MONOTONIC", reply.Monotonic))
	if reply.How != "" {
		line += " (" + reply.How + ")"
	}
	return line
}

// signed writes an offset, to the millisecond.
func signed(d time.Duration) string {
	d = d.Round(time.Millisecond)
	if d >= 0 {
		return "+" + d.String()
	}
	return d.String()
}

// Sustain moves the clock there and back.
func (changeClock) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	if p.Params["kind"] != strobe {
		return nil, nil
	}
	half := p.Params.Duration("period") / 2
	by := p.Params.Duration("by")
	jumps := 1 // Inject's
	for there := true; sleep(ctx, half); there = !there {
		jumps++
		shift := agent.ClockShift{Jump: -by, Rate: 1}
		if !there {
			shift.Jump = by
		}
		uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
		// Each jump is a layer of its own. That REALTIME takes back the one before it, with its
		// layer, is made up for, so both clocks do the same.
		id := fmt.Sprintf("%d/%d", p.ID, jumps)
		layer := clockLayerOf(id, p.Params["clock"], shift)
		if p.Params["clock"] != monotonic {
			layer.Realtime.Jump = by
			if there {
				layer.Realtime.Jump = 0
			}
		}
		_, err := onEach(p.Nodes, func(node string) (string, error) {
			clocks := e.clocks[node]
			clocks.mu.Lock()
			defer clocks.mu.Unlock()
			clocks.put(p.ID, layer)
			_, err := e.setClock(uncut, node)
			return "", err
		})
		cancel()
		if err != nil {
			return nil, err
		}
	}
	return []string{fmt.Sprintf("%d jumps there and back", jumps)}, nil
}

func (changeClock) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		clocks := e.clocks[node]
		clocks.mu.Lock()
		defer clocks.mu.Unlock()
		clocks.drop(p.ID)
		reply, err := e.setClock(ctx, node)
		if errors.Is(err, ErrEnded) {
			return node + ": nothing to heal, the process has ended", nil
		}
		if err != nil {
			return "", err
		}
		if left := clocks.all(); len(left) > 0 {
			return describeClock(node, reply) + ", by other steps", nil
		}
		if !near(reply.Realtime.Rate, 1) || !near(reply.Monotonic.Rate, 1) || reply.Realtime.Offset.Abs() > time.Millisecond {
			return "", fmt.Errorf("%s: its clocks are not healed: %s", node, describeClock(node, reply))
		}
		return describeClock(node, reply), nil
	})
}

// setClock tells a node's agent all that is in force. The caller holds the clock's lock.
func (e *Effects) setClock(ctx context.Context, node string) (agent.ClockReply, error) {
	reply, err := e.ask(ctx, node, agent.Request{Clock: &agent.Clock{Process: e.processes[node].Name, Layers: e.clocks[node].all()}})
	if err != nil {
		return agent.ClockReply{}, err
	}
	if reply.Clock == nil {
		return agent.ClockReply{}, fmt.Errorf("%s: its agent says nothing of the clock", node)
	}
	return *reply.Clock, nil
}

const ownTimeLimit = time.Second

// ahead is how far a node's own word of its wall clock is ahead of the checker's clock.
type ahead struct{ offset, doubt time.Duration }

// ownTime asks the system itself what time it is on a node.
func (e *Effects) ownTime(ctx context.Context, node string) (ahead, error) {
	if e.clock == nil {
		return ahead{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ownTimeLimit)
	defer cancel()
	asked := time.Now()
	says, err := e.clock(ctx, node)
	if err != nil {
		return ahead{}, err
	}
	took := time.Since(asked)
	return ahead{says.Sub(asked.Round(0)) - took/2, took}, nil
}

// sawJump holds the system's own word against the jump. A node that says nothing, being cut off
// or slow, leaves the proof as it is.
func (e *Effects) sawJump(ctx context.Context, node string, before ahead, by time.Duration) (string, error) {
	after, err := e.ownTime(ctx, node)
	if err != nil {
		return "", nil
	}
	moved := after.offset - before.offset
	if (moved - by).Abs() > clockTolerant+before.doubt+after.doubt {
		return "", fmt.Errorf("%s says that its clock moved by %s, not by %s", node, moved.Round(time.Millisecond), by)
	}
	return fmt.Sprintf("; it says itself that it moved by %s", signed(moved)), nil
}
