package transactions

import (
	"math"
	"slices"
)

// startsMax and visitsMax bound the search for the shortest cycle of a component: from so
// many transactions, and until so many places were visited, once any cycle is found. What is
// reported then may not be the shortest of a very large component.
const (
	startsMax = 256
	visitsMax = 2_000_000
)

// shortest returns the edges of a shortest cycle of the walk within the nodes, first one that
// begins at a transaction; nil where there is none. The length is counted in transactions.
func (c *check) shortest(g *csr, nodes []int32, w walk) []int32 {
	s := c.seekerOf(g)
	s.walk = w
	for _, v := range nodes {
		s.inside[v] = true
	}
	defer func() {
		for _, v := range nodes {
			s.inside[v] = false
		}
	}()
	var best []int32
	most := int32(math.MaxInt32)
	visits := 0
	for i, start := range c.starts(g, nodes) {
		if best != nil && (i >= startsMax || visits > visitsMax) || w.mode == single && visits > 10*visitsMax {
			break
		}
		cycle, length := s.from(start, most)
		visits += len(s.visited)
		if !c.step(len(s.visited)) {
			break
		}
		if cycle != nil {
			best, most = cycle, length
		}
		if most == 2 {
			break
		}
	}
	return best
}

// starts returns the transactions among nodes, those first of which an edge leads farthest
// back in real time: of a cycle that is the part that should not be, and it is short from there.
func (c *check) starts(g *csr, nodes []int32) []int32 {
	type start struct {
		node int32
		back int64
	}
	starts := make([]start, 0, len(nodes))
	for _, v := range nodes {
		if g.txn[v] == none {
			continue
		}
		s := start{v, math.MinInt64}
		called := c.txns[g.txn[v]].Call
		for e := g.start[v]; e < g.start[v+1]; e++ {
			if g.kind[e]&(process|realtime) != 0 {
				continue
			}
			for _, to := range g.ahead(g.to[e]) {
				if returned := c.returned(g.txn[to]); returned != Never && called > returned {
					s.back = max(s.back, called-returned)
				}
			}
		}
		starts = append(starts, s)
	}
	slices.SortStableFunc(starts, func(a, b start) int { return compare(b.back, a.back) })
	list := make([]int32, len(starts))
	for i := range starts {
		list[i] = starts[i].node
	}
	return list
}

// ahead returns v where it is a transaction, and otherwise the transactions right behind it.
func (g *csr) ahead(v int32) []int32 {
	if g.txn[v] != none {
		return []int32{v}
	}
	var found []int32
	for e := g.start[v]; e < g.start[v+1]; e++ {
		if g.txn[g.to[e]] != none {
			found = append(found, g.to[e])
		}
	}
	return found
}

// seeker looks for shortest cycles by breadth-first search over places, in which the edges
// out of auxiliary nodes cost nothing.
type seeker struct {
	g        *csr
	walk     walk
	inside   []bool  // by node: the search may go there
	distance []int32 // by place, from 1; 0: not reached
	by       []int32 // by place: the edge on which it is reached
	prior    []int32 // by place: the place from which it is reached
	visited  []int32
}

// seekerOf returns the seeker of a graph; one is kept, since there may be many components.
func (c *check) seekerOf(g *csr) *seeker {
	if c.seeker == nil || c.seeker.g != g {
		n := len(g.txn)
		c.take(int64(n) * 25)
		c.seeker = &seeker{g: g, inside: make([]bool, n), distance: make([]int32, 2*n), by: make([]int32, 2*n), prior: make([]int32, 2*n)}
	}
	return c.seeker
}

// from returns the edges of the shortest cycle through start that is shorter than most.
func (s *seeker) from(start, most int32) ([]int32, int32) {
	for _, p := range s.visited {
		s.distance[p] = 0
	}
	s.visited = s.visited[:0]
	goal := 2 * start
	if s.walk.mode == single {
		goal++
	}
	now, next := []int32{2 * start}, []int32(nil)
	s.reach(2*start, 1)
	last, lastEdge, length := none, none, most
	for depth := int32(1); len(now) > 0 && depth-1 < length; depth++ {
		for len(now) > 0 {
			p := now[len(now)-1]
			now = now[:len(now)-1]
			if s.distance[p] != depth {
				continue // it was reached at less cost meanwhile
			}
			cost := int32(0)
			if s.g.txn[p/2] != none {
				cost = 1
			}
			for e := s.g.start[p/2]; e < s.g.start[p/2+1]; e++ {
				state, ok := s.walk.take(p%2, s.g.kind[e])
				to := 2*s.g.to[e] + state
				if !ok || !s.inside[to/2] {
					continue
				}
				if to == goal {
					if depth-1+cost < length {
						last, lastEdge, length = p, e, depth-1+cost
					}
					continue
				}
				if was := s.distance[to]; was != 0 && was <= depth+cost {
					continue
				}
				s.reach(to, depth+cost)
				s.by[to], s.prior[to] = e, p
				if cost == 0 {
					now = append(now, to)
				} else {
					next = append(next, to)
				}
			}
		}
		now, next = next, now[:0]
	}
	if last == none {
		return nil, 0
	}
	cycle := []int32{lastEdge}
	for p := last; p != 2*start; p = s.prior[p] {
		cycle = append(cycle, s.by[p])
	}
	slices.Reverse(cycle)
	return cycle, length
}

func (s *seeker) reach(p, distance int32) {
	if s.distance[p] == 0 {
		s.visited = append(s.visited, p)
	}
	s.distance[p] = distance
}
