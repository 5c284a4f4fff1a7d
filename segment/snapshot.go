package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/varvefs/varve/engine"
)

// snapshot is a checkpoint being taken: the index as it was when the last LSN was lsn.
// Nobody waits for it. Its taker saves the records one after the other, a few at a time; a
// record that is about to change before its turn is saved by whoever changes it. Guarded
// by Store.mu, but for what its taker alone uses.
type snapshot struct {
	lsn    uint64
	number uint16   // records with this number in snap are saved, or are younger
	page   []byte   // of chunks, being filled
	full   [][]byte // pages to be written
	faults int      // Store.faults at the beginning
	want   [heads]uint64
	lists  []listed
	size   uint64 // bytes that the pages take at most

	generation uint64 // these are the taker's
	file       engine.File
	off        int64
	pages      uint32
	paced      bool
}

// save saves a record as it is, if a snapshot is being taken that does not have it yet. It
// must be called before a record that any Store.apply has reached is changed. mu is held.
func (s *Store) save(r *record) {
	if p := s.snap; p != nil && r.snap != p.number {
		r.snap = p.number
		p.page = s.index.appendChunk(p.page, r)
		if len(p.page) >= pageFull {
			p.full = append(p.full, p.page)
			p.page = newPage(pageChunks)
		}
	}
}

// checkpointing says when checkpoints are due. Guarded by Store.mu.
type checkpointing struct {
	generation uint64 // of the newest one, 0: none
	opened     int    // segments opened since it was begun
	bytes      uint64 // of it
}

// due says whether enough has been logged since the last checkpoint: at least a
// sixteenth of the store, and 32 times as much as it takes to write one. mu is held.
func (s *Store) due() bool {
	c := &s.checkpoints
	return c.opened >= max(4, len(s.segs)/16, int(32*c.bytes/uint64(s.segSize))) && s.usable() == nil
}

// closeAfter is how many segments must have been opened for Close to take a checkpoint.
const closeAfter = 8

// checkpointLoop takes checkpoints in the background.
func (s *Store) checkpointLoop() {
	defer s.workers.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.checkpointIfDue()
	}
}

// checkpointIfDue takes a checkpoint if it is time, and tells whether it did.
func (s *Store) checkpointIfDue() bool {
	s.mu.Lock()
	due := s.due()
	s.unlock()
	if !due {
		return false
	}
	if err := s.checkpoint(true); err != nil {
		s.mu.Lock()
		if s.usable() == nil {
			s.log.Warn("no checkpoint", "disk", fmt.Sprintf("%016x", s.diskID), "error", err)
		}
		s.unlock()
		return false
	}
	return true
}

// checkpoint takes one: paced, at half of the speed that the disk has at the time. Only
// one goroutine may be in it. mu is not held.
func (s *Store) checkpoint(paced bool) error {
	began := time.Now()
	p := s.begin(paced)
	err := s.prepareSlot(p)
	if err == nil {
		err = s.saveAll(p)
	}
	s.mu.Lock()
	s.snap = nil
	if err == nil {
		err = s.waitDurable(p.want)
	}
	if err == nil && s.faults != p.faults {
		err = errors.New("a write failed meanwhile, and what it was to hold went elsewhere")
	}
	c := checkpoint{generation: p.generation, disk: s.diskID, lsn: p.lsn, at: s.lsn, bytes: uint64(p.off - blockSize), pages: p.pages, segments: uint32(len(s.segs))}
	for i := range s.heads {
		c.durable[i] = s.heads[i].durable
	}
	s.unlock()
	if p.file == nil {
		return err
	}
	if err == nil {
		err = s.complete(p, &c)
	}
	if err = errors.Join(err, p.file.Close()); err == nil {
		s.stat.checkpoints.Inc()
		s.log.Info("checkpoint", "disk", fmt.Sprintf("%016x", s.diskID), "generation", c.generation, "bytes", c.bytes, "took", time.Since(began))
	}
	return err
}

// begin fixes the moment that the checkpoint is of.
func (s *Store) begin(paced bool) *snapshot {
	s.mu.Lock()
	defer s.unlock()
	s.index.snap++
	p := &snapshot{lsn: s.lsn, number: s.index.snap, page: newPage(pageChunks), faults: s.faults, want: s.accepted(), paced: paced}
	for _, g := range s.segs {
		if (g.state == segSealed || g.state == segCleaning) && g.pending == 0 && !g.unsealed && len(g.flight) == 0 {
			p.lists = append(p.lists, listed{n: g.n, frames: g.frames, end: g.end, chunks: g.chunks})
			p.size += savedSegment + 8*uint64(len(g.chunks))
		}
	}
	imports := newPage(pageImports)
	for _, imp := range s.imports {
		imports = s.index.appendImport(imports, imp)
	}
	if len(imports) > pageHeader {
		p.full = append(p.full, imports)
	}
	x := s.index
	p.size += uint64(len(imports)) + uint64(len(x.table))*savedChunk + x.extents.live*(savedExtent+4) + x.sums.live*4
	p.size += p.size/pageFull*2*blockSize + 16*blockSize // headers and padding of pages
	p.generation = s.checkpoints.generation + 1
	s.checkpoints.opened = 0
	s.snap = p
	return p
}

