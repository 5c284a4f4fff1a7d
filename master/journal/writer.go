package journal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/master/journal/files"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// A write that takes longer than slowWrite is worth a line in the log, one every
// slowPause; one that takes longer than longWrite is worth one when debugging.
const (
	longWrite = 20 * time.Millisecond
	slowWrite = 200 * time.Millisecond
	slowPause = 5 * time.Second
)

// errStopped ends a wait for a new file when the log is closed.
var errStopped = errors.New("the log is closed")

// writer appends frames to the newest file. append, mark, witness and finish
// are called from one goroutine at a time; sync may run beside them.
type writer struct {
	node  uint64
	lazy  bool  // quorum mode
	fresh int64 // bytes of a new file
	store *store
	m     *meters
	log   *slog.Logger
	dir   files.Dir

	// writing and flushing are when the write, or in quorum mode the sync, began that
	// is under way; 0: none is. Any goroutine may read them.
	writing, flushing atomic.Int64

	spares <-chan uint64          // numbers of files made ready by prepare
	ready  func() (uint64, error) // makes one ready, where nobody else does; may be nil
	stop   <-chan struct{}        // ends a wait for spares

	// Owned by the appending goroutine.
	buf     []byte // a frame being built; page-aligned
	number  uint64 // of the file
	size    int64  // of the file
	nonce   uint64
	sum     uint32 // of the last frame
	hard    hard   // newest known
	written hard   // as the last frame says
	slowAt  time.Time

	// syncing is held over a Sync and over closing a file. It is taken before mu.
	syncing sync.Mutex
	mu      sync.Mutex
	f       files.File
	off     int64 // where the next frame goes
	durable int64 // everything before it is on disk
}

// busySince is when the oldest write or sync that is under way began; 0: none is.
func (w *writer) busySince() int64 {
	a, b := w.writing.Load(), w.flushing.Load()
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// append writes what raft hands to its append thread: entries, hard state and
// marks, in order. On return it is on disk (quorum mode: entries may be in the
// page cache, terms and votes are on disk).
func (w *writer) append(msgs []*raftpb.Message) error {
	urgent := false
	var ents []*raftpb.Entry // of several messages: they share a frame
	for _, m := range msgs {
		if m.Term != nil && m.Vote != nil {
			h := hard{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
			urgent = urgent || h.Term != w.hard.Term || h.Vote != w.hard.Vote
			w.hard = h
			w.store.setHard(h)
		}
		next := m.GetEntries()
		s := m.GetSnapshot()
		if len(ents) > 0 && (!raft.IsEmptySnap(s) || len(next) > 0 && next[0].GetIndex() != ents[len(ents)-1].GetIndex()+1) {
			if err := w.entries(ents); err != nil {
				return err
			}
			ents = nil
		}
		if !raft.IsEmptySnap(s) {
			at := position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm()}
			if err := w.mark(at); err != nil {
				return err
			}
		}
		if len(ents) == 0 {
			ents = next
		} else {
			ents = append(ents[:len(ents):len(ents)], next...)
		}
	}
	if err := w.entries(ents); err != nil {
		return err
	}
	if urgent && (w.written.Term != w.hard.Term || w.written.Vote != w.hard.Vote) {
		if err := w.flush(w.start(), 0, w.last()); err != nil {
			return err
		}
	}
	if urgent && w.lazy {
		return w.sync()
	}
	return nil
}

// entries writes ents in as few frames as are allowed.
func (w *writer) entries(ents []*raftpb.Entry) error {
	prev := uint64(0)
	if len(ents) > 0 {
		t, err := w.store.Term(ents[0].GetIndex() - 1)
		if err != nil {
			return fmt.Errorf("entry %d does not follow the log: %w", ents[0].GetIndex(), err)
		}
		prev = t
	}
	fill := int(min(frameFill, w.fresh-page))
	for len(ents) > 0 {
		b, n := w.start(), 0
		for n < len(ents) && (n == 0 || len(b)+recordHead+len(ents[n].GetData()) <= fill) {
			e := ents[n]
			b = appendRecord(b, &record{
				Kind: recordEntry, Type: uint8(e.GetType()),
				Index: e.GetIndex(), Term: e.GetTerm(), PrevTerm: prev, Data: e.GetData(),
			})
			prev = e.GetTerm()
			n++
		}
		if err := w.flush(b, n, ents[n-1].GetIndex()); err != nil {
			return err
		}
		w.store.added(ents[:n], uint32((w.off-int64(padded(len(b))))/page))
		ents = ents[n:]
	}
	return nil
}

// mark writes that the log goes on behind at and forgets what was before.
func (w *writer) mark(at position) error {
	b := appendRecord(w.start(), &record{Kind: recordMark, Index: at.Index, Term: at.Term})
	if err := w.flush(b, 1, at.Index); err != nil {
		return err
	}
	w.store.rebase(at)
	return w.sync()
}

// witness writes a frame without records, so that the commit index is on disk
// and damage to the frames before it cannot pass for a torn tail.
func (w *writer) witness() error {
	if w.written == w.hard {
		return nil
	}
	return w.flush(w.start(), 0, w.last())
}

// start returns an empty frame to append records to.
func (w *writer) start() []byte { return appendFrameHead(w.buf[:0]) }

// last is the index of the last entry that was written.
func (w *writer) last() uint64 {
	_, at := w.store.bounds()
	return at.Index
}

// flush completes the frame in b and writes it behind the last one. The log ends
// with entry last then; the frame must not say that more is committed, though a
// follower may know so already.
func (w *writer) flush(b []byte, records int, last uint64) error {
	if cap(b) > cap(w.buf) || padded(len(b)) > cap(w.buf) { // outgrown: start's array is too small
		grown := engine.Alloc(padded(len(b)))
		copy(grown, b)
		engine.Free(w.buf[:cap(w.buf)])
		w.buf = grown
		b = grown[:len(b)]
	}
	full := b[:padded(len(b))]
	clear(full[len(b):])
	if w.off+int64(len(full)) > w.size {
		if err := w.roll(); err != nil {
			return err
		}
	}
	f := frame{
		Records: uint32(records), Number: w.number, Nonce: w.nonce,
		Offset: uint64(w.off), Durable: uint64(w.off), PrevSum: w.sum, Hard: w.hard,
	}
	f.Hard.Commit = min(f.Hard.Commit, last)
	begun := time.Now()
	write := w.f.WriteSync
	if w.lazy {
		write = w.f.Write
		w.mu.Lock()
		f.Durable = uint64(w.durable)
		w.mu.Unlock()
	}
	sealFrame(b, &f)
	if err := write(full, w.off); err != nil {
		return err
	}
	w.mu.Lock()
	w.off += int64(len(full))
	if !w.lazy {
		w.durable = w.off
	}
	w.mu.Unlock()
	w.sum, w.written = f.sum, f.Hard
	took := time.Since(begun)
	w.m.frame(len(full), records, took)
	w.slow(took, len(full))
	return nil
}

// slow says that a write took long: to people when it took too long, now and
// then; otherwise to those who study where the time goes.
func (w *writer) slow(took time.Duration, bytes int) {
	level := slog.LevelDebug
	switch now := time.Now(); {
	case took < longWrite:
		return
	case took > slowWrite && now.Sub(w.slowAt) > slowPause:
		level, w.slowAt = slog.LevelWarn, now
	}
	w.log.Log(context.Background(), level, "journal: the disk is slow", "file", w.dir.Path(fileName(w.number)), "bytes", bytes, "took", took.Round(time.Millisecond))
}

// sync makes all that was written durable. It may run beside the appending
// goroutine, which then goes on writing.
func (w *writer) sync() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	f, off := w.f, w.off
	done := w.durable >= off
	w.mu.Unlock()
	if done {
		return nil
	}
	begun := time.Now()
	if err := f.Sync(); err != nil {
		return err
	}
	w.mu.Lock()
	w.durable = max(w.durable, off) // f cannot have been replaced: roll needs syncing too
	w.mu.Unlock()
	w.m.syncs.UpdateDuration(begun)
	return nil
}

