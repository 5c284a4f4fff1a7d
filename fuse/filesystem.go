package fuse

import (
	"context"
	"log/slog"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// fileSystem answers the kernel. Its methods are called by go-fuse or as hotOps, each
// request in its own goroutine; what a request points to is only valid until
// the method returns.
//
// The cancel channel, which go-fuse closes when the kernel interrupts a request (hotOps
// have none), counts by itself only in SetLkw: Go programs are interrupted all the time, and a program that
// calls stat(2) does not expect EINTR. All other requests end with their
// program (see waits) or with ctx, which ends with the mount.
type fileSystem struct {
	gofuse.RawFileSystem // ENOSYS for what is not here

	client  *client.Client
	nodes   nodes
	notify  *Notifier
	dirs    *dirs   // the Notifier's
	inodes  *inodes // the Notifier's
	open    handles
	replies replies
	turns   turns
	waits   waits
	meters  *meters
	log     *slog.Logger
	ctx     context.Context
}

func (f *fileSystem) String() string { return "varve" }

// Init and OnUnmount are for file systems that mount through go-fuse.
func (f *fileSystem) Init(*gofuse.Server) {}
func (f *fileSystem) OnUnmount()          {}

// Forget has nothing to do: an inode that is not open costs nothing here.
func (f *fileSystem) Forget(nodeid, nlookup uint64) {}

// Access is never asked for: the kernel checks permissions itself.
func (f *fileSystem) Access(<-chan struct{}, *gofuse.AccessIn) gofuse.Status { return gofuse.ENOSYS }

// Lookup answers with the inode of a name. That there is none may be cached,
// too: then it is an answer with node 0.
func (f *fileSystem) Lookup(cancel <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) (code gofuse.Status) {
	defer f.meters.observe(opLookup, time.Now(), &code)
	if len(name) > inode.NameMax {
		return nameTooLong
	}
	parent := f.nodes.ino(h.NodeId)
	f.dirs.beginLook(parent)
	n, err := f.client.Lookup(f.context(cancel, h), parent, name)
	cacheable := f.dirs.endLook(parent)
	code = statusOf(err)
	switch {
	case code == gofuse.ENOENT && n.EntryTTL > 0 && cacheable:
		out.SetEntryTimeout(ttl(n.EntryTTL))
		return gofuse.OK
	case code != gofuse.OK:
		return code
	}
	f.fillEntry(out, &n, cacheable)
	return gofuse.OK
}

// StatFs is df(1).
func (f *fileSystem) StatFs(cancel <-chan struct{}, h *gofuse.InHeader, out *gofuse.StatfsOut) (code gofuse.Status) {
	defer f.meters.observe(opStatFS, time.Now(), &code)
	r, err := f.client.StatFS(f.context(cancel, h))
	if err != nil {
		return statusOf(err)
	}
	fillStatfs(out, &r)
	return gofuse.OK
}

func fillStatfs(out *gofuse.StatfsOut, r *wire.StatFSReply) {
	const (
		block = 4096
		// Inodes are bounded by the master's memory, which nobody can
		// foretell: there is room for many more.
		spareInodes = 1 << 32
	)
	*out = gofuse.StatfsOut{
		Blocks:  r.Total / block,
		Bfree:   r.Free / block,
		Bavail:  r.Free / block,
		Files:   r.Inodes + spareInodes,
		Ffree:   spareInodes,
		Bsize:   block,
		Frsize:  block,
		NameLen: inode.NameMax,
	}
}

// Ioctl knows no request at all.
func (f *fileSystem) Ioctl(<-chan struct{}, *gofuse.IoctlIn, []byte, *gofuse.IoctlOut, []byte) gofuse.Status {
	return notTTY
}
