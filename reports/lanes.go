package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// stay is a time in which a node's status did not change, as far as it was asked.
type stay struct {
	Node     string
	Status   histories.Status
	From, To time.Duration
}

// staysOf returns every node's statuses in order of their beginning.
func staysOf(events []histories.Event, end time.Duration) []stay {
	var stays []stay
	last := make(map[string]int)
	for i := range events {
		e := &events[i]
		if e.Status == nil {
			continue
		}
		if at, known := last[e.Node]; known {
			stays[at].To = e.Time
		}
		last[e.Node] = len(stays)
		stays = append(stays, stay{Node: e.Node, Status: *e.Status, From: e.Time, To: end})
	}
	return stays
}

// State says in words what a node was.
func (s *stay) State() string {
	switch {
	case !s.Status.Up:
		return "no answer"
	case s.Status.Role == "leader":
		return fmt.Sprintf("leader of term %d", s.Status.Term)
	case s.Status.Leader == "":
		return fmt.Sprintf("%s in term %d, knows no leader", s.Status.Role, s.Status.Term)
	default:
		return fmt.Sprintf("%s of %s in term %d", s.Status.Role, s.Status.Leader, s.Status.Term)
	}
}

// class is how a stay is drawn, the most telling first: see moreTelling.
func (s *stay) class() string {
	switch {
	case !s.Status.Up:
		return "down"
	case s.Status.Role == "leader":
		return "lead"
	case s.Status.Role == "follower" && s.Status.Leader != "":
		return "follow"
	default:
		return "seek"
	}
}

// laneClasses are ordered by what a pixel shows that has room for one only.
var laneClasses = []string{"lead", "down", "seek", "follow"}

func moreTelling(class, than string) bool {
	return slices.Index(laneClasses, class) < slices.Index(laneClasses, than)
}

// laneNodes returns the nodes that have a lane: the run's, and others that were observed.
func laneNodes(nodes []string, stays []stay) []string {
	known := make(map[string]bool)
	for _, node := range nodes {
		known[node] = true
	}
	var others []string
	for i := range stays {
		if node := stays[i].Node; !known[node] {
			known[node] = true
			others = append(others, node)
		}
	}
	slices.Sort(others)
	all := slices.Concat(nodes, others)
	return all[:min(len(all), lanesMost)]
}

const (
	lanesMost  = 25
	laneHeight = 22
)

// lanesPicture is a lane for each node: what it was, which term it led, when it did not
// answer, which faults hit it, when its process ended by itself.
type lanesPicture struct {
	Boxes, Faults []box
	Labels        []label
	Ends          []outline
	Names         []label
}

func drawLanes(a axis, top px, nodes []string, stays []stay, faults []faultView, events []histories.Event) *lanesPicture {
	p := &lanesPicture{}
	lane := make(map[string]int)
	for i, node := range nodes {
		lane[node] = i
		y := top + px(i)*laneHeight
		p.Boxes = append(p.Boxes, box{Class: "lane", X: a.left, Y: y + 3, W: a.right - a.left, H: laneHeight - 6})
		p.Names = append(p.Names, label{Class: "name", Anchor: "end", Text: short(node, 10), X: a.left - 8, Y: y + laneHeight/2 + 4})
	}
	for _, node := range nodes {
		p.stays(a, top+px(lane[node])*laneHeight, node, stays, faults)
	}
	for i := range faults {
		f := &faults[i]
		for _, node := range f.Nodes {
			at, known := lane[node]
			if !known || !f.HasLanded || f.end(a.end) < a.begin {
				continue
			}
			from, to := a.x(f.Landed), a.x(f.end(a.end))
			p.Faults = append(p.Faults, box{Class: "hit", Title: f.title(), X: from, Y: top + px(at)*laneHeight + laneHeight - 5, W: max(1.5, to-from), H: 4})
		}
	}
	for i := range events {
		e := &events[i]
		at, known := lane[e.Node]
		if e.Process == histories.Observer && e.F == "exit" && known {
			p.Ends = append(p.Ends, outline{"ended", fmt.Sprintf("M%s %sl8 8m0-8l-8 8", a.x(e.Time)-4, top+px(at)*laneHeight+laneHeight/2-4), "process ended by itself: " + short(oneLine(e.Error), 300)})
		}
	}
	return p
}

// stays draws one node's lane. Of stays that share a pixel the most telling is drawn.
func (p *lanesPicture) stays(a axis, y px, node string, stays []stay, faults []faultView) {
	first := len(p.Boxes)
	for i := range stays {
		s := &stays[i]
		if s.Node != node || s.To <= a.begin {
			continue
		}
		from, to := a.x(s.From), a.x(s.To)
		b := box{Class: s.class(), Title: fmt.Sprintf("%s: %s, %s to %s", node, s.State(), clock(s.From), clock(s.To)), X: from, Y: y + 3, W: max(1, to-from), H: laneHeight - 6}
		if n := len(p.Boxes); n > first && to-from < 1 && from-p.Boxes[n-1].X < 1 {
			if moreTelling(b.Class, p.Boxes[n-1].Class) {
				p.Boxes[n-1] = b
			}
			continue
		}
		p.Boxes = append(p.Boxes, b)
		for _, text := range laneTexts(s, faults) {
			if textWidth(text)+8 < to-from {
				p.Labels = append(p.Labels, label{Class: "in-" + b.Class, Anchor: "start", Text: text, X: from + 4, Y: y + laneHeight/2 + 4, From: from, Until: to})
				break
			}
		}
	}
}

// laneTexts name a stay that is out of the ordinary, the longest text first; a silent node
// with the faults that silenced it.
func laneTexts(s *stay, faults []faultView) []string {
	switch s.class() {
	case "lead":
		return []string{fmt.Sprintf("leader, term %d", s.Status.Term), fmt.Sprintf("term %d", s.Status.Term), fmt.Sprintf("t%d", s.Status.Term)}
	case "seek":
		return []string{"no leader"}
	case "down":
		var names []string
		for i := range faults {
			f := &faults[i]
			if f.HasLanded && slices.Contains(f.Nodes, s.Node) && f.Landed < s.To && f.end(s.To) > s.From && !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
		if len(names) > 0 {
			cause := short(strings.Join(names, ", "), 30)
			return []string{"no answer: " + cause, cause}
		}
		return []string{"no answer"}
	default:
		return nil
	}
}

// changeView is a line of the lanes' table.
type changeView struct {
	At         time.Duration
	Node, What string
}

// changesOf lists what the lanes draw: elections, silences, processes that ended. Followers
// that merely learn of a leader are left out.
func changesOf(stays []stay, events []histories.Event) []changeView {
	var changes []changeView
	before := make(map[string]string)
	for i := range stays {
		s := &stays[i]
		if class := s.class(); class != "follow" || before[s.Node] != "" && before[s.Node] != "follow" {
			changes = append(changes, changeView{s.From, s.Node, s.State()})
		}
		before[s.Node] = s.class()
	}
	for i := range events {
		if e := &events[i]; e.Process == histories.Observer && e.F == "exit" {
			changes = append(changes, changeView{e.Time, e.Node, "process ended by itself: " + short(oneLine(e.Error), 300)})
		}
	}
	slices.SortStableFunc(changes, func(a, b changeView) int { return cmp.Compare(a.At, b.At) })
	return changes
}
