package transactions

// kind is a set of kinds of edges. An edge is of one kind, or of none where it only leads
// on from an auxiliary node: an edge between two transactions by way of auxiliary nodes is of
// the kind of its first part.
type kind uint8

const (
	ww kind = 1 << iota // To wrote over what From wrote
	wr                  // To read what From wrote
	rw                  // To wrote over what From read
	process
	realtime
	onward kind = 0
)

func (k kind) String() string {
	switch k {
	case ww:
		return "ww"
	case wr:
		return "wr"
	case rw:
		return "rw"
	case process:
		return "process"
	case realtime:
		return "realtime"
	}
	return "onward"
}

// edge leads from a node to one that must come after it.
type edge struct {
	from, to int32
	key      int32 // none where there is none
	why      int32 // which of check.reasons tells that it is so; none: the values tell
	kind     kind
}

const bytesPerEdge = 2*20 + 16 // twice, when they grow; and in the sorted form

// graph is a list of edges under construction. Nodes are the transactions, by position, and
// after them the auxiliary ones, which keep the number of edges linear.
type graph struct {
	edges   []edge
	nodes   int32
	reasons []reason
	place   []int32 // scratch of fan, by transaction: where among the sinks, from 1
}

// connect adds an edge, but none from a node to itself.
func (c *check) connect(e edge) {
	if e.from == e.to || !c.step(1) || !c.take(bytesPerEdge) {
		return
	}
	c.edges = append(c.edges, e)
}

// auxiliary adds a node.
func (c *check) auxiliary() int32 {
	c.nodes++
	return c.nodes - 1
}

// source is where a fan begins, and of what kind its edges are; sink is where it ends.
type source struct {
	txn  int32
	kind kind
}

type sink struct {
	txn int32
	why int32
}

// fan connects each source with each sink, but none with itself, by a number of edges that
// is linear in both. A source that is no sink leads to an auxiliary node that leads to all
// sinks. One that is, to two chains of nodes: one leads to the sinks before it, one to those
// after it. Sinks must be of different transactions.
func (c *check) fan(sources []source, sinks []sink, key int32) {
	if len(sources) == 0 || len(sinks) == 0 {
		return
	}
	if len(sources) == 1 || len(sinks) == 1 {
		for _, from := range sources {
			for _, to := range sinks {
				c.connect(edge{from: from.txn, to: to.txn, kind: from.kind, key: key, why: to.why})
			}
		}
		return
	}
	if c.place == nil {
		c.place = make([]int32, len(c.txns))
	}
	for i, to := range sinks {
		c.place[to.txn] = int32(i) + 1
	}
	first := c.nodes // of the chain to the sinks from one on
	for i, to := range sinks {
		from := c.auxiliary()
		c.connect(edge{from: from, to: to.txn, key: key, why: to.why})
		if i+1 < len(sinks) {
			c.connect(edge{from: from, to: from + 1, key: key, why: none})
		}
	}
	before := none // the first node of the chain to the sinks up to one, made where needed
	for _, from := range sources {
		i := c.place[from.txn] - 1
		if i < 0 {
			c.connect(edge{from: from.txn, to: first, kind: from.kind, key: key, why: none})
			continue
		}
		if before == none {
			before = c.nodes
			for j, to := range sinks {
				node := c.auxiliary()
				c.connect(edge{from: node, to: to.txn, key: key, why: to.why})
				if j > 0 {
					c.connect(edge{from: node, to: node - 1, key: key, why: none})
				}
			}
		}
		if i > 0 {
			c.connect(edge{from: from.txn, to: before + i - 1, kind: from.kind, key: key, why: none})
		}
		if int(i)+1 < len(sinks) {
			c.connect(edge{from: from.txn, to: first + i + 1, kind: from.kind, key: key, why: none})
		}
	}
	for _, to := range sinks {
		c.place[to.txn] = 0
	}
}

// csr is a graph in compressed sparse rows: the edges of node v are those from start[v] up
// to start[v+1].
type csr struct {
	start []int32
	to    []int32
	kind  []kind
	edge  []int32 // position in the list of edges that it was made of
	txn   []int32 // by node: the transaction; none for an auxiliary node
}

// compress makes the graph of those edges whose both ends are numbered by place, which maps a
// node to its new number, or to none.
func compress(edges []edge, place func(int32) int32, txn []int32) *csr {
	g := &csr{start: make([]int32, len(txn)+1), txn: txn}
	n := int32(0)
	for i := range edges {
		if from := place(edges[i].from); from != none && place(edges[i].to) != none {
			g.start[from+1]++
			n++
		}
	}
	for v := range txn {
		g.start[v+1] += g.start[v]
	}
	g.to, g.kind, g.edge = make([]int32, n), make([]kind, n), make([]int32, n)
	next := append([]int32(nil), g.start[:len(txn)]...)
	for i := range edges {
		from, to := place(edges[i].from), place(edges[i].to)
		if from == none || to == none {
			continue
		}
		at := next[from]
		next[from]++
		g.to[at], g.kind[at], g.edge[at] = to, edges[i].kind, int32(i)
	}
	return g
}
