package client

import (
	"errors"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// fileData is what the client knows and has to tell of the bytes of a file. It
// is guarded by the file's node.mu.
type fileData struct {
	n      *node
	chunks map[uint32]*leased       // with unwritten data or a write lease
	layout map[uint32]wire.ChunkLoc // where to read; Chunk 0: a hole
	stamp  uint64                   // of the last write
	ahead  uint32                   // index of the last chunk leased ahead
	synced uint64                   // stamp at the last Sync
	singly uint8                    // how many Syncs in a row came after one write each

	// What the master does not know yet.
	changed  bool   // size or mtime
	grown    bool   // a file without it would lack bytes: fdatasync must tell
	kill     bool   // suid, sgid and capabilities are to be cleared
	sets     uint32 // wire.SetMode ...: attributes set early
	intents  []int  // of sets, in the intent log
	telling  []int  // of those in the Commit that is in work
	since    int64  // monotonic time of the first such change
	baseSize uint64 // what the master knows
	baseTime int64
	exposed  bool // bytes behind baseSize are durable and no longer kept here

	committing bool  // a Commit or a truncation is in work; leases and size are left alone
	sealed     bool  // that Commit gives W back
	hardening  bool  // the background makes it durable
	queued     bool  // in Client.tasks, which pins the node
	resting    bool  // and passed by for a moment
	closed     int64 // monotonic time of the last Close
	widowed    bool  // W was lost with unwritten data
	losses     int   // how often W was lost

	// Chunks of lost leases that hold the only bytes of what is not committed.
	left map[uint32]chunk.ID

	err  error // the last failure of a write, for every File once
	errs uint64
}

// leased is one chunk that is being written. Guarded by node.mu.
type leased struct {
	d     *fileData
	index uint32

	loc     wire.ChunkLoc // valid while held is set
	held    bool          // the lease
	fresh   bool          // the chunk was made under this lease
	touched bool          // something was sent under it
	landed  bool          // something was accepted under it
	solid   bool          // some of it is durable and no longer kept here
	trimmed bool          // what the master does not know: Valid is the whole chunk
	torn    bool          // a write was given up: the copies may differ
	ending  bool          // a Commit that ends the lease is in work
	round   uint32        // raised with every new loc

	dirty  extents   // not sent
	sent   []*extent // sent and not known to be durable, in that order
	flying int       // of sent: without all answers
	bytes  int64     // in them
	heavy  int64     // bytes of sent

	working bool                   // a goroutine sends
	more    bool                   // it stopped because too much was under way
	broken  map[chunk.Server]error // replicas that failed since round began
	again   bool                   // everything in sent must be sent again
	mends   int                    // in a row, without a success
	doubted chunk.Version          // the lease was asked for anew because no replica took this version
	trouble int64                  // monotonic time since when nothing succeeds; 0: all is well
	conns   []*link.Conn           // of loc.Replicas, on which sent was accepted
	used    int64
}

// file returns the data of n. mu is held.
func (n *node) file() *fileData {
	if n.data == nil {
		n.data = &fileData{
			n: n, chunks: make(map[uint32]*leased), layout: make(map[uint32]wire.ChunkLoc),
			baseSize: n.attr.Size, baseTime: n.attr.Mtime,
		}
	}
	return n.data
}

func (d *fileData) chunk(index uint32) *leased {
	w := d.chunks[index]
	if w == nil {
		w = &leased{d: d, index: index}
		d.chunks[index] = w
	}
	w.used = d.n.c.now()
	return w
}

// idle says whether nothing of the chunk waits to be sent or made durable.
func (w *leased) idle() bool {
	return len(w.dirty) == 0 && len(w.sent) == 0 && !w.working
}

// pending says whether anything must still be done for the file.
func (d *fileData) pending() bool {
	return d.changed || d.kill || d.sets != 0 || len(d.chunks) > 0 || d.committing
}

// lease takes over the location that the master gave for a lease: a new one, or
// the one that is held already, with a new token and perhaps with its copies
// raised (Min is Version then; under a new lease Min is below it).
func (w *leased) lease(loc wire.ChunkLoc) {
	same := w.loc.Chunk == loc.Chunk && (w.loc.Version == loc.Version || loc.Min == loc.Version)
	if !same {
		w.touched, w.landed, w.solid, w.trimmed, w.torn = false, false, false, false, false
		w.fresh, w.doubted = loc.Fresh, 0
		w.untrim()
	} else if w.trimmed {
		loc.Valid = chunk.Size
	}
	if w.fresh && loc.Valid < chunk.Size && !w.touched {
		loc.Valid, w.trimmed = chunk.Size, true // there is nothing to trim
	}
	w.loc, w.held = loc, true
	w.relocate()
	w.again = len(w.sent) > 0
	delete(w.d.layout, w.index)
}

// relocate begins a new round: answers to older orders no longer count.
func (w *leased) relocate() {
	w.round++
	w.broken, w.conns = nil, nil
}

// lose notes that the lease is gone without the master's word that it has all
// that was written under it: what is kept goes out again under the next one.
func (w *leased) lose() {
	w.held = false
	w.relocate()
	w.again = len(w.sent) > 0
}

// untrim drops trims of an earlier lease, which cut where that one had to.
func (w *leased) untrim() {
	w.sent = slices.DeleteFunc(w.sent, func(e *extent) bool {
		if e.trim {
			e.dropped = true
		}
		return e.trim
	})
}

// change notes a local change of size or mtime.
func (d *fileData) change(grown bool) {
	if !d.changed && !d.grown && !d.kill && d.sets == 0 {
		d.since = d.n.c.now()
	}
	d.changed = true
	d.grown = d.grown || grown
	d.n.c.queue(d.n)
}

// fail gives up a chunk's unwritten data: every open File learns of it once.
func (w *leased) fail(err error) {
	d := w.d
	lost := w.heavy
	for _, e := range w.dirty {
		lost += int64(e.n)
	}
	w.torn = w.touched
	d.err, d.errs = err, d.errs+1
	d.n.c.met.lost.Add(int(lost))
	d.n.c.log.Error("unwritten data is lost", "inode", uint64(d.n.ino), "chunk", w.index, "bytes", lost, "err", err)
	w.drop()
}

// drop forgets all that was not written.
func (w *leased) drop() {
	for _, e := range w.dirty {
		e.release()
	}
	w.dirty = nil
	for _, e := range w.sent {
		if e.waiting == 0 {
			e.release()
		} else {
			e.dropped = true
		}
	}
	w.sent, w.heavy = nil, 0
	w.again = false
	w.broken = nil
	w.d.n.cond.Broadcast()
}

// discard forgets everything: the file is gone. mu is held.
func (d *fileData) discard() {
	for i, w := range d.chunks {
		w.drop()
		w.held = false
		if !w.working && !w.ending && w.flying == 0 {
			delete(d.chunks, i)
		}
	}
	d.changed, d.grown, d.kill, d.sets, d.left = false, false, false, 0, nil
	d.told(d.intents)
	d.intents = nil
	d.forgetLayout()
	d.n.forgetCached()
}

// widow notes that W was lost and with it every lease. Unwritten data stays, and
// is written if W can be had again before anybody else changed the file. Chunks
// that hold what is no longer here are remembered: the master may have thought
// that they were never written.
func (d *fileData) widow() {
	d.losses++
	for i, w := range d.chunks {
		if w.held && w.solid {
			if d.left == nil {
				d.left = make(map[uint32]chunk.ID)
			}
			d.left[i] = w.loc.Chunk
		}
		w.lose()
		if w.idle() {
			delete(d.chunks, i)
		}
	}
	if d.changed || d.sets != 0 || len(d.chunks) > 0 {
		d.widowed = true
		d.n.c.queue(d.n)
	}
}

func (d *fileData) forgetLayout() { clear(d.layout) }

// unwritten tells the size of what was not sent, and whether anything sent is
// not known to be durable.
func (d *fileData) unwritten() (bytes, count int, weak bool) {
	for _, w := range d.chunks {
		for _, e := range w.dirty {
			bytes += int(e.n)
		}
		count += len(w.dirty)
		for _, e := range w.sent {
			weak = weak || !e.sync
		}
	}
	return bytes, count, weak
}

// notesSync learns from a Sync how the file is written.
func (d *fileData) notesSync() {
	if d.stamp == d.synced {
		return
	}
	if d.stamp != d.synced+1 {
		d.singly = 0
	} else if d.singly < singlyMost {
		d.singly++
	}
	d.synced = d.stamp
}

// awaitsSync says whether a write of n bytes, the next one, is most likely followed
// by a Sync, as it is time after time in a database's log: then it is sent at once,
// and on its way to the disks while the writer still asks for that.
func (d *fileData) awaitsSync(n int) bool {
	return d.singly == singlyMost && d.stamp == d.synced && n <= fanOutMax
}

// singlyMost is how often a file must have been written and synced in turn.
const singlyMost = 3

// settled says whether everything written up to stamp was accepted by all replicas.
func (d *fileData) settled(stamp uint64) bool {
	for _, w := range d.chunks {
		if w.again || len(w.broken) > 0 {
			return false
		}
		for _, e := range w.dirty {
			if e.stamp <= stamp {
				return false
			}
		}
		for _, e := range w.sent {
			if e.stamp <= stamp && !e.acked {
				return false
			}
		}
	}
	return true
}

// gone says whether an error means that the inode or the session is no more.
func gone(err error) bool {
	return errors.Is(err, status.Stale) || errors.Is(err, status.NotFound)
}

// overlay copies what is not yet in the chunkservers' hands for good to p,
// which begins at off, and returns what it does not hold.
func (w *leased) overlay(off uint32, p []byte) []gap {
	gaps := []gap{{off, off + uint32(len(p))}}
	end := off + uint32(len(p))
	for i := w.dirty.find(off); i < len(w.dirty) && w.dirty[i].off < end; i++ {
		gaps = w.dirty[i].fill(gaps, off, p)
	}
	for i := len(w.sent) - 1; i >= 0 && len(gaps) > 0; i-- {
		if e := w.sent[i]; e.overlaps(off, end) {
			gaps = e.fill(gaps, off, p)
		}
	}
	return gaps
}

// covers says whether any byte of off..end is not yet durable.
func (w *leased) covers(off, end uint32) bool {
	if i := w.dirty.find(off); i < len(w.dirty) && w.dirty[i].off < end {
		return true
	}
	for _, e := range w.sent {
		if e.overlaps(off, end) {
			return true
		}
	}
	return false
}

// failure returns the error that a File has not yet seen, and notes that it has. mu is held.
func (f *File) failure() error {
	d := f.n.data
	if d == nil || d.errs == f.seen {
		return nil
	}
	f.seen = d.errs
	return d.err
}

// holdsW says whether W is there for work that began under it. mu is held.
func (n *node) holdsW() bool { return n.rights&inode.W != 0 }
