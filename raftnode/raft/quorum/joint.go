package quorum

// Joint is the voters of a configuration, and, while it is being left, those of the one
// before: then both must agree (Raft paper 6). The second is empty outside a change.
type Joint [2]Majority

// Contains reports whether id is a voter of either half.
func (j Joint) Contains(id uint64) bool { return j[0].Contains(id) || j[1].Contains(id) }

// Voters returns the voters of both halves, sorted, nobody twice.
func (j Joint) Voters() []uint64 {
	if len(j[1]) == 0 {
		return j[0]
	}
	return New(append(append([]uint64(nil), j[0]...), j[1]...))
}

// Reached returns the highest number that a majority of each half has reached.
func (j Joint) Reached(reached func(id uint64) uint64) uint64 {
	return min(j[0].Reached(reached), j[1].Reached(reached))
}

// Vote returns how an election stands: won with both halves only, lost with either.
func (j Joint) Vote(answer func(id uint64) Answer) Result {
	first, second := j[0].Vote(answer), j[1].Vote(answer)
	switch {
	case first == second:
		return first
	case first == Lost || second == Lost:
		return Lost
	}
	return Pending // one has won, the other not yet
}
