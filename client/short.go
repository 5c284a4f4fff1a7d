package client

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/handover"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Short-circuit reads: a chunkserver on this host tells where the bytes of a chunk lie on its
// disks and hands over descriptors of the files, for reading only; bytes are then read without
// it. Why what is read so is right:
//
//   - Where bytes lie (placeMap, for a window of a file) is kept in Client.maps by the same
//     rules by which their data is kept in Client.cache, and dropped by the same calls: it is
//     asked for and used under R only, a recall waits for the reads that use it; none is made
//     where a write of this client is not durable on every replica, and a write, a truncation
//     or a hole drops those that it touches before it is sent. So a map never names the bytes
//     of before an overwrite, ours or another mount's, and never those of a chunk that was cut
//     off and made anew. It is asked for with version and token as the data would be: a replica
//     that fell behind refuses.
//   - Until then the chunkserver may only move the bytes (its cleaner) or lose its copy (moved
//     to another server, or replaced because it is damaged), and write something else to the
//     place. Nothing tells us, and nothing is pinned: each piece that is read is held against
//     the checksum that the writer made of it and that came with the map. What does not match
//     drops the map, and the read goes to a chunkserver, which says where the bytes are now,
//     or finds and reports the damage. A piece that matches is right however it got there; that
//     another one has the same CRC32C is the chance that every checked read takes, here only
//     for maps that have outlived their segment.
//
// A descriptor belongs to one connection to one chunkserver process, and is closed with it.

const (
	lendAgain = 30 * time.Second // after a chunkserver did not hand over descriptors
	meetAgain = 5 * time.Second
	lentIdle  = time.Minute // unused descriptors are closed: they keep a disk from being taken away
	lentMost  = 4096        // descriptors
	lentShare = 4           // of the limit of open files: no more than its 4th part
	hangs     = 300 * time.Millisecond
)

// shortcuts is what is common to all chunkservers of this host.
type shortcuts struct {
	off   bool
	files atomic.Int64 // descriptors that are open
	most  int64
}

func newShortcuts(off bool) *shortcuts {
	s := &shortcuts{off: off, most: lentMost}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		s.most = min(s.most, int64(limit.Cur/lentShare))
	}
	return s
}

// lender is the side of a chunkserver that lends its files.
type lender struct {
	near  atomic.Pointer[link.Conn] // connection to a process of this host
	again atomic.Int64              // monotonic: it has refused, not to be asked before
	tried atomic.Int64              // monotonic: a connection was made to see whether it is near, not to be made before

	// Reads of its disks under way, and when the last one ended, or when they began.
	reading atomic.Int64
	pulse   atomic.Int64

	mu    sync.Mutex
	conn  *link.Conn
	files map[uint32]*lentFile
}

// lentFile is a descriptor of a file of a chunkserver.
type lentFile struct {
	f    *os.File
	v    *server
	used atomic.Int64 // monotonic
}

// sameHost tells whether the other end may be a process of this host: both ends of the
// connection have the same address. Whether it is one shows when it hands something over.
func sameHost(conn *link.Conn) bool {
	_, addr := conn.Peer()
	there, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	here, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return err == nil && here == there
}

// met notes a new connection.
func (l *lender) met(conn *link.Conn) {
	l.again.Store(0)
	l.near.Store(nil)
	if sameHost(conn) {
		l.near.Store(conn)
	}
}

// meet makes a connection in the background, if there is none: what is near is worth
// knowing before a read has to go there.
func (v *server) meet() {
	next := v.lender.tried.Load()
	if v.alive(laneRead) != nil || next > v.c.now() || !v.lender.tried.CompareAndSwap(next, v.c.now()+int64(meetAgain)) {
		return
	}
	v.c.spawn(func() { v.dial(v.c.ctx, laneRead) }) // if it fails, a read will tell
}

// lends returns the connection on which the server can be asked where bytes lie, or nil.
func (v *server) lends() *link.Conn {
	conn := v.lender.near.Load()
	if conn == nil || conn.Err() != nil || v.lender.again.Load() > v.c.now() {
		return nil
	}
	return conn
}

// late notes that the server did not answer in time: for a while reads go to whoever is quickest.
func (v *server) late() { v.lender.again.Store(v.c.now() + int64(brokenAgain)) }

