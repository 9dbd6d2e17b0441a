package server

import (
	"maps"
	"sync"

	"capsize/raftnode/replica"
)

// book is where members' names and addresses stand. It may be used by several goroutines.
type book struct {
	dial map[string]string // addresses that replace what members give, by name

	mu      sync.Mutex
	members map[uint64]replica.Member
}

func newBook(c Config, known []replica.Member) *book {
	b := &book{dial: map[string]string{}, members: map[uint64]replica.Member{}}
	for _, p := range c.Dial {
		b.dial[p.Name] = p.Address
	}
	for _, m := range known {
		b.members[m.ID] = m
	}
	return b
}

// member returns a member, a removed one too; zero for none.
func (b *book) member(id uint64) replica.Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.members[id]
}

// name returns a member's name; empty for none.
func (b *book) name(id uint64) string { return b.member(id).Name }

// address returns at which address this node reaches a member.
func (b *book) address(m replica.Member) string {
	if address, replaced := b.dial[m.Name]; replaced {
		return address
	}
	return m.Address
}

func (b *book) note(m replica.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m.ID] = m
}

func (b *book) all() map[uint64]replica.Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.members)
}
