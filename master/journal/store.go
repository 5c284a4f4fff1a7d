package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/varvefs/varve/master/journal/files"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// recentBytes is how much of the log's end stays in memory. What is older is
// read from the files: for a follower that lags, and at the start.
const recentBytes = 16 << 20

// logFile is one file and where its entries are.
type logFile struct {
	number uint64
	size   int64
	before position // the entry before its first
	nonce  uint64
	begun  int64    // ns since 1970
	first  uint64   // index of the entry that pages[0] is about
	pages  []uint32 // page number of the frame that holds entry first+i
}

// termRun says that the entries from Index on have Term, up to the next run.
type termRun = position

// store is raft's view of the files: raft.Storage. The writer adds to it what it
// has written; raft and Compact read and cut it.
type store struct {
	dir  files.Dir
	keep int // bytes of data in recent that are kept; twice as many are tolerated

	mu    sync.RWMutex
	hard  hard
	conf  *raftpb.ConfState
	base  position  // the entry before the first that raft may ask for
	last  uint64    // the last entry; base.Index when there is none
	terms []termRun // ascending; covers base.Index+1..last
	files []logFile // oldest first; the last is being written
	// Changes of the membership up to plain are given to raft as entries without
	// data: see Log.settle. 0: all are given as they are.
	plain  uint64
	recent []*raftpb.Entry
	bytes  int   // of data in recent
	failed error // first error while reading, for the driver: raft can only panic
}

// InitialState implements raft.Storage.
func (s *store) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.hard
	return &raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit}, s.conf, nil
}

// FirstIndex implements raft.Storage.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.base.Index + 1, nil
}

// LastIndex implements raft.Storage.
func (s *store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last, nil
}

// Term implements raft.Storage.
func (s *store) Term(i uint64) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.termLocked(i)
}

func (s *store) termLocked(i uint64) (uint64, error) {
	switch {
	case i < s.base.Index:
		return 0, raft.ErrCompacted
	case i == s.base.Index:
		return s.base.Term, nil
	case i > s.last:
		return 0, raft.ErrUnavailable
	}
	for k := len(s.terms) - 1; k >= 0; k-- { // few runs, and the asked one is nearly always the last
		if s.terms[k].Index <= i {
			return s.terms[k].Term, nil
		}
	}
	panic(fmt.Sprintf("BUG: entry %d of %d..%d has no term", i, s.base.Index+1, s.last))
}

// Snapshot implements raft.Storage: where the log starts. The image itself goes
// another way; a follower that gets this fetches it.
func (s *store) Snapshot() (*raftpb.Snapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.base
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.conf, Index: &b.Index, Term: &b.Term,
	}}, nil
}

// Entries implements raft.Storage. It may return fewer entries than asked for.
func (s *store) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	ents, err := s.entries(lo, hi, maxSize)
	if lo > s.plain {
		return ents, err
	}
	ents = slices.Clone(ents)
	for i, e := range ents {
		if e.GetIndex() <= s.plain && e.GetType() != raftpb.EntryNormal {
			ents[i] = &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Index: e.Index, Term: e.Term}
		}
	}
	return ents, err
}

func (s *store) entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	s.mu.RLock()
	if lo <= s.base.Index {
		s.mu.RUnlock()
		return nil, raft.ErrCompacted
	}
	if hi > s.last+1 {
		defer s.mu.RUnlock()
		panic(fmt.Sprintf("BUG: entries %d..%d asked for, the last is %d", lo, hi-1, s.last))
	}
	if len(s.recent) > 0 && lo >= s.recent[0].GetIndex() {
		k := lo - s.recent[0].GetIndex()
		out := limit(s.recent[k:k+hi-lo:k+hi-lo], maxSize)
		s.mu.RUnlock()
		return out, nil
	}
	f, p, end := s.findLocked(lo)
	s.mu.RUnlock()

	out, err := s.load(&f, p, lo, min(hi, end), maxSize)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if lo <= s.base.Index { // Compact took the file away meanwhile
			return nil, raft.ErrCompacted
		}
		if s.failed == nil {
			s.failed = err
		}
		return nil, err
	}
	return out, nil
}

// limit cuts ents to maxSize bytes of data, but not to less than one entry.
func limit(ents []*raftpb.Entry, maxSize uint64) []*raftpb.Entry {
	var sum uint64
	for i, e := range ents {
		sum += uint64(len(e.GetData()))
		if i > 0 && sum > maxSize {
			return ents[:i:i]
		}
	}
	return ents
}

