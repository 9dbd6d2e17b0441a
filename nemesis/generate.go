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
}

const (
	shortestFault = 500 * time.Millisecond
	leastInterval = time.Second           // below which faults are not pressed together to fit
	grain         = 10 * time.Millisecond // of times in a generated schedule: people read it
	leastTail     = 500 * time.Millisecond
)

// Generate draws a schedule from a seed: the same for the same seed and options. The first
// fault comes a tenth of the time limit in; the last tenth is quiet. Faults last half an
// interval to a whole one and do not overlap. Each fault of the options comes at least
// once, as far as there is time: where it is short they follow each other faster.
func Generate(seed uint64, o Options) Schedule {
	random := rand.New(rand.NewPCG(seed, 0))
	s := Schedule{Seed: seed}
	deck := deal(random, o)
	at := o.TimeLimit / 10
	end := o.TimeLimit - max(o.TimeLimit/10, leastTail)
	if len(deck.first) == 0 || o.Interval <= 0 {
		return s
	}
	interval := min(o.Interval, max(leastInterval, (end-at)/time.Duration(len(deck.first))))
	for len(s.Steps) < stepsMost {
		room := (end - at).Truncate(grain)
		duration := min(drawBetween(random, interval/2, interval), room)
		if duration < shortestFault || duration < interval/2 && len(s.Steps) > 0 {
			return s
		}
		step := deck.draw(random)
		step.At, step.Duration = at.Round(grain), duration
		s.Steps = append(s.Steps, step)
		at = step.At + duration + drawBetween(random, interval/10, 3*interval/10)
	}
	return s
}

// deck gives out cards: first one of each fault, then the other good ones, then any.
type deck struct {
	first, all []Step
	left       []Step
}

// card is a fault's card.
type card struct {
	Card
	fault string
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
			if len(o.Nodes) >= c.Least {
				possible = append(possible, card{c, about.Name})
			}
		}
	}
	return possible
}

func deal(random *rand.Rand, o Options) *deck {
	rounds := make(map[int][]Step)
	covered := make(map[string]bool)
	possible := cards(o)
	random.Shuffle(len(possible), func(i, j int) { possible[i], possible[j] = possible[j], possible[i] })
	slices.SortStableFunc(possible, func(a, b card) int { return a.Round - b.Round })
	d := &deck{}
	for _, c := range possible {
		step := Step{Fault: c.fault, Target: c.Target, Params: c.Params}
		d.all = append(d.all, step)
		round := c.Round
		switch {
		case !covered[c.fault]:
			covered[c.fault], round = true, 1
		case round == 1:
			round = 3 // another card of the same fault went first
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
