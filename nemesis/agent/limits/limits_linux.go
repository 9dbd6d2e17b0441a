package limits

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// Limiter limits one program. It can be used from several goroutines.
type Limiter struct {
	leader      Life
	name        string // of its cgroups
	data        string
	note        func(Undo) error
	hierarchies hierarchies

	mu      sync.Mutex // guards what is below
	limit   Limit      // in force
	how     map[Resource]string
	cgroups map[Resource]Cgroup // that limit something
	duty    *duty
	held    bool
	undo    Undo
}

// New takes a program, by the pid of its first process, which leads a process group. The name
// must be unique on the machine. The data is where it keeps it, for the limits of I/O; it may be
// empty. note is given all that there is to undo, each time before more is done; it may be nil.
func New(pid int, name, data string, note func(Undo) error) (*Limiter, error) {
	leader, err := lifeOf(pid)
	if err != nil {
		return nil, fmt.Errorf("limit pid %d: %w", pid, err)
	}
	h, err := readHierarchies()
	if err != nil {
		return nil, fmt.Errorf("limit pid %d: %w", pid, err)
	}
	if note == nil {
		note = func(Undo) error { return nil }
	}
	return &Limiter{
		leader: leader, name: prefix + filepath.Base(name), data: data, note: note, hierarchies: h,
		how: make(map[Resource]string), cgroups: make(map[Resource]Cgroup), undo: Undo{Leader: leader},
	}, nil
}

// Apply puts a limit in force in place of the one before. What stays as it was is not touched,
// so what a program may add is not counted anew. After an error the limit may be in force in part,
// and Clear undoes that.
func (l *Limiter) Apply(limit Limit) error {
	if err := limit.Validate(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit == l.limit {
		return nil
	}
	if limit != (Limit{}) && !l.leader.runs() {
		return fmt.Errorf("limit pid %d: it has ended: %w", l.leader.Pid, os.ErrNotExist)
	}
	if l.limit.Frozen { // what is frozen cannot change its cgroup
		if err := l.change(Freeze, Limit{}); err != nil {
			return err
		}
	}
	for _, resource := range Resources { // Freeze is the last of them
		if err := l.change(resource, limit); err != nil {
			return err
		}
	}
	l.limit = limit
	return nil
}

func (l *Limiter) change(resource Resource, limit Limit) error {
	was, want := l.limit.of(resource), limit.of(resource)
	if was == want && (want == Limit{} || l.how[resource] != "") {
		return nil
	}
	if err := l.lift(resource); err != nil {
		return fmt.Errorf("lift the limit of %s of pid %d: %w", resource, l.leader.Pid, err)
	}
	if (want == Limit{}) {
		return nil
	}
	how, err := l.impose(resource, want)
	if err != nil {
		return fmt.Errorf("limit %s of pid %d: %w", resource, l.leader.Pid, err)
	}
	l.how[resource] = how
	return nil
}

// impose puts one limit in force by the best mechanism that there is.
func (l *Limiter) impose(resource Resource, limit Limit) (string, error) {
	controller, limited := controllers[resource]
	refused := errors.New("no cgroup limits it")
	if limited && !limit.Refuse {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(l.leader.Pid) + "/cgroup")
		if err != nil {
			return "", err
		}
		at, err := l.hierarchies.place(controller, string(text))
		if err == nil {
			return l.enter(at, resource, limit)
		}
		refused = err
	}
	switch resource {
	case CPU:
		l.undo.Stopped = true
		if err := l.note(l.undo); err != nil {
			return "", err
		}
		l.duty = newDuty(l.leader, limit.CPU, l.held)
		return fmt.Sprintf("stopped and continued to use %g cores", limit.CPU), nil
	case Memory:
		return l.lower(resource, uint64(limit.Memory))
	case Files:
		return l.lower(resource, uint64(limit.Files))
	case Processes:
		if why := exempt(status(l.leader.Pid, "Uid"), status(l.leader.Pid, "CapEff")); why != "" {
			return "", fmt.Errorf("%w, and %s", refused, why)
		}
		return l.lower(resource, uint64(limit.Processes))
	}
	return "", refused
}

// enter moves the program into a cgroup of ours, if it is not there yet, and limits it there.
func (l *Limiter) enter(at Cgroup, resource Resource, limit Limit) (string, error) {
	ours := at
	if filepath.Base(at.Dir) != l.name { // another resource may have brought it there already
		ours.Dir = filepath.Join(at.Dir, l.name)
	}
	if i := slices.IndexFunc(l.undo.Cgroups, func(c Cgroup) bool { return c.Dir == ours.Dir }); i >= 0 {
		ours = l.undo.Cgroups[i]
	} else {
		l.undo.Cgroups = append(l.undo.Cgroups, ours)
		if err := l.note(l.undo); err != nil {
			return "", err
		}
		if err := ours.fill(l.leader); err != nil {
			return "", err
		}
	}
	l.cgroups[resource] = ours
	how, err := ours.set(resource, limit, l.data)
	if err != nil {
		return "", err
	}
	return "cgroup " + how, nil
}

