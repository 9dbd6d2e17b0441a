package disk

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

// powerFailure takes back what is not durable: newest first, so that each undo meets the
// state that its change has left.
type powerFailure struct {
	mode   string
	random *rand.Rand
	loss   Loss
}

// fail is a power failure.
func (l *undoLog) fail(mode string, seed uint64) Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := powerFailure{mode: mode, random: rand.New(rand.NewPCG(seed, 0x706f7765))}
	// The same seed gives the same failure: no order of a map.
	files := slices.SortedFunc(maps.Values(l.files), func(a, b *file) int { return cmp.Compare(a.changes[0].seq, b.changes[0].seq) })
	for _, f := range files {
		if p.content(f) {
			p.loss.Files++
		}
	}
	p.undoNames(l)
	// What survived is on the disk, as after a real power failure, and what was undone is gone.
	l.forget()
	l.trash.empty()
	return p.loss
}

// undoNames takes names back. They are saved in order: where one survives, so do all before.
func (p *powerFailure) undoNames(l *undoLog) {
	survive := 0
	if p.mode != PowerAll && len(l.names) > 0 {
		survive = p.random.IntN(len(l.names) + 1)
	}
	for _, c := range slices.Backward(l.names[survive:]) {
		if l.revert(c) != nil {
			p.loss.Kept++
		} else {
			p.loss.Names++
		}
	}
}

// content takes back changes of one file, and says whether there were any.
func (p *powerFailure) content(f *file) bool {
	gone, durable := p.judge(f)
	sized := f.lost == 0
	for _, c := range slices.Backward(f.settle(gone, durable)) {
		p.loss.Bytes += c.n
		blank := c.lost || p.mode == PowerPages && !c.resize
		if c.restore(f.fd, blank) != nil {
			p.loss.Kept++
		}
	}
	if !sized && unix.Ftruncate(f.fd, f.disk) != nil {
		p.loss.Kept++
	}
	return len(gone) > 0
}

// judge says which changes of a file, or parts of them, are taken back, and which are durable.
func (p *powerFailure) judge(f *file) (gone, durable []*change) {
	survive := 0 // of the changes that are not lost
	if p.mode == PowerPrefix {
		survive = p.random.IntN(len(f.changes) - f.lost + 1)
	}
	pages := map[int64]bool{}
	resized := false // in mode pages: the file got another size, which is taken back, and so is what came after
	met := 0
	for _, c := range f.changes {
		if c.lost {
			gone = append(gone, c)
			continue
		}
		met++
		switch {
		case p.mode == PowerPages && !c.resize && !resized:
			lost, kept := p.split(c, pages)
			gone, durable = append(gone, lost...), append(durable, kept...)
		case met <= survive:
			durable = append(durable, c)
		case met == survive+1 && p.mode == PowerPrefix && !c.resize:
			at := p.tear(c)
			rest := c.part(at, c.off+c.n)
			if at > c.off {
				durable = append(durable, c.part(c.off, at))
				rest.size = max(c.size, at)
			}
			gone = append(gone, rest)
		default:
			resized = resized || c.resize
			gone = append(gone, c)
		}
	}
	return gone, durable
}

// split parts a write by its pages. A page is gone or not for all writes to it.
func (p *powerFailure) split(c *change, pages map[int64]bool) (gone, durable []*change) {
	for from := c.off; from < c.off+c.n; {
		page := from / pageSize
		to := min((page+1)*pageSize, c.off+c.n)
		if _, known := pages[page]; !known {
			pages[page] = p.random.IntN(2) == 0
		}
		if part := c.part(from, to); pages[page] {
			gone = append(gone, part)
		} else {
			durable = append(durable, part)
		}
		from = to
	}
	return gone, durable
}

// tear chooses how far a write has come: not at all, or up to a sector in it.
func (p *powerFailure) tear(c *change) int64 {
	sectors := sectorsIn(c.off, c.n)
	if n := p.random.Int64N(sectors + 1); n > 0 {
		return (c.off/sectorSize + n) * sectorSize
	}
	return c.off
}

// part is what a change has done to a range in it.
func (c *change) part(from, to int64) *change {
	p := *c
	p.off, p.n = from, to-from
	had := int64(len(c.old))
	p.old = c.old[min(from-c.off, had):min(to-c.off, had)]
	return &p
}

// restore brings back what was there before a change; with blank only the bytes, zeros where
// there were none, and not the size.
func (c *change) restore(fd int, blank bool) error {
	content := c.old
	if blank {
		content = make([]byte, c.n)
		copy(content, c.old)
	}
	if len(content) > 0 {
		if _, err := unix.Pwrite(fd, content, c.off); err != nil {
			return err
		}
	}
	if blank {
		return nil
	}
	return unix.Ftruncate(fd, c.size)
}
