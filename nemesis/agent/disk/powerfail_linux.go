package disk

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// powerFailure undoes changes, newest first.
type powerFailure struct {
	mode    string
	random  *rand.Rand
	survive map[*file]int // in mode prefix: changes of the file that survive; nil is for the names
	pages   map[pageOf]bool
	met     map[*file]bool
	named   bool // in mode pages: a name has survived
	loss    Loss
}

type pageOf struct {
	file *file
	page int64
}

// draw chooses how many changes of each file, and of the names, survive a failure of mode
// prefix. Lost ones never do.
func (p *powerFailure) draw(changes []*change) {
	if p.mode != PowerPrefix {
		return
	}
	total := map[*file]int{}
	var order []*file // the same seed gives the same failure: no order of a map
	for _, c := range changes {
		if c.lost {
			continue
		}
		if total[c.file] == 0 {
			order = append(order, c.file)
		}
		total[c.file]++
	}
	left := map[*file]int{}
	for _, f := range order {
		left[f] = p.random.IntN(total[f] + 1)
	}
	// Changes come newest first: those that survive are the last to come.
	for f, n := range left {
		p.survive[f] = total[f] - n // how many are undone
	}
}

func (p *powerFailure) undo(c *change) {
	if p.mode == PowerPrefix && !c.lost {
		if p.survive[c.file] == 0 {
			return
		}
		p.survive[c.file]--
	}
	if c.file == nil {
		// Names are saved in order: once one survives, so do all before it.
		p.named = p.named || p.mode == PowerPages && p.random.IntN(2) == 0
		if p.named {
			return
		}
		if c.revert() != nil {
			p.loss.Kept++
		} else {
			p.loss.Names++
		}
		return
	}
	p.met[c.file] = true
	var err error
	switch {
	case c.lost:
		err = p.undoLost(c)
	case p.mode == PowerPages && !c.shrink:
		err = p.undoPages(c)
	case p.mode == PowerPrefix && p.survive[c.file] == 0 && !c.shrink:
		err = p.tear(c)
	default:
		p.loss.Bytes += c.n
		err = c.restore(0)
	}
	if err != nil {
		p.loss.Kept++
	}
}

// restore brings back what was in the file before the change, but for its first keep bytes.
func (c *change) restore(keep int64) error {
	if keep < int64(len(c.old)) {
		if _, err := unix.Pwrite(c.file.fd, c.old[keep:], c.off+keep); err != nil {
			return err
		}
	}
	size := c.size
	if keep > 0 {
		size = max(size, c.off+keep)
	}
	return unix.Ftruncate(c.file.fd, size)
}

// tear leaves a random part of the oldest change that does not survive, up to a sector of
// the disk.
func (p *powerFailure) tear(c *change) error {
	first := (c.off + sectorSize - 1) / sectorSize * sectorSize
	keep := int64(0)
	if end := c.off + c.n; end > first {
		at := first + p.random.Int64N((end-first-1)/sectorSize+1)*sectorSize
		keep = at - c.off
	}
	p.loss.Bytes += c.n - keep
	return c.restore(keep)
}

// undoPages takes back single pages. The size stays: pages that the file did not have before
// read as zeros.
func (p *powerFailure) undoPages(c *change) error {
	for from := c.off; from < c.off+c.n; {
		to := min((from/pageSize+1)*pageSize, c.off+c.n)
		key := pageOf{c.file, from / pageSize}
		gone, known := p.pages[key]
		if !known {
			gone = p.random.IntN(2) == 0
			p.pages[key] = gone
		}
		if gone {
			p.loss.Bytes += to - from
			if err := c.blank(span{from, to}); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

// blank puts the old bytes back in a range, zeros where there were none.
func (c *change) blank(s span) error {
	content := make([]byte, s.to-s.from)
	if at := s.from - c.off; at < int64(len(c.old)) {
		copy(content, c.old[at:])
	}
	_, err := unix.Pwrite(c.file.fd, content, s.from)
	return err
}

// undoLost takes back what a failed fsync has lost, but for what was written again and synced.
func (p *powerFailure) undoLost(c *change) error {
	p.loss.Bytes += c.n
	if len(c.durable) == 0 {
		return c.restore(0)
	}
	from := c.off
rest:
	for from < c.off+c.n {
		to := min((from/pageSize+1)*pageSize, c.off+c.n)
		for _, s := range c.durable {
			if s.from <= from && s.to > from {
				from = s.to
				continue rest
			}
			if s.from > from {
				to = min(to, s.from)
			}
		}
		if err := c.blank(span{from, to}); err != nil {
			return err
		}
		from = to
	}
	return nil
}
