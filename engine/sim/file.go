package sim

import (
	"cmp"
	"maps"
	"slices"
)

// pageSize is the unit in which durable contents are kept, in bytes: that of the smallest
// writes. A page that does not exist is zero.
const pageSize = 4 << 10

type page [pageSize]byte

// version is what one write put into a grain and what no flush has made durable yet.
type version struct {
	clock   uint64 // when the write ended
	tainted bool   // a Sync over it has failed: no Sync will ever make it durable
	data    []byte
}

// file is the contents of a file, apart from who has it open. The Disk's mu guards it.
type file struct {
	name    string
	size    int64
	grain   int64
	open    int // handles
	removed bool
	// pages are the durable contents that this disk has changed since it was last cloned;
	// base those before. base, and the pages in it, are shared with clones and never change.
	pages, base map[int64]*page
	// loose holds, by grain number, the versions since the durable one, oldest first.
	// What reads see is the last of them.
	loose map[int64][]version
}

func newFile(name string, size int64, grain int) *file {
	return &file{name: name, size: size, grain: int64(grain), loose: map[int64][]version{}}
}

// read copies what a reader sees.
func (c *file) read(buf []byte, off int64) {
	c.readDurable(buf, off)
	if len(c.loose) == 0 {
		return
	}
	for i := int64(0); i < int64(len(buf)); i += c.grain {
		if v := c.loose[(off+i)/c.grain]; len(v) > 0 {
			copy(buf[i:], v[len(v)-1].data)
		}
	}
}

func (c *file) readDurable(buf []byte, off int64) {
	for len(buf) > 0 {
		at := off % pageSize
		n := min(int64(len(buf)), pageSize-at)
		if p := c.page(off / pageSize); p != nil {
			copy(buf[:n], p[at:])
		} else {
			clear(buf[:n])
		}
		buf = buf[n:]
		off += n
	}
}

// write adds loose versions; keep says which grains of buf arrive (nil: all).
func (c *file) write(buf []byte, off int64, clock uint64, keep func() bool) {
	data := slices.Clone(buf)
	for i := int64(0); i < int64(len(data)); i += c.grain {
		if keep == nil || keep() {
			g := (off + i) / c.grain
			c.loose[g] = append(c.loose[g], version{clock: clock, data: data[i : i+c.grain : i+c.grain]})
		}
	}
}

// writeDurable makes buf the only contents of its range.
func (c *file) writeDurable(buf []byte, off int64) {
	if len(c.loose) > 0 {
		for i := int64(0); i < int64(len(buf)); i += c.grain {
			delete(c.loose, (off+i)/c.grain)
		}
	}
	for len(buf) > 0 {
		at := off % pageSize
		n := min(int64(len(buf)), pageSize-at)
		if n == pageSize {
			c.replace(off/pageSize, (*page)(slices.Clone(buf[:n])))
		} else {
			copy(c.owned(off / pageSize)[at:], buf[:n])
		}
		buf = buf[n:]
		off += n
	}
}

// page returns page i for reading, nil if it is zero.
func (c *file) page(i int64) *page {
	if p := c.pages[i]; p != nil {
		return p
	}
	return c.base[i]
}

// owned returns page i for writing.
func (c *file) owned(i int64) *page {
	p := c.pages[i]
	if p == nil {
		p = new(page)
		if old := c.base[i]; old != nil {
			*p = *old
		}
		c.replace(i, p)
	}
	return p
}

func (c *file) replace(i int64, p *page) {
	if c.pages == nil {
		c.pages = make(map[int64]*page)
	}
	c.pages[i] = p
}

// share makes all pages ones that clones may have too.
func (c *file) share() map[int64]*page {
	if len(c.pages) > 0 {
		all := make(map[int64]*page, len(c.base)+len(c.pages))
		maps.Copy(all, c.base)
		maps.Copy(all, c.pages)
		c.base, c.pages = all, nil
	}
	return c.base
}

// flush makes durable what was written up to clock.
func (c *file) flush(clock uint64) {
	for g, versions := range c.loose {
		last := -1
		for i, v := range versions {
			if v.clock <= clock && !v.tainted {
				last = i
			}
		}
		if last < 0 {
			continue
		}
		rest := versions[last+1:]
		c.writeDurable(versions[last].data, g*c.grain) // forgets the grain's versions
		if len(rest) > 0 {
			c.loose[g] = rest
		}
	}
}

// taint is a flush that failed.
func (c *file) taint(clock uint64) {
	for _, versions := range c.loose {
		for i := range versions {
			if versions[i].clock <= clock {
				versions[i].tainted = true
			}
		}
	}
}

// survive returns the file as a power cut leaves it: for each grain, ch picks the durable
// contents (0) or one of the candidates, which are the loose versions and then the writes
// in flight, oldest first.
func (c *file) survive(ch Chooser, inflight []*pending) *file {
	n := newFile(c.name, c.size, int(c.grain))
	n.base = c.share()
	if len(c.loose) == 0 && len(inflight) == 0 {
		return n
	}
	candidates := map[int64][][]byte{}
	for g, versions := range c.loose {
		for _, v := range versions {
			candidates[g] = append(candidates[g], v.data)
		}
	}
	for _, p := range inflight {
		for i := int64(0); i < int64(len(p.op.Buf)); i += c.grain {
			g := (p.op.Off + i) / c.grain
			candidates[g] = append(candidates[g], p.op.Buf[i:i+c.grain])
		}
	}
	grains := make([]int64, 0, len(candidates))
	for g := range candidates {
		grains = append(grains, g)
	}
	slices.SortFunc(grains, cmp.Compare[int64])
	for _, g := range grains {
		if k := ch.Choose(len(candidates[g]) + 1); k > 0 {
			n.writeDurable(candidates[g][k-1], g*c.grain)
		}
	}
	return n
}