// prepareSlot makes the file of the older checkpoint ready to be written over. One that is too
// small is replaced.
func (s *Store) prepareSlot(p *snapshot) error {
	name := checkpointName(int(p.generation % checkpointSlots))
	p.off = blockSize
	f, err := s.disk.Open(name)
	switch {
	case err == nil && uint64(f.Size()) >= p.size+blockSize:
		p.file = f
		return nil
	case err == nil:
		if err = f.Close(); err == nil {
			err = s.disk.Remove(name)
		}
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	size := int64(blockSize+p.size+p.size/4+blockSize-1) &^ (blockSize - 1)
	p.file, err = s.disk.Create(name, size)
	return err
}

// saveStep is about how many bytes are saved while mu is held, and saveMost how many
// records are looked at.
const (
	saveStep = 32 << 10
	saveMost = 256
)

// saveAll saves all records and writes the pages.
func (s *Store) saveAll(p *snapshot) error {
	if err := s.saveLists(p); err != nil {
		return err
	}
	next := uint32(0)
	for more := true; more; {
		s.mu.Lock()
		next, more = s.saveSome(p, next)
		if !more && len(p.page) > pageHeader {
			p.full = append(p.full, p.page)
			p.page = newPage(pageChunks)
		}
		full := p.full
		p.full = nil
		failed := s.failed
		s.unlock()
		if failed != nil {
			return failed
		}
		for _, page := range full {
			if err := s.writePage(p, page); err != nil {
				return err
			}
		}
	}
	return nil
}

// saveSome saves some records from the given number on, and returns where to go on. mu is
// held.
func (s *Store) saveSome(p *snapshot, from uint32) (next uint32, more bool) {
	x := s.index
	saved := 0
	for looked := 0; looked < saveMost && saved < saveStep; from++ {
		page := from / slabPage
		if int(page) >= len(x.recs.pages) {
			return from, false
		}
		if from%slabPage >= uint32(len(x.recs.pages[page])) {
			from = (page+1)*slabPage - 1
			continue
		}
		r := &x.recs.at(from, 1)[0]
		looked++
		if n, ok := x.table[r.id]; !ok || n != from {
			continue // not in use
		}
		before := len(p.page)
		s.save(r)
		saved += max(0, len(p.page)-before)
		if len(p.full) > 0 {
			return from + 1, true
		}
	}
	return from, true
}

// saveLists writes what the sealed segments are about.
func (s *Store) saveLists(p *snapshot) error {
	page := newPage(pageSegments)
	for i := range p.lists {
		page = appendSegment(page, &p.lists[i])
		if len(page) >= pageFull || i == len(p.lists)-1 {
			if err := s.writePage(p, page); err != nil {
				return err
			}
			page = newPage(pageSegments)
		}
	}
	p.lists = nil
	return nil
}

// writePage writes a page behind the others.
func (s *Store) writePage(p *snapshot, page []byte) error {
	sealPage(page, p.generation, p.pages)
	size := (len(page) + blockSize - 1) &^ (blockSize - 1)
	if p.off+int64(size) > p.file.Size() {
		return fmt.Errorf("%s: %d bytes are too few", p.file.Name(), p.file.Size())
	}
	buf := engine.Alloc(size)
	defer engine.Free(buf)
	clear(buf[copy(buf, page):])
	for done := 0; done < size; {
		n := min(pageFull, size-done)
		began := time.Now()
		if err := do(p.file, engine.Write, buf[done:done+n], p.off, s.step); err != nil {
			return err
		}
		p.off += int64(n)
		done += n
		if p.paced && s.step == nil {
			select {
			case <-s.stop:
				return errors.New("store is closed")
			case <-time.After(time.Since(began)):
			}
		}
	}
	p.pages++
	return nil
}

// complete makes the pages count.
func (s *Store) complete(p *snapshot, c *checkpoint) error {
	if err := do(p.file, engine.Sync, nil, 0, s.step); err != nil {
		return err
	}
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	c.put(b)
	if err := do(p.file, engine.WriteSync, b, 0, s.step); err != nil {
		return err
	}
	s.mu.Lock()
	s.checkpoints.generation, s.checkpoints.bytes = c.generation, c.bytes
	s.unlock()
	return nil
}