// lower limits all processes of the program by a resource limit.
func (l *Limiter) lower(resource Resource, more uint64) (string, error) {
	members, err := family(l.leader)
	if err != nil {
		return "", err
	}
	said := ""
	for _, member := range members {
		how, err := lower(member, resource, more, func(p Previous) error {
			l.undo.Rlimits = append(l.undo.Rlimits, p)
			return l.note(l.undo)
		})
		if err != nil && (member == l.leader || member.runs()) {
			return "", err
		}
		if member == l.leader {
			said = how
		}
	}
	return said, nil
}

// lift undoes one limit.
func (l *Limiter) lift(resource Resource) error {
	if group, is := l.cgroups[resource]; is {
		if _, err := group.set(resource, Limit{}, l.data); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		delete(l.cgroups, resource)
		used := slices.ContainsFunc(slices.Collect(maps.Values(l.cgroups)), func(c Cgroup) bool { return c.Dir == group.Dir })
		if !used {
			if err := group.remove(); err != nil {
				return err
			}
			l.undo.Cgroups = slices.DeleteFunc(l.undo.Cgroups, func(c Cgroup) bool { return c.Dir == group.Dir })
		}
	}
	if resource == CPU && l.duty != nil {
		if err := l.duty.close(); err != nil {
			return err
		}
		l.duty, l.undo.Stopped = nil, false
	}
	if limit, is := rlimits[resource]; is {
		var these []Previous
		for _, previous := range l.undo.Rlimits {
			if previous.Resource == limit.number {
				these = append(these, previous)
			}
		}
		if err := raise(l.leader, these); err != nil {
			return err
		}
		l.undo.Rlimits = slices.DeleteFunc(l.undo.Rlimits, func(p Previous) bool { return p.Resource == limit.number })
	}
	delete(l.how, resource)
	return nil
}

// Clear restores what was there before the first Apply. It can be called again after an error.
func (l *Limiter) Clear() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var problems []error
	for i := range Resources {
		problems = append(problems, l.lift(Resources[len(Resources)-1-i])) // thawed first
	}
	err := errors.Join(append(problems, Revert(Undo{Leader: l.leader, Cgroups: l.undo.Cgroups}))...)
	if err != nil {
		return fmt.Errorf("clear the limits of pid %d: %w", l.leader.Pid, err)
	}
	l.limit, l.undo = Limit{}, Undo{Leader: l.leader}
	return nil
}

// Hold leaves it to the caller to stop and continue the program, until Unhold.
func (l *Limiter) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
	if l.duty != nil {
		l.duty.hold()
	}
}

// Unhold ends Hold. The program runs then.
func (l *Limiter) Unhold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	if l.duty != nil {
		l.duty.unhold()
	}
}

// Seen returns what the kernel says now.
func (l *Limiter) Seen() (Seen, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := Seen{How: maps.Clone(l.how)}
	for resource, group := range l.cgroups {
		group.look(resource, &seen)
	}
	if l.duty != nil {
		l.duty.mu.Lock()
		seen.Throttled += l.duty.stops
		l.duty.mu.Unlock()
	}
	if !l.leader.runs() {
		return seen, fmt.Errorf("pid %d has ended: %w", l.leader.Pid, os.ErrNotExist)
	}
	var err error
	if seen.CPUTime, err = cpuTime(l.leader.Pid); err != nil {
		return seen, err
	}
	open, err := descriptors(l.leader.Pid)
	seen.OpenFiles = len(open)
	return seen, err
}

// Revert undoes what an Undo says. What is undone already, or is gone, is no error.
func Revert(u Undo) error {
	var problems []error
	for _, group := range u.Cgroups {
		problems = append(problems, group.remove())
	}
	problems = append(problems, raise(u.Leader, u.Rlimits))
	if u.Stopped {
		problems = append(problems, resume(u.Leader))
	}
	return errors.Join(problems...)
}

// Survey says how each resource of a program that this one starts can be limited. It only looks.
func Survey(data string) []Ability {
	h, err := readHierarchies()
	cgroups, problem := os.ReadFile("/proc/self/cgroup")
	abilities := make([]Ability, 0, len(Resources))
	for _, resource := range Resources {
		abilities = append(abilities, h.ability(resource, string(cgroups), data, errors.Join(err, problem)))
	}
	return abilities
}

func (h hierarchies) ability(resource Resource, cgroups, data string, problem error) Ability {
	a := Ability{Resource: resource}
	if controller, limited := controllers[resource]; limited {
		at, err := h.place(controller, cgroups)
		if resource == IO && data != "" && err == nil && problem == nil {
			_, err = deviceOf(data)
		}
		if err = errors.Join(problem, err); err == nil {
			a.How = map[bool]string{false: "a cgroup of our own, version 1", true: "a cgroup of our own, version 2"}[at.V2]
			return a
		}
		a.Why = err.Error()
	}
	switch resource {
	case CPU:
		a.How = "stopping and continuing"
	case Memory, Files:
		a.How = rlimits[resource].name
	case Processes:
		if why := exempt(status(os.Getpid(), "Uid"), status(os.Getpid(), "CapEff")); why != "" {
			a.Why += "; " + why
		} else {
			a.How = rlimits[resource].name
		}
	case IO:
		a.Why += "; the disk faults slow a disk without it"
	case Freeze:
		a.Why += "; the fault pause stops a process without it"
	}
	if a.How != "" {
		a.Why = ""
	}
	return a
}
