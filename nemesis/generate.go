package nemesis

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Options decide what [Generate] draws.
type Options struct {
	Faults    []string      // names; one that is not known is ignored
	Interval  time.Duration // about one fault begins in each
	TimeLimit time.Duration // of the run
	Nodes     []string
	// From and Until bound the time in which faults are in force. Until 0 means a tenth of the
	// time limit before its end, and then From 0 means a tenth after its beginning.
	From, Until time.Duration
	// Works reports whether a step of a fault can work. Nil means that all can.
	Works func(fault Fault, params Params) bool
	// Swarm, where it is not nil, is the chance by which a part of the cards is chosen.
	Swarm *rand.Rand
}

// window returns the first moment for a fault to begin, and the last to be in force.
func (o Options) window() (from, until time.Duration) {
	if o.Until > 0 {
		return o.From, min(o.Until, o.TimeLimit)
	}
	return max(o.From, o.TimeLimit/10), o.TimeLimit - max(o.TimeLimit/10, leastTail)
}

const (
	shortestFault = 500 * time.Millisecond
	leastInterval = time.Second           // below which faults are not pressed together to fit
	grain         = 10 * time.Millisecond // of times in a generated schedule: people read it
	leastTail     = 500 * time.Millisecond
	pressMost     = 6 // packages that are pressed together, so that each of them comes
)

// Generate draws a schedule from a seed: the same for the same seed and options. The first
// fault comes a tenth of the time limit in; the last tenth is quiet. Faults last half an
// interval to a whole one and do not overlap. Each package of the options comes at least
// once, as far as there is time: where it is short they follow each other faster.
func Generate(seed uint64, o Options) Schedule {
	return Schedule{Seed: seed, Steps: generate(rand.New(rand.NewPCG(seed, 0)), o)}
}

func generate(random *rand.Rand, o Options) []Step {
	possible := cards(o)
	if o.Swarm != nil {
		possible, o.Interval = swarm(possible, o.Interval, o.Swarm)
	}
	deck := deal(random, possible)
	at, end := o.window()
	if len(deck.first) == 0 || o.Interval <= 0 {
		return nil
	}
	interval := o.Interval
	if len(deck.first) <= pressMost {
		interval = min(o.Interval, max(leastInterval, (end-at)/time.Duration(len(deck.first))))
	}
	var steps []Step
	for len(steps) < stepsMost {
		room := (end - at).Truncate(grain)
		duration := min(drawBetween(random, interval/2, interval), room)
		if duration < shortestFault || duration < interval/2 && len(steps) > 0 {
			return steps
		}
		step := deck.draw(random)
		step.At, step.Duration = at.Round(grain), duration
		steps = append(steps, step)
		at = step.At + duration + drawBetween(random, interval/10, 3*interval/10)
	}
	return steps
}

// swarm keeps about half of the faults, at least one, and about half of the cards of each, and
// draws the pace.
func swarm(possible []card, interval time.Duration, random *rand.Rand) ([]card, time.Duration) {
	if len(possible) == 0 {
		return nil, interval
	}
	keep := make(map[string]bool)
	kept := make(map[string]int)
	var chosen []card
	for _, c := range possible {
		if _, decided := keep[c.fault]; !decided {
			keep[c.fault] = random.IntN(2) == 0
		}
		if take := random.IntN(2) == 0; keep[c.fault] && (take || kept[c.fault] == 0) {
			chosen = append(chosen, c)
			kept[c.fault]++
		}
	}
	if len(chosen) == 0 {
		chosen = []card{possible[random.IntN(len(possible))]}
	}
	pace := []time.Duration{interval / 2, interval, 2 * interval}
	return chosen, max(pace[random.IntN(len(pace))], leastInterval)
}

// deck gives out cards: first one of each fault, then the other good ones, then any.
type deck struct {
	first, all []Step
	left       []Step
}

// card is a fault's card.
type card struct {
	Card
	fault, pack string // pack: its package
}

// cards returns the cards that so many nodes can play.
func cards(o Options) []card {
	var possible []card
	for _, fault := range faults {
		about := fault.About()
		if !slices.Contains(o.Faults, about.Name) {
			continue
		}
		for _, c := range about.Cards {
			if len(o.Nodes) >= c.Least && (o.Works == nil || o.Works(fault, withDefaults(about.Params, c.Params))) {
				possible = append(possible, card{c, about.Name, about.Package})
			}
		}
	}
	return possible
}

func deal(random *rand.Rand, possible []card) *deck {
	rounds := make(map[int][]Step)
	covered := make(map[string]bool)
	random.Shuffle(len(possible), func(i, j int) { possible[i], possible[j] = possible[j], possible[i] })
	slices.SortStableFunc(possible, func(a, b card) int { return a.Round - b.Round })
	d := &deck{}
	for _, c := range possible {
		step := Step{Fault: c.fault, Target: c.Target, Params: c.Params}
		d.all = append(d.all, step)
		round := c.Round
		switch {
		case !covered[c.pack]:
			covered[c.pack], round = true, 1
		case round == 1:
			round = 3 // another card of the same package went first
		}
		rounds[round] = append(rounds[round], step)
	}
	d.first = rounds[1]
	d.left = slices.Concat(rounds[1], oneOfEachKind(rounds[2]), rounds[3])
	return d
}

// oneOfEachKind keeps the first card of one-way and the first of the two-way kinds: more
// of them would crowd out the other faults in a run of usual length.
func oneOfEachKind(steps []Step) []Step {
	var kept []Step
	seen := make(map[bool]bool)
	for _, step := range steps {
		if way := step.Params["kind"] == oneWay; !seen[way] {
			seen[way] = true
			kept = append(kept, step)
		}
	}
	return kept
}

func (d *deck) draw(random *rand.Rand) Step {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.all)
		random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	step := d.left[0]
	d.left = d.left[1:]
	step.Params = maps.Clone(step.Params) // each step owns its parameters
	return step
}

// drawBetween draws a duration from one to another, in whole grains.
func drawBetween(random *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(random.Int64N(int64(most-least)+1))).Round(grain)
}
