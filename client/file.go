package client

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// File is an open file. Its methods may be called from any goroutine. Until
// Close the inode lives on, even without a name.
type File struct {
	c      *Client
	n      *node
	flags  uint32
	seen   uint64 // failures of writes already told; guarded by n.mu
	keep   bool
	closed atomic.Bool
	ahead  readAhead
}

// OpenFile opens a file. Of the flags of open(2) O_TRUNC is carried out, and
// the access mode tells whether a write lease may be of use; permissions are
// for the caller to check.
func (c *Client) OpenFile(ctx context.Context, ino inode.Ino, flags uint32) (*File, error) {
	if c.cfg.ReadOnly && (flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0) {
		return nil, status.ReadOnly
	}
	n := c.table.get(ino)
	if err := n.enterToOpen(ctx); err != nil {
		n.unpin()
		return nil, err
	}
	f := n.open(flags)
	n.mu.Unlock()
	if flags&syscall.O_TRUNC != 0 {
		if err := n.truncateTo(ctx, &wire.SetAttr{Ino: ino, Valid: wire.SetSize}, nil); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// enterToOpen returns with mu held when the inode may be counted as open: R is
// held, so that the master asks here before it frees an inode without names,
// and nothing is on its way that tells the master it is not open.
func (n *node) enterToOpen(ctx context.Context) error {
	for {
		if err := n.enter(ctx, inode.R); err != nil {
			return err
		}
		n.leave(inode.R)
		if n.removing == 0 && !n.releasing {
			if n.orphan && n.opens == 0 && n.c.now() >= n.linger {
				// It lives for those who had it open when its last name went.
				n.mu.Unlock()
				return status.Errorf(status.Stale, "inode %d", n.ino)
			}
			return nil
		}
		err := n.await(ctx)
		n.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// open makes a File, which takes over one pin of n. mu is held.
func (n *node) open(flags uint32) *File {
	f := &File{c: n.c, n: n, flags: flags, keep: n.keep}
	n.opens++
	n.limbo = false
	if n.attr.Kind == inode.File {
		n.keep = n.can(inode.R)
		f.seen = n.file().errs
	}
	return f
}

// Ino is the number of the open inode.
func (f *File) Ino() inode.Ino { return f.n.ino }

// KeepCache says whether pages that the kernel kept from an earlier open are
// still good.
func (f *File) KeepCache() bool { return f.keep }

// Close ends the use of the File. It does not wait for anything; call Flush
// first to learn of errors.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	f.ahead.stop()
	n := f.n
	n.mu.Lock()
	n.opens--
	if n.opens == 0 {
		if n.data != nil {
			n.data.closed = n.c.now()
		}
		if n.orphan {
			n.linger = 0
			n.toLimbo()
		} else if n.data != nil {
			n.data.push()
		}
		if n.told {
			f.c.releaseLater(n)
		}
	}
	n.cond.Broadcast()
	n.mu.Unlock()
	n.unpin()
	return nil
}

// WriteAt writes p at off. When it returns the bytes are here, in this client,
// and every reader of every mount will see them; they are sent to the
// chunkservers within Config.MaxDirty, by Flush or by Sync. A failure of an
// earlier write may be reported here.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, flags WriteFlags) (int, error) {
	if f.c.cfg.ReadOnly {
		return 0, status.ReadOnly
	}
	if off < 0 || !flags.Append && uint64(off)+uint64(len(p)) > inode.SizeMax {
		return 0, status.TooBig
	}
	if err := f.c.budget.wait(ctx); err != nil {
		return 0, err
	}
	n := f.n
	if err := n.enter(ctx, inode.W); err != nil {
		return 0, err
	}
	defer n.mu.Unlock()
	n.leave(inode.W)
	if err := f.failure(); err != nil {
		return 0, err
	}
	if flags.Append {
		off = int64(n.attr.Size)
		if uint64(off)+uint64(len(p)) > inode.SizeMax {
			return 0, status.TooBig
		}
	}
	if flags.Where != nil {
		*flags.Where = off
	}
	n.write(off, p, !flags.Sync && n.file().awaitsSync(len(p)))
	if flags.Kill {
		n.kill()
	}
	if flags.Sync {
		if err := n.sync(ctx, true); err != nil {
			return 0, err
		}
		if err := f.failure(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// write puts p among the unwritten data; urgent: and begins to make it durable.
// mu and W are held.
func (n *node) write(off int64, p []byte, urgent bool) {
	if len(p) == 0 {
		return
	}
	d := n.file()
	d.stamp++
	now := n.c.now()
	end := uint64(off) + uint64(len(p))
	d.dropCached(uint64(off), end)
	pieces(off, int64(len(p)), func(index uint32, in, m uint32) {
		w := d.chunk(index)
		for m > 0 {
			k := min(m, blockSize-in%blockSize)
			e := w.dirty.put(n.c.budget, in, p[:k], d.stamp, now)
			if urgent {
				e.sync, e.ready = true, true
				w.kick()
			}
			if e.end()%blockSize == 0 && e.n >= fullEnough && !e.ready {
				e.ready = true
				w.kick()
			}
			p, in, m = p[k:], in+k, m-k
		}
		if in > chunk.Size/2 {
			d.leaseAhead(index + 1)
		}
	})
	n.touch(uint64(off), end)
}

// touch notes that the bytes off..end have changed, to which the file reaches at
// least. mu and W are held.
func (n *node) touch(off, end uint64) {
	grown := end > n.attr.Size
	n.file().change(grown)
	if grown {
		n.attr.Blocks = grownBlocks(n.attr.Blocks, n.attr.Size, off, end)
		n.attr.Size = end
	}
	n.attr.Mtime = time.Now().UnixNano()
	n.attr.Ctime = max(n.attr.Ctime, n.attr.Mtime)
}

// grownBlocks is what the master will count (state.stored: the chunks that are there,
// as whole ones but for the last) when a write of off..end makes a file of size
// bytes longer. What is written into a hole counts when the lease of its new chunk comes.
func grownBlocks(blocks, size, off, end uint64) uint64 {
	const unit = 512
	from, stored := off/chunk.Size*chunk.Size, blocks*unit
	if stored > 0 && size > 0 {
		last := (size - 1) / chunk.Size * chunk.Size
		part := (size - last + unit - 1) / unit * unit
		switch there := stored%chunk.Size == part%chunk.Size; {
		case there && from <= last:
			stored, from = stored-part, last
		case there:
			stored += chunk.Size - part // it is not the last one any more
		}
	}
	return (stored + end - from + unit - 1) / unit
}

// kill clears what a write by somebody else than root clears. mu is held.
func (n *node) kill() {
	mode := killed(n.attr.Mode)
	if mode == n.attr.Mode && n.attr.Flags&inode.HasCaps == 0 {
		return
	}
	n.attr.Mode = mode
	n.attr.Flags &^= inode.HasCaps
	delete(n.xattrs, "security.capability")
	n.listed, n.xnames = false, nil
	d := n.file()
	d.change(false)
	d.kill = true
}

// leaseAhead asks for the lease of a chunk that a sequential writer will soon
// reach. n.mu is held.
func (d *fileData) leaseAhead(index uint32) {
	if d.ahead >= index || d.chunks[index] != nil || uint64(index)*chunk.Size < d.n.attr.Size {
		return
	}
	d.ahead = index
	n := d.n.pin()
	w := d.chunk(index)
	w.working = true
	ok := n.c.spawn(func() {
		n.mu.Lock()
		if !n.dead && n.holdsW() && !n.data.widowed {
			w.getLease()
		}
		w.working = false
		if w.anyReady() {
			w.kick()
		}
		n.cond.Broadcast()
		n.mu.Unlock()
		n.unpin()
	})
	if !ok {
		w.working = false
		n.unpin()
	}
}

// Flush sends all that was written to the file and returns when every replica
// has accepted it; the size may be told to the master later. For a few bytes it
// does not wait where all is well: they are under way, any other mount that
// wants to see them waits until they have arrived, and only an fsync could tell
// that they survive a loss of power. It reports a failed write once to each File.
func (f *File) Flush(ctx context.Context) error {
	n := f.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.light() {
		n.data.push()
		return f.failure()
	}
	if err := n.flush(ctx); err != nil {
		return err
	}
	return f.failure()
}

// lightBytes is what a closed file may have unsent.
const lightBytes = 64 << 10

// light says whether close(2) need not wait for what was written: it is little,
// nothing has failed, and there is room in the file system. mu is held.
func (n *node) light() bool {
	d := n.data
	if d == nil || n.dead || d.widowed || d.errs > 0 || len(d.chunks) != 1 || !n.c.early.wanted() || n.c.space.tight.Load() ||
		n.c.budget.inUse() > n.c.budget.limit/4 {
		return false
	}
	w := d.only()
	if len(w.broken) > 0 || w.again || w.mends > 0 || w.trouble != 0 || w.flying > 0 {
		return false
	}
	bytes, _, weak := d.unwritten()
	return bytes <= lightBytes && !weak
}

// Sync returns when all that was written to the file is on the disks of every
// replica and the master has its size on disk. With datasync times may be
// missing. It reports a failed write once to each File.
func (f *File) Sync(ctx context.Context, datasync bool) error {
	n := f.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.sync(ctx, datasync); err != nil {
		return err
	}
	return f.failure()
}
