package fuse

import (
	"cmp"
	"os"
	"slices"
)

// The kernel copies the bytes of a write(2) into its page, unlocks the page and
// only then sends the WRITE. If the page is dropped in between, and read again
// before the WRITE has been carried out, the page that is there afterwards lacks
// the written bytes, and nothing in the kernel knows of it. So it must be dropped
// once more, before the writer goes on. openInode.pages keeps the order of drops,
// READs and WRITEs, by which it is known when that may have happened: no clock
// takes part, since on a busy machine every step may take any time.

// pageSize is the unit of the page cache.
var pageSize = int64(os.Getpagesize())

// hugePage is the largest folio of the page cache. A request in work may hold
// the lock of one, which covers more than the request's own bytes.
const hugePage = 2 << 20

// fillsKept is how many READs are remembered one by one.
const fillsKept = 32

// span is a range of bytes.
type span struct{ off, end int64 }

func (s span) overlaps(t span) bool { return s.off < t.end && t.off < s.end }

// rounded extends s to whole units.
func (s span) rounded(unit int64) span {
	return span{s.off / unit * unit, (s.end + unit - 1) / unit * unit}
}

// pages is what must be known of the page cache of one open inode. Guarded by
// openInode.mu.
type pages struct {
	cached int       // handles that go through the page cache
	reads  []*pageIO // in work
	writes []*pageIO
	drops  uint64 // raised when READs in work have to fetch again

	seq     uint64 // counts what follows
	pending int    // drops in work
	dropped uint64 // seq at the end of the last drop
	wrote   uint64 // seq at the end of the last WRITE
	fills   []fill // READs that were answered since then and may be in pages
}

// fill is an answered READ.
type fill struct {
	span
	seq uint64 // when it was answered
}

// pageIO is one READ or WRITE of the page cache.
type pageIO struct {
	span
	open  *openInode
	drops uint64        // of a READ: pages.drops when its bytes were fetched
	final bool          // of a READ: its bytes are on their way to the kernel
	done  chan struct{} // closed when a READ's answer has arrived, a WRITE was carried out
}

// pageCached says whether a handle of this inode goes through the page cache.
func (o *openInode) pageCached() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pages.cached > 0
}

// beginRead notes a READ of the page cache, for which the kernel keeps its pages
// locked. It returns when the WRITEs in the same bytes that are in work have
// been carried out: the pages which they wrote to may have been dropped since,
// and with older bytes the reader would not find what it has just written.
func (o *openInode) beginRead(s span, waits func()) *pageIO {
	io := &pageIO{span: s, open: o, done: make(chan struct{})}
	o.mu.Lock()
	o.pages.reads = append(o.pages.reads, io)
	var before []*pageIO
	for _, w := range o.pages.writes {
		if w.overlaps(s) {
			before = append(before, w)
		}
	}
	o.mu.Unlock()
	if len(before) > 0 {
		waits()
	}
	for _, w := range before {
		<-w.done
	}
	return io
}

// fetching notes that the bytes of a READ are fetched from now on.
func (io *pageIO) fetching() {
	io.open.mu.Lock()
	defer io.open.mu.Unlock()
	io.drops = io.open.pages.drops
}

// fetched says whether the bytes can be answered. They can't when pages were
// dropped since they were asked for: they may be older than what dropped them.
func (io *pageIO) fetched() bool {
	io.open.mu.Lock()
	defer io.open.mu.Unlock()
	io.final = io.drops == io.open.pages.drops
	return io.final
}

// arrived ends a READ: the kernel has its bytes.
func (io *pageIO) arrived() {
	o := io.open
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pages
	p.reads = without(p.reads, io)
	if io.final && p.stirred() {
		p.seq++
		p.fills = append(p.fills, fill{io.span, p.seq})
		if len(p.fills) > fillsKept {
			p.joinFills()
		}
	}
	close(io.done)
}

// joinFills makes one of all fills that may cover more than they did.
func (p *pages) joinFills() {
	all := p.fills[0]
	for _, f := range p.fills[1:] {
		all.off, all.end, all.seq = min(all.off, f.off), max(all.end, f.end), max(all.seq, f.seq)
	}
	p.fills = append(p.fills[:0], all)
}

// stirred says whether a page that was written to last may have been dropped
// after the kernel copied a WRITE's bytes into it.
func (p *pages) stirred() bool { return p.pending > 0 || p.dropped > p.wrote }

// beginWrite notes a WRITE from the page cache.
func (o *openInode) beginWrite(s span) *pageIO {
	io := &pageIO{span: s, open: o, done: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pages.writes = append(o.pages.writes, io)
	return io
}

// carriedOut notes that a WRITE's bytes are there for everybody who fetches from
// now on. It says whether a page of it may have been read again without them:
// the READs in answers are on their way to the kernel with older bytes, and with
// stale some that it has already.
func (io *pageIO) carriedOut() (answers []*pageIO, stale bool) {
	o := io.open
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pages
	close(io.done)
	if !p.stirred() {
		return nil, false
	}
	mine := io.span.rounded(pageSize)
	for _, r := range p.reads {
		switch {
		case !r.overlaps(mine):
		case r.final:
			answers = append(answers, r)
		default:
			p.drops++ // it fetches once more
		}
	}
	for _, f := range p.fills {
		stale = stale || f.overlaps(mine)
	}
	return answers, stale
}

// answered notes that a WRITE is about to be answered. The kernel lets the next
// write(2) begin only then; mapped pages are written whenever it likes.
func (io *pageIO) answered(mapped bool) {
	o := io.open
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pages
	p.writes = without(p.writes, io)
	if mapped {
		return
	}
	p.seq++
	p.wrote = p.seq
	if !p.stirred() {
		p.fills = nil
	}
}

// refetch has READs in work fetch their bytes again, and returns those whose
// answers are already on their way to the kernel.
func (o *openInode) refetch() (answers []*pageIO) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pages.drops++
	for _, r := range o.pages.reads {
		if r.final {
			answers = append(answers, r)
		}
	}
	return answers
}

// beginDrop notes that pages are dropped from now on.
func (o *openInode) beginDrop() (begun uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pages
	p.pending++
	p.seq++
	return p.seq
}

// endDrop notes that the pages of s are dropped. What was answered before it
// began is in none of them any more.
func (o *openInode) endDrop(begun uint64, s span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pages
	p.pending--
	p.seq++
	p.dropped = p.seq
	p.fills = slices.DeleteFunc(p.fills, func(f fill) bool {
		return f.seq < begun && s.off <= f.off && f.end <= s.end
	})
}

func without(list []*pageIO, io *pageIO) []*pageIO {
	i := slices.Index(list, io)
	return slices.Delete(list, i, i+1)
}

// gaps returns the ranges in which no page is locked for I/O in work, and those
// in which one may be, both in units of unit bytes. A READ locks all its pages;
// a WRITE only its last one, if that was not cached and is written to in part.
// The last free range has end 0: to the file's end.
func (o *openInode) gaps(unit int64) (free, locked []span) {
	o.mu.Lock()
	for _, r := range o.pages.reads {
		locked = append(locked, r.span)
	}
	for _, w := range o.pages.writes {
		locked = append(locked, span{max(w.end-1, w.off), w.end})
	}
	o.mu.Unlock()
	for i, s := range locked {
		locked[i] = s.rounded(unit)
	}
	slices.SortFunc(locked, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	pos := int64(0)
	for _, s := range locked {
		if s.off > pos {
			free = append(free, span{pos, s.off})
		}
		pos = max(pos, s.end)
	}
	return append(free, span{off: pos}), locked
}