// roll goes on with a new file. All of the old one is durable before the new
// one says so in its header.
func (w *writer) roll() error {
	if err := w.sync(); err != nil {
		return err
	}
	number, err := w.next()
	if err != nil {
		return err
	}
	return w.begin(number, header{PrevNonce: w.nonce, PrevEnd: uint64(w.off), PrevSum: w.sum})
}

// next is the number of a file that is ready to be written.
func (w *writer) next() (number uint64, err error) {
	if w.ready != nil {
		return w.ready()
	}
	select {
	case number = <-w.spares:
		return number, nil
	default:
	}
	w.log.Info("journal: waiting for the next file")
	select {
	case number = <-w.spares:
		return number, nil
	case <-w.stop:
		return 0, errStopped
	}
}

// begin writes the header of file number and makes it the newest. prev holds
// what the header says about the file before.
func (w *writer) begin(number uint64, prev header) error {
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	h := prev
	h.Version, h.Number, h.Size, h.Node, h.Voters, h.Hard = formatVersion, number, uint64(w.fresh), w.node, w.store.voters(), w.hard
	h.Nonce = binary.LittleEndian.Uint64(nonce[:])
	h.Created = time.Now().UnixNano()
	_, h.Before = w.store.bounds()
	h.Hard.Commit = min(h.Hard.Commit, h.Before.Index)
	f, err := w.dir.Open(fileName(number), !w.lazy)
	if err != nil {
		return err
	}
	first := engine.Alloc(page) // not buf: the frame that did not fit is there
	defer engine.Free(first)
	if err := f.WriteSync(encodeHeader(first[:0], &h), 0); err != nil {
		_ = f.Close()
		return err
	}
	w.adopt(f, &h, w.fresh, page, h.sum)
	w.store.opened(logFile{number: number, size: w.size, before: h.Before, nonce: h.Nonce, begun: h.Created})
	return nil
}

// adopt makes f the newest file, to be continued at off behind the frame with
// the given sum, and closes the old one.
func (w *writer) adopt(f files.File, h *header, size, off int64, sum uint32) {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	old := w.f
	w.f, w.off, w.durable = f, off, off
	w.mu.Unlock()
	w.number, w.nonce, w.size, w.sum = h.Number, h.Nonce, size, sum
	w.m.file.Store(h.Number)
	if old != nil {
		if err := old.Close(); err != nil { // all its data is durable
			w.log.Warn("journal: close", "err", err)
		}
	}
}

// finish writes the last witness, if the file has room for it, and closes the file.
func (w *writer) finish(clean bool) error {
	var err error
	if clean && w.off+page <= w.size {
		err = w.witness()
	}
	if clean && err == nil {
		err = w.sync()
	}
	if w.f != nil {
		err = errors.Join(err, w.f.Close())
	}
	return err
}
