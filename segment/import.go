package segment

import (
	"fmt"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// Import is a new copy of a chunk in the making. Nobody sees it before Commit; then it
// is there at once, in place of whatever the chunk was. An import that is open when the
// store closes or crashes leaves nothing behind. Its methods may be called from several
// goroutines, with Commit or Abort last.
type Import struct {
	store   *Store
	id      chunk.ID
	version chunk.Version
	number  uint64 // LSN drawn at Begin: its name in the log

	// Guarded by Store.mu.
	body  body
	ended bool
}

// Begin starts a new copy of a chunk that will have the given version.
func (s *Store) Begin(id chunk.ID, version chunk.Version) (*Import, error) {
	s.mu.Lock()
	defer s.unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	imp := &Import{store: s, id: id, version: version, number: s.nextLSN()}
	s.imports[imp.number] = imp
	return imp, nil
}

// Write adds data at off. sums are chunk.AppendSums of it and are checked; nil means
// that they are computed. Parts never written are holes. Errors are those of
// Store.Write.
func (imp *Import) Write(off uint32, data []byte, sums []uint32) error {
	s := imp.store
	if len(data) == 0 || len(data) > chunk.Size || uint64(off)+uint64(len(data)) > chunk.Size {
		return status.Errorf(status.Invalid, "chunk %v: import of %d bytes at %d", imp.id, len(data), off)
	}
	sums, ok := sumsFor(off, data, sums)
	if !ok {
		return status.Errorf(status.Corrupt, "chunk %v: data of the import at %d", imp.id, off)
	}
	s.mu.Lock()
	defer s.unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.spaceFor(off, uint32(len(data)), fillImport); err != nil {
		return err
	}
	p := part{chunk: imp.id, imp: imp, off: off, data: data, sums: sums, bulk: true}
	_, err := s.writeParts(&p, func(e entry) (entry, error) {
		if imp.ended {
			return e, status.Errorf(status.Closed, "import of chunk %v", imp.id)
		}
		e.version = imp.version
		return e, nil
	})
	return err
}

// Commit puts the copy in place, durably. Without any data the chunk is there and
// empty. The entry that does it follows the data in the same head, or the data is
// durable already.
func (imp *Import) Commit() error {
	t, err := imp.commit()
	if err != nil {
		return err
	}
	return t.Wait()
}

func (imp *Import) commit() (Ticket, error) {
	s := imp.store
	s.mu.Lock()
	f, err := s.logState(imp.id, func(r *record, e *entry) error {
		if imp.ended {
			return status.Errorf(status.Closed, "import of chunk %v", imp.id)
		}
		r = s.index.make(imp.id)
		e.version, e.hide, e.base = imp.version, s.nextLSN(), imp.number
		s.save(r)
		s.index.clear(&r.body)
		r.body, imp.body, imp.ended = imp.body, body{}, true
		r.flags = r.flags&^recDamaged | recSwitch
		delete(s.imports, imp.number)
		return nil
	})
	s.unlock()
	t := Ticket{f}
	if err == nil {
		t.Then(imp.switched)
	}
	return t, err
}

// switched notes that the copy is in place durably.
func (imp *Import) switched(err error) {
	s := imp.store
	s.mu.Lock()
	defer s.unlock()
	if r := s.index.find(imp.id); r != nil && err == nil && r.base == imp.number {
		r.flags &^= recSwitch
		s.changed.Broadcast()
	}
}

// Abort gives the copy up. After Commit it does nothing.
func (imp *Import) Abort() {
	s := imp.store
	s.mu.Lock()
	defer s.unlock()
	if imp.ended {
		return
	}
	imp.ended = true
	s.index.clear(&imp.body)
	delete(s.imports, imp.number)
	s.wakeKeeper()
}

// settle waits until all that is accepted now is durable. mu is held; it is given up.
func (s *Store) settle() error { return s.waitDurable(s.accepted()) }

// accepted is, for each head, the number of the frame with the last entry that was
// accepted; the frame will not wait for more. mu is held.
func (s *Store) accepted() (want [heads]uint64) {
	for i := range s.heads {
		h := &s.heads[i]
		want[i] = h.seq
		if h.open != nil {
			want[i]++
			s.want(h.open)
		}
	}
	return want
}

// waitDurable waits until each head is durable up to the frame with the given number. mu is
// held; it is given up.
func (s *Store) waitDurable(want [heads]uint64) error {
	for i := range s.heads {
		for s.heads[i].durable.seq < want[i] {
			if s.failed != nil {
				return s.failed
			}
			s.wait()
		}
	}
	return nil
}

func (imp *Import) String() string { return fmt.Sprintf("import %d of chunk %v", imp.number, imp.id) }
