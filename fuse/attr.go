package fuse

import (
	"context"
	"errors"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// blockSize is st_blksize: what stdio and many copy programs take for one
// read or write, so that it also decides how often they come to us.
const blockSize = 64 << 10

// generation is the same for all inodes: their numbers are never used again.
const generation = 1

// statusOf is what the kernel is told about an error.
func statusOf(err error) gofuse.Status {
	switch {
	case err == nil:
		return gofuse.OK
	case errors.Is(err, context.Canceled):
		return gofuse.EINTR
	}
	return gofuse.Status(status.Errno(err))
}

// statusOfInode is statusOf for a request about an inode. When the inode is
// gone, the kernel's name for it is out of date: ESTALE makes the kernel look
// the name up again, where ENOENT would be the program's answer.
func statusOfInode(err error) gofuse.Status {
	if errors.Is(err, status.NotFound) {
		return gofuse.Status(unix.ESTALE)
	}
	return statusOf(err)
}

// fillAttr writes a as stat(2) will show it.
func fillAttr(out *gofuse.Attr, a *inode.Attr) {
	out.Ino = uint64(a.Ino)
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
	out.Mode = a.Kind.ModeType() | a.Mode&0o7777
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.Uid, a.Gid
	out.Rdev = a.Rdev
	out.Blksize = blockSize
}

// fillStatx does the same for statx(2), with the time of birth.
func fillStatx(out *gofuse.Statx, a *inode.Attr) {
	out.Mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	out.Blksize = blockSize
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.Uid, a.Gid
	out.Mode = uint16(a.Kind.ModeType() | a.Mode&0o7777)
	out.Ino = uint64(a.Ino)
	out.Size = a.Size
	out.Blocks = a.Blocks
	for _, t := range []struct {
		to   *gofuse.SxTime
		from int64
	}{{&out.Atime, a.Atime}, {&out.Btime, a.Btime}, {&out.Ctime, a.Ctime}, {&out.Mtime, a.Mtime}} {
		t.to.Sec, t.to.Nsec = split(t.from)
	}
	out.RdevMajor, out.RdevMinor = decodeDev(a.Rdev)
}

// decodeDev takes the kernel's 32-bit device number apart (new_decode_dev).
func decodeDev(dev uint32) (major, minor uint32) {
	return dev & 0xfff00 >> 8, dev&0xff | dev>>12&0xfff00
}

// split cuts nanoseconds since 1970 into seconds and nanoseconds; before 1970
// the seconds are negative and the nanoseconds are not.
func split(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

// join is the reverse of split; what does not fit is the nearest that does.
func join(sec uint64, nsec uint32) int64 {
	const most = int64(1<<63-1) / 1e9
	s := int64(sec)
	switch {
	case s >= most:
		return most * 1e9
	case s <= -most:
		return -most * 1e9
	}
	return s*1e9 + int64(nsec)
}

// ttl bounds a TTL by what the Notifier relies on.
func ttl(d time.Duration) time.Duration { return min(max(d, 0), maxTTL) }

// fillEntry answers with a name's inode. Without cacheable the name must be
// looked up again at once; the attributes keep their own TTL.
func (f *fileSystem) fillEntry(out *gofuse.EntryOut, n *client.Node, cacheable bool) {
	out.NodeId = f.nodes.node(n.Attr.Ino)
	out.Generation = generation
	if cacheable {
		out.SetEntryTimeout(ttl(n.EntryTTL))
	}
	out.SetAttrTimeout(f.attrTTL(n))
	fillAttr(&out.Attr, &n.Attr)
}

// attrTTL is how long the kernel may keep attributes. Those of a directory are
// asked for again while the kernel has names in it to forget: see
// dirs.awaitExpired.
func (f *fileSystem) attrTTL(n *client.Node) time.Duration {
	if n.Attr.Kind == inode.Dir && f.dirs.pending(n.Attr.Ino) {
		return 0
	}
	return ttl(n.AttrTTL)
}
