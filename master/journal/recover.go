package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/master/journal/files"
)

// recovery rebuilds the store from the files at Open.
type recovery struct {
	dir     files.Dir
	applied position // what the image holds; Term 0 when unknown
	log     *slog.Logger
	store   *store

	peek bool // change nothing on the disk

	last   position // last entry seen, also below applied
	change uint64   // last entry that changes the membership; 0: none was seen
	marked bool     // the log was cut: store.base is from a mark
	tail   *tail    // the newest file
	spares []uint64 // files without content behind it, newest first
}

// tail is where writing goes on.
type tail struct {
	head header
	size int64
	end  int64
	sum  uint32
	hard hard
	// loose are the bytes from offset from up to end: no frame says that they are
	// durable.
	from  int64
	loose []byte
}

// recoverDir reads all files that matter and, unless it is to peek only, cuts a torn tail.
func recoverDir(dir files.Dir, applied position, peek bool, log *slog.Logger) (*recovery, error) {
	r := &recovery{dir: dir, applied: applied, peek: peek, log: log}
	r.store = &store{dir: dir, keep: recentBytes, base: applied, last: applied.Index}
	numbers, err := listFiles(dir)
	if peek && errors.Is(err, fs.ErrNotExist) {
		return r, nil // it would be made
	}
	if err != nil {
		return nil, err
	}
	heads, err := r.heads(numbers)
	if err != nil {
		return nil, err
	}
	if len(heads) == 0 {
		return r, nil
	}
	start, err := r.choose(heads)
	if err != nil {
		return nil, err
	}
	for i := range heads {
		f := logFile{number: heads[i].Number, size: r.size(heads[i].Number), before: heads[i].Before, nonce: heads[i].Nonce, begun: heads[i].Created}
		r.store.files = append(r.store.files, f)
		if i < start {
			continue // a back log: the image holds all of it
		}
		var next *header
		if i+1 < len(heads) {
			next = &heads[i+1]
		}
		if i == start {
			r.last = heads[i].Before
			if r.last.Index == applied.Index {
				r.settle(r.last.Term)
			}
		}
		if err := r.file(&heads[i], next); err != nil {
			return nil, err
		}
	}
	return r, r.check()
}

func (r *recovery) path(number uint64) string { return r.dir.Path(fileName(number)) }

func (r *recovery) size(number uint64) int64 {
	n, err := r.dir.Size(fileName(number))
	if err != nil {
		return 0
	}
	return n
}

// heads reads the headers of all files, oldest first. Files at the end that
// were never begun become spares. Files before a gap in the numbers, or before
// a damaged header, cannot be joined to the rest; that matters only if they are
// needed, which choose finds out.
func (r *recovery) heads(numbers []uint64) ([]header, error) {
	var heads []header
	for i := len(numbers) - 1; i >= 0; i-- {
		n := numbers[i]
		if len(heads) > 0 && n != heads[0].Number-1 {
			break
		}
		h, err := r.readHeader(n)
		switch {
		case err == nil && len(heads) > 0 && (h.Nonce != heads[0].PrevNonce):
			err = errors.New("this is not the file that the next one continues")
		case errors.Is(err, errBlank) && len(heads) == 0:
			r.spares = append(r.spares, n)
			continue
		}
		if err == nil {
			heads = append([]header{h}, heads...)
			continue
		}
		bad := &CorruptError{File: r.path(n), Offset: 0, Why: err.Error()}
		if len(heads) == 0 || heads[0].Before.Index > r.applied.Index {
			return nil, bad
		}
		r.log.Warn("journal: an old file that is no longer needed is damaged", "err", bad)
		break
	}
	return heads, nil
}

// readHeader returns errBlank for a file that was never begun.
func (r *recovery) readHeader(number uint64) (header, error) {
	f, err := r.dir.Reader(fileName(number))
	if err != nil {
		return header{}, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, page)
	if n, err := f.ReadAt(b, 0); err != nil {
		return header{}, fmt.Errorf("%w: the file has %d bytes: %w", errHeader, n, err)
	}
	h, err := decodeHeader(b)
	if err == nil && h.Number == number {
		return h, nil
	}
	if err != nil && !errors.Is(err, errBlank) && !errors.Is(err, errHeader) {
		return h, err // another version
	}
	// Zeros, a former life, a torn header or damage: frames of this number tell.
	all, err := r.dir.Read(fileName(number))
	if err != nil {
		return header{}, err
	}
	if s := scanFile(all, number); len(s.stray) > 0 {
		return header{}, fmt.Errorf("%w, but a frame of this file is at offset %d", errHeader, s.stray[0])
	}
	return header{}, errBlank
}

