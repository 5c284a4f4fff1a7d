package fuse

import (
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
)

// Offsets in a directory: 0 is the start, 1 lies behind ".", 2 behind "..", and
// firstEntry plus its cookie behind any other entry. Cookies stay valid while
// names come and go, so seekdir(3) works at any time.
const (
	behindDot    = 1
	behindDotDot = 2
	firstEntry   = behindDotDot
)

// OpenDir begins to read a directory.
func (f *fileSystem) OpenDir(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) (code gofuse.Status) {
	defer f.meters.observe(opOpen, time.Now(), &code)
	ino := f.nodes.ino(in.NodeId)
	ctx := f.context(cancel, &in.InHeader)
	d, err := f.client.OpenDir(ctx, ino)
	if err != nil {
		return statusOfInode(err)
	}
	if ctx.killed() {
		d.Close()
		return gofuse.EINTR
	}
	out.Fh = f.open.add(&handle{ino: ino, dir: d})
	return gofuse.OK
}

// ReadDir lists names.
func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return f.readDir(cancel, in, func(e *client.DirEntry, off uint64) bool {
		return out.AddDirEntry(dirent(e, off))
	})
}

// ReadDirPlus lists names with their inodes, as if each had been looked up.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	dir := f.nodes.ino(in.NodeId)
	f.dirs.beginLook(dir)
	// Entries are written while the listing goes on, before endLook can tell
	// whether they may be cached; their TTLs are taken back then.
	var outs []*gofuse.EntryOut
	code := f.readDir(cancel, in, func(e *client.DirEntry, off uint64) bool {
		eo := out.AddDirLookupEntry(dirent(e, off))
		if eo == nil {
			return false
		}
		if off > behindDotDot { // the kernel takes no inodes for "." and ".."
			f.fillEntry(eo, &e.Node, true)
			outs = append(outs, eo)
		}
		return true
	})
	if !f.dirs.endLook(dir) {
		for _, eo := range outs {
			eo.SetEntryTimeout(0)
		}
	}
	return code
}

func dirent(e *client.DirEntry, off uint64) gofuse.DirEntry {
	return gofuse.DirEntry{
		Name: e.Name,
		Ino:  uint64(e.Node.Attr.Ino),
		Mode: e.Node.Attr.Kind.ModeType(),
		Off:  off,
	}
}

// readDir calls add for each entry behind in.Offset until it returns false.
func (f *fileSystem) readDir(cancel <-chan struct{}, in *gofuse.ReadIn, add func(e *client.DirEntry, off uint64) bool) (code gofuse.Status) {
	defer f.meters.observe(opReadDir, time.Now(), &code)
	h := f.open.get(in.Fh)
	if h == nil || h.dir == nil {
		return gofuse.EBADF
	}
	if in.Offset < behindDot && !add(f.dot(h, "."), behindDot) {
		return gofuse.OK
	}
	if in.Offset < behindDotDot && !add(f.dot(h, ".."), behindDotDot) {
		return gofuse.OK
	}
	err := h.dir.Read(f.context(cancel, &in.InHeader), max(in.Offset, firstEntry)-firstEntry, func(e client.DirEntry) bool {
		return add(&e, firstEntry+e.Cookie)
	})
	return statusOfInode(err)
}

// dot makes the entry of the directory itself or of the one above it. What lies
// above the mount's root is none of the reader's business.
func (f *fileSystem) dot(h *handle, name string) *client.DirEntry {
	e := &client.DirEntry{Name: name}
	e.Node.Attr.Kind = inode.Dir
	e.Node.Attr.Ino = h.ino
	if parent := h.dir.Parent(); name == ".." && h.ino != f.nodes.root && parent != 0 {
		e.Node.Attr.Ino = parent
	}
	return e
}

// ReleaseDir ends the reading of a directory.
func (f *fileSystem) ReleaseDir(in *gofuse.ReleaseIn) {
	f.awaitLeft(&in.InHeader)
	if h := f.open.remove(in.Fh); h != nil && h.dir != nil {
		h.dir.Close()
	}
}

// FsyncDir returns when all changes of names in the directory are durable.
func (f *fileSystem) FsyncDir(cancel <-chan struct{}, in *gofuse.FsyncIn) (code gofuse.Status) {
	defer f.meters.observe(opSync, time.Now(), &code)
	h := f.open.get(in.Fh)
	if h == nil || h.dir == nil {
		return gofuse.EBADF
	}
	return statusOf(h.dir.Sync(f.context(cancel, &in.InHeader)))
}