// findLocked returns the file and the page of the frame with entry i, and the
// index behind the last entry of that file.
func (s *store) findLocked(i uint64) (f logFile, page uint32, end uint64) {
	for k := len(s.files) - 1; k >= 0; k-- {
		f := s.files[k]
		if len(f.pages) > 0 && i >= f.first && i < f.first+uint64(len(f.pages)) {
			return f, f.pages[i-f.first], f.first + uint64(len(f.pages))
		}
	}
	panic(fmt.Sprintf("BUG: entry %d of %d..%d is in no file", i, s.base.Index+1, s.last))
}

// load reads entries lo..hi-1 from one file, whose frame at page p holds lo.
func (s *store) load(f *logFile, p uint32, lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	path := s.dir.Path(fileName(f.number))
	h, err := s.dir.Reader(fileName(f.number))
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()

	var out []*raftpb.Entry
	var bytes uint64
	next := lo
	for next < hi {
		p = f.pages[next-f.first]
		records, fr, err := readFrame(h, f, int64(p)*page)
		if err != nil {
			return nil, &CorruptError{File: path, Offset: int64(p) * page, Why: err.Error()}
		}
		before := next
		err = decodeRecords(&fr, records, func(r *record) error {
			// A frame may also hold entries that a later frame replaced.
			if r.Kind == recordEntry && r.Index == next && next < hi && f.pages[next-f.first] == p {
				out = append(out, r.entry())
				bytes += uint64(len(r.Data))
				next++
			}
			return nil
		})
		if err == nil && next == before {
			err = fmt.Errorf("entry %d is not in its frame", next)
		}
		if err != nil {
			return nil, &CorruptError{File: path, Offset: int64(p) * page, Why: err.Error()}
		}
		if bytes > maxSize {
			break
		}
	}
	return limit(out, maxSize), nil
}

// readFrame reads and checks one frame that was there before.
func readFrame(h io.ReaderAt, f *logFile, off int64) ([]byte, frame, error) {
	b := make([]byte, page)
	if _, err := io.ReadFull(io.NewSectionReader(h, off, page), b); err != nil {
		return nil, frame{}, err
	}
	fr, err := parseFrame(b, f.size-off)
	if err != nil {
		return nil, fr, err
	}
	if int(fr.Length) > len(b) {
		b = make([]byte, fr.Length)
		if _, err := h.ReadAt(b, off); err != nil {
			return nil, fr, err
		}
	}
	records, err := checkFrame(&fr, b)
	if err == nil && (fr.Number != f.number || fr.Nonce != f.nonce || fr.Offset != uint64(off)) {
		err = errors.New("the frame belongs elsewhere")
	}
	return records, fr, err
}

// entry makes a raft entry of a record; it takes over the data.
func (r *record) entry() *raftpb.Entry {
	t := raftpb.EntryType(r.Type)
	return &raftpb.Entry{Type: &t, Index: &r.Index, Term: &r.Term, Data: r.Data}
}

// added takes in entries that were written to the frame at page p of the newest
// file. The first may replace older ones: all behind it are void then.
func (s *store) added(ents []*raftpb.Entry, p uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range ents {
		s.indexLocked(e.GetIndex(), e.GetTerm(), p)
		s.recentLocked(e)
	}
}

// indexLocked notes that entry i of term t is in the newest file at page p.
func (s *store) indexLocked(i, t uint64, p uint32) {
	if i <= s.last {
		s.truncateLocked(i)
	}
	if i != s.last+1 {
		panic(fmt.Sprintf("BUG: entry %d behind entry %d", i, s.last))
	}
	f := &s.files[len(s.files)-1]
	if len(f.pages) == 0 {
		f.first = i
	}
	f.pages = append(f.pages, p)
	if n := len(s.terms); n == 0 || s.terms[n-1].Term != t {
		s.terms = append(s.terms, termRun{Index: i, Term: t})
	}
	s.last = i
}