// choose returns the newest file from which on the log joins the image.
func (r *recovery) choose(heads []header) (int, error) {
	for i := len(heads) - 1; i >= 0; i-- {
		if heads[i].Before.Index <= r.applied.Index {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s: the changelog starts with entry %d, but the image ends with entry %d; the files between are missing",
		r.dir.Path(""), heads[0].Before.Index+1, r.applied.Index)
}

// file reads one file. next is the header of the file behind it; without it the
// file is the newest and may have a torn tail.
func (r *recovery) file(h, next *header) error {
	path := r.path(h.Number)
	b, err := r.dir.Read(fileName(h.Number))
	if err != nil {
		return err
	}
	s := scanFile(b, h.Number)
	if !s.headOK {
		return &CorruptError{File: path, Offset: 0, Why: s.why.Error()}
	}
	if next != nil && (uint64(s.end) != next.PrevEnd || s.sum != next.PrevSum) {
		return &CorruptError{File: path, Offset: s.end, Why: fmt.Sprintf("%v; the next file says that this one ends at %d", s.why, next.PrevEnd)}
	}
	if next == nil && s.proof != "" {
		return &CorruptError{File: path, Offset: s.end, Why: fmt.Sprintf("%v; %s", s.why, s.proof)}
	}
	hs := h.Hard
	for i := range s.frames {
		f := &s.frames[i]
		hs = f.Hard
		err := decodeRecords(&f.frame, f.records, func(rec *record) error { return r.record(rec, f.off) })
		if err != nil {
			return &CorruptError{File: path, Offset: f.off, Why: err.Error()}
		}
	}
	if next != nil {
		return nil
	}
	if err := r.cut(fileName(h.Number), b, &s); err != nil {
		return err
	}
	r.tail = &tail{head: s.head, size: int64(len(b)), end: s.end, sum: s.sum, hard: hs}
	for i := range s.frames {
		r.tail.from = max(r.tail.from, int64(s.frames[i].Durable))
	}
	r.tail.loose = b[r.tail.from:s.end]
	return nil
}

// record takes in one record of the frame at off of the newest file known.
func (r *recovery) record(rec *record, off int64) error {
	s := r.store
	at := position{Index: rec.Index, Term: rec.Term}
	if rec.Kind == recordMark {
		r.last = at
		r.marked = at.Index > r.applied.Index
		if r.marked {
			s.rebase(at)
		} else {
			s.rebase(r.applied)
			if at.Index == r.applied.Index {
				r.settle(at.Term)
			}
		}
		return nil
	}
	if rec.Index > r.last.Index+1 {
		return fmt.Errorf("entry %d follows entry %d", rec.Index, r.last.Index)
	}
	r.last = at
	if r.change = min(r.change, rec.Index-1); rec.Type != 0 {
		r.change = rec.Index
	}
	if rec.Index <= s.base.Index {
		if s.last > s.base.Index { // what was behind it is replaced
			s.truncateLocked(s.base.Index + 1)
		}
		if rec.Index == r.applied.Index {
			r.settle(rec.Term)
		}
		return nil
	}
	if rec.Index == s.base.Index+1 && s.base.Term == 0 {
		s.base.Term = rec.PrevTerm
	}
	if prev, err := s.termLocked(rec.Index - 1); err != nil || prev != rec.PrevTerm {
		return fmt.Errorf("entry %d follows an entry of term %d, but entry %d has term %d", rec.Index, rec.PrevTerm, rec.Index-1, prev)
	}
	s.indexLocked(rec.Index, rec.Term, uint32(off/page))
	s.recentLocked(rec.entry())
	return nil
}

// settle notes the term of the last applied entry as the log has it.
func (r *recovery) settle(term uint64) {
	if r.applied.Index > 0 {
		r.store.base.Term = term
	}
}

// cut removes what a crash left behind the end of the newest file: a torn
// frame, and frames behind it that were written without a sync. They must be
// gone before anything new is written, or a second crash could bring them back.
func (r *recovery) cut(name string, b []byte, s *scan) error {
	offs := slices.Clone(s.stray)
	if !errors.Is(s.why, errBlank) {
		offs = append(offs, s.end)
	}
	if len(offs) == 0 || r.peek {
		return nil
	}
	r.log.Warn("journal: cutting a torn tail", "file", r.dir.Path(name), "offset", s.end, "why", s.why, "frames", len(s.stray))
	f, err := r.dir.Open(name, false)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, off := range offs {
		if err := f.Write(make([]byte, min(page, int64(len(b))-off)), off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// writeAgain writes what may only have been read from a cache: a write or sync
// that failed, or that the end of the process has cut short, can leave bytes that
// everybody sees and no power cut survives. A sync would not do: after one has
// failed, Linux takes the pages for clean. The bytes are the same, so that
// nothing is at risk.
func (t *tail) writeAgain(f files.File) error {
	buf := engine.Alloc(min(len(t.loose), frameFill))
	defer engine.Free(buf)
	for off := 0; off < len(t.loose); {
		n := copy(buf, t.loose[off:])
		if err := f.WriteSync(buf[:n], t.from+int64(off)); err != nil {
			return err
		}
		off += n
	}
	t.loose = nil
	return nil
}

// check compares what was read with the image.
func (r *recovery) check() error {
	s := r.store
	hs := &r.tail.hard
	if r.marked {
		return fmt.Errorf("%s: the changelog goes on behind an image of entry %d, but the image ends with entry %d", r.dir.Path(""), s.base.Index, r.applied.Index)
	}
	if r.applied.Term != 0 && r.applied.Index <= r.last.Index && s.base.Term != r.applied.Term {
		return fmt.Errorf("%s: entry %d has term %d here and term %d in the image: they do not belong together", r.dir.Path(""), r.applied.Index, s.base.Term, r.applied.Term)
	}
	if hs.Commit > max(r.last.Index, r.applied.Index) {
		return &CorruptError{File: r.path(r.tail.head.Number), Offset: r.tail.end, Why: fmt.Sprintf("the log ends with entry %d, but entry %d was committed", r.last.Index, hs.Commit)}
	}
	if s.base.Term == 0 && s.base.Index > 0 {
		s.base.Term = hs.Term
	}
	hs.Commit = max(hs.Commit, s.base.Index)
	hs.Term = max(hs.Term, s.base.Term)
	s.hard = *hs
	return nil
}