// refused notes that the server does not lend, and why, once in a while.
func (v *server) refused(err error) {
	v.lender.again.Store(v.c.now() + int64(lendAgain))
	v.c.log.Info("reading over the network from a chunkserver of the same address: it does not hand over its files",
		"addr", v.addr, "err", err)
}

// borrow returns descriptors of the files with the given numbers, which the server has told
// on conn.
func (v *server) borrow(ctx context.Context, conn *link.Conn, numbers []uint32) (map[uint32]*lentFile, error) {
	got := make(map[uint32]*lentFile, len(numbers))
	var missing []uint32
	l := &v.lender
	l.mu.Lock()
	if l.conn != conn {
		l.returnAll()
		l.conn, l.files = conn, make(map[uint32]*lentFile)
		if !v.c.spawn(func() { v.tend(conn) }) {
			l.mu.Unlock()
			return nil, v.c.closedError()
		}
	}
	for _, k := range numbers {
		if f := l.files[k]; f != nil {
			f.used.Store(v.c.now())
			got[k] = f
		} else {
			missing = append(missing, k)
		}
	}
	l.mu.Unlock()
	for len(missing) > 0 {
		k := min(len(missing), handover.MaxFiles)
		fds, err := v.take(ctx, conn, missing[:k])
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		for i, number := range missing[:k] {
			f := &lentFile{f: os.NewFile(uintptr(fds[i]), "lent by "+v.addr), v: v}
			f.used.Store(v.c.now())
			switch old := l.files[number]; {
			case l.conn != conn:
				f.f.Close() // and so all the others
				err = status.Errorf(status.Closed, "connection to %s", v.addr)
			case old != nil:
				f.f.Close()
				got[number] = old
			default:
				v.c.short.files.Add(1)
				l.files[number], got[number] = f, f
			}
		}
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		missing = missing[k:]
	}
	return got, nil
}

// take asks for a handover and goes there.
func (v *server) take(ctx context.Context, conn *link.Conn, numbers []uint32) ([]int, error) {
	if v.c.short.files.Load()+int64(len(numbers)) > v.c.short.most {
		return nil, errTooManyFiles
	}
	var reply wire.LendReply
	if err := conn.Call(ctx, &wire.Lend{Files: numbers}, nil, &reply); err != nil {
		return nil, err
	}
	return handover.Take(ctx, handover.Promise{Socket: reply.Socket, Ticket: reply.Ticket, Proof: reply.Proof}, len(numbers))
}

var errTooManyFiles = status.Errorf(status.Again, "too many files are borrowed")

// returnAll closes all descriptors. mu is held. Reads under way end first.
func (l *lender) returnAll() {
	for k, f := range l.files {
		f.f.Close()
		f.v.c.short.files.Add(-1)
		delete(l.files, k)
	}
	l.conn = nil
}

// tend closes descriptors when they are not used and when their connection ends.
func (v *server) tend(conn *link.Conn) {
	l := &v.lender
	t := time.NewTicker(lentIdle / 2)
	defer t.Stop()
	for {
		over := false
		select {
		case <-conn.Done():
			over = true
		case <-v.c.ctx.Done():
			over = true
		case <-t.C:
		}
		l.mu.Lock()
		if l.conn != conn {
			l.mu.Unlock()
			return
		}
		if over {
			l.returnAll()
			l.mu.Unlock()
			return
		}
		for k, f := range l.files {
			if v.c.now()-f.used.Load() > int64(lentIdle) {
				v.c.short.files.Add(-1)
				f.f.Close()
				delete(l.files, k)
			}
		}
		l.mu.Unlock()
	}
}

// readAt fills an aligned buffer. It blocks for as long as the disk does; when that hangs,
// others do not follow.
func (f *lentFile) readAt(buf []byte, off int64) error {
	l, now := &f.v.lender, f.v.c.now()
	if l.reading.Add(1) == 1 {
		l.pulse.Store(now)
	} else if now-l.pulse.Load() > int64(hangs) {
		l.reading.Add(-1)
		return errHangs
	}
	f.used.Store(now)
	_, err := f.f.ReadAt(buf, off)
	l.pulse.Store(f.v.c.now())
	l.reading.Add(-1)
	return err
}

var errHangs = status.Errorf(status.Timeout, "the disk does not answer")
