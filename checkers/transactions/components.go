package transactions

// mode says in which ways a cycle may use edges rw.
type mode uint8

const (
	plain       mode = iota // as it likes
	single                  // exactly one
	nonadjacent             // never two in a row
)

// walk says which cycles are meant: those over edges of these kinds, in that mode.
type walk struct {
	kinds kind
	mode  mode
}

// A walk is in one of two states at a node. Without a mode it is always in state 0; of a
// single, state 1 is after the edge rw; of a nonadjacent, where the last edge was rw. A node
// and a state make a place, numbered 2·node+state, so that a walk in the graph with its mode
// is just a path over places.

// take returns the state behind an edge, and whether the walk may take it.
func (w walk) take(state int32, k kind) (int32, bool) {
	if k == onward {
		return state, true
	}
	if k&w.kinds == 0 {
		return 0, false
	}
	switch {
	case w.mode == plain:
		return 0, true
	case k == rw:
		return 1, state == 0
	case w.mode == single:
		return state, true
	}
	return 0, true
}

// components returns the nodes of each strongly connected component in which a walk can go
// in a circle; of a nonadjacent walk, the places, as their numbers. It is Tarjan's algorithm
// (Depth-First Search and Linear Graph Algorithms, 1972) with a stack of its own.
func (c *check) components(g *csr, w walk) [][]int32 {
	width := int32(1)
	if w.mode == nonadjacent {
		width = 2
	}
	n := int32(len(g.txn)) * width
	t := tarjan{order: make([]int32, n), low: make([]int32, n)}
	for place := range n {
		if t.order[place] == 0 {
			if !c.explore(g, w, width, place, &t) {
				return nil
			}
		}
	}
	return t.found
}

type tarjan struct {
	order []int32 // from 1, in which places are met; 0: not yet
	low   []int32 // the first place on the stack that is reached from here
	count int32
	open  []int32 // places whose component is not known yet
	path  []visit
	found [][]int32
}

type visit struct{ place, next int32 }

// closed is the low of a place whose component is known.
const closed = int32(1<<31 - 1)

func (t *tarjan) enter(g *csr, place, width int32) {
	t.count++
	t.order[place], t.low[place] = t.count, t.count
	t.open = append(t.open, place)
	t.path = append(t.path, visit{place, g.start[place/width]})
}

func (c *check) explore(g *csr, w walk, width, root int32, t *tarjan) bool {
	t.enter(g, root, width)
	for len(t.path) > 0 {
		at := &t.path[len(t.path)-1]
		place := at.place
		node := place / width
		if at.next < g.start[node+1] {
			e := at.next
			at.next++
			state, ok := w.take(place%width, g.kind[e])
			if !ok {
				continue
			}
			to := g.to[e]*width + state
			if t.order[to] == 0 {
				t.enter(g, to, width)
			} else {
				t.low[place] = min(t.low[place], t.low[to])
			}
			continue
		}
		if !c.step(1 + int(g.start[node+1]-g.start[node])) {
			return false
		}
		t.path = t.path[:len(t.path)-1]
		if len(t.path) > 0 {
			parent := t.path[len(t.path)-1].place
			t.low[parent] = min(t.low[parent], t.low[place])
		}
		if t.low[place] == t.order[place] {
			t.close(place)
		}
	}
	return true
}

// close takes the component of its first place off the stack. One of a single place is no
// circle, since no edge leads from a node to itself.
func (t *tarjan) close(first int32) {
	from := len(t.open)
	for {
		from--
		t.low[t.open[from]] = closed
		if t.open[from] == first {
			break
		}
	}
	if len(t.open)-from > 1 {
		t.found = append(t.found, append([]int32(nil), t.open[from:]...))
	}
	t.open = t.open[:from]
}