// truncateLocked forgets the entries from i on.
func (s *store) truncateLocked(i uint64) {
	if i <= s.base.Index {
		panic(fmt.Sprintf("BUG: entry %d replaced, %d is in the image", i, s.base.Index))
	}
	for k := range s.files {
		f := &s.files[k]
		if n := uint64(len(f.pages)); n > 0 && f.first+n > i {
			keep := max(i, f.first) - f.first
			f.pages = f.pages[:keep:keep] // load may be reading what was cut off
		}
	}
	for len(s.terms) > 0 && s.terms[len(s.terms)-1].Index >= i {
		s.terms = s.terms[:len(s.terms)-1]
	}
	if len(s.recent) > 0 {
		keep := 0
		if first := s.recent[0].GetIndex(); i > first {
			keep = min(int(i-first), len(s.recent))
		}
		for _, e := range s.recent[keep:] {
			s.bytes -= len(e.GetData())
		}
		// The capacity is cut too: raft may still hold the slice that was handed out.
		s.recent = s.recent[:keep:keep]
	}
	s.last = i - 1
}

// recentLocked keeps e in memory.
func (s *store) recentLocked(e *raftpb.Entry) {
	s.recent = append(s.recent, e)
	s.bytes += len(e.GetData())
	if s.bytes > 2*s.keep {
		s.shrinkLocked()
	}
}

// shrinkLocked drops the older half of recent. The rest is copied, so that the
// array does not hold what was dropped.
func (s *store) shrinkLocked() {
	k := 0
	for k < len(s.recent)-1 && s.bytes > s.keep {
		s.bytes -= len(s.recent[k].GetData())
		k++
	}
	s.recent = slices.Clone(s.recent[k:])
}

// rebase makes the log start behind at, when an image reaches beyond its end.
func (s *store) rebase(at position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.files {
		s.files[k].pages = nil
	}
	s.terms, s.recent, s.bytes = nil, nil, 0
	s.base, s.last = at, at.Index
}

// advance moves the start of raft's view to index, which an image holds.
func (s *store) advance(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index <= s.base.Index {
		return nil
	}
	term, err := s.termLocked(index)
	if err != nil {
		return fmt.Errorf("compact at %d, the log ends at %d: %w", index, s.last, err)
	}
	s.base = position{Index: index, Term: term}
	k := 0
	for k+1 < len(s.terms) && s.terms[k+1].Index <= index+1 {
		k++
	}
	s.terms = slices.Clone(s.terms[k:])
	n := 0
	for n < len(s.recent) && s.recent[n].GetIndex() <= index {
		s.bytes -= len(s.recent[n].GetData())
		n++
	}
	s.recent = slices.Clone(s.recent[n:])
	return nil
}

// release takes out of the list all files that hold nothing behind the start of
// the log, but for the newest keep of them and those whose next one was begun
// after youngest, and returns their numbers and sizes, oldest first.
func (s *store) release(keep int, youngest int64) []logFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n+1 < len(s.files) && s.files[n+1].before.Index <= s.base.Index {
		s.files[n].pages = nil
		n++
	}
	n = max(0, n-keep)
	for n > 0 && s.files[n].begun > youngest {
		n--
	}
	out := slices.Clone(s.files[:n])
	s.files = slices.Clone(s.files[n:])
	return out
}

// oldest is when the oldest file was begun, in nanoseconds since 1970. There is
// always one, which is being written.
func (s *store) oldest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[0].begun
}

// opened notes that a new file is being written.
func (s *store) opened(f logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// setHard keeps the newest hard state in memory.
func (s *store) setHard(h hard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hard = h
}

// bounds returns the first index in the files and the last entry.
func (s *store) bounds() (first uint64, last position) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	first = s.base.Index + 1
	if len(s.files) > 0 {
		first = min(first, s.files[0].before.Index+1)
	}
	term, err := s.termLocked(s.last)
	if err != nil {
		panic(fmt.Sprintf("BUG: the last entry %d has no term: %v", s.last, err))
	}
	return first, position{Index: s.last, Term: term}
}

// unsaved is the size of the files that the next start has to read.
func (s *store) unsaved() (bytes uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k := range s.files {
		if k+1 == len(s.files) || s.files[k+1].before.Index > s.base.Index {
			bytes += uint64(s.files[k].size)
		}
	}
	return bytes
}

// readError is the first error that raft met while reading.
func (s *store) readError() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}

// setConf replaces the membership.
func (s *store) setConf(c *raftpb.ConfState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf = c
}

// confState is the membership that raft works with.
func (s *store) confState() *raftpb.ConfState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conf
}

// voters lists those who vote.
func (s *store) voters() []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conf.GetVoters()
}

// lastIndex is the index of the last entry.
func (s *store) lastIndex() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last
}
