package invariants

import (
	"slices"
	"strings"
)

// Conf is a configuration of the cluster. It is joint while it has outgoing voters: then
// what is decided needs a majority of both halves (Raft paper 6). Its lists are sorted, as
// [Decode] leaves them.
type Conf struct {
	Voters    []string `json:"voters"`
	Outgoing  []string `json:"outgoing,omitempty"`
	Learners  []string `json:"learners,omitempty"`
	Next      []string `json:"next,omitempty"` // voters of the outgoing half that become learners
	AutoLeave bool     `json:"auto,omitempty"`
}

// String lists the voters, of both halves if it is joint.
func (c *Conf) String() string {
	text := strings.Join(c.Voters, " ")
	if c.joint() {
		text += " and " + strings.Join(c.Outgoing, " ")
	}
	return "{" + text + "}"
}

func (c *Conf) sort() {
	for _, names := range [...][]string{c.Voters, c.Outgoing, c.Learners, c.Next} {
		slices.Sort(names)
	}
}

func (c *Conf) joint() bool { return len(c.Outgoing) > 0 }

func (c *Conf) equal(d *Conf) bool {
	return slices.Equal(c.Voters, d.Voters) && slices.Equal(c.Outgoing, d.Outgoing) &&
		slices.Equal(c.Learners, d.Learners) && slices.Equal(c.Next, d.Next) && c.AutoLeave == d.AutoLeave
}

// votes reports whether the node is a voter in either half.
func (c *Conf) votes(node string) bool {
	return slices.Contains(c.Voters, node) || slices.Contains(c.Outgoing, node)
}

func (c *Conf) members(node string) bool {
	return c.votes(node) || slices.Contains(c.Learners, node) || slices.Contains(c.Next, node)
}

// quorum reports whether those who agree are a majority of each half.
func (c *Conf) quorum(agrees func(node string) bool) bool {
	return majority(c.Voters, agrees) && (!c.joint() || majority(c.Outgoing, agrees))
}

func majority(voters []string, agrees func(node string) bool) bool {
	count := 0
	for _, v := range voters {
		if agrees(v) {
			count++
		}
	}
	return count > len(voters)/2
}

// follows says why a configuration must not come right after another one; "" if it may. A
// majority of the one and a majority of the other must share a node, or two leaders could
// be elected in one term (dissertation 4.1 and 4.3).
func (c *Conf) follows(before *Conf) string {
	switch {
	case c.equal(before):
		return ""
	case before.joint() && c.joint():
		return "one joint configuration follows another"
	case before.joint() && !slices.Equal(before.Voters, c.Voters):
		return "a joint configuration is left for other voters than its incoming ones"
	case c.joint() && !slices.Equal(before.Voters, c.Outgoing):
		return "the outgoing half is not the voters of before"
	case !before.joint() && !c.joint() && difference(before.Voters, c.Voters) > 1:
		return "more than one voter changes at once"
	}
	return ""
}

// difference counts the names that are in one list only.
func difference(a, b []string) int {
	count := 0
	for _, pair := range [...][2][]string{{a, b}, {b, a}} {
		for _, name := range pair[0] {
			if !slices.Contains(pair[1], name) {
				count++
			}
		}
	}
	return count
}
