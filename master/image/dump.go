package image

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
)

// Dump reads an image, checks everything that it holds twice, and writes it as
// text: a line an inode with its chunks, sessions, servers, totals. What is wrong
// inside a readable image is returned behind the text.
func Dump(w io.Writer, r io.Reader) error {
	s, m, err := Read(r)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	stamp := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
	fmt.Fprintf(out, "image index=%d term=%d written=%s state=%s cluster=%s\n",
		m.Index, m.Term, stamp(m.Time), stamp(s.Time()), s.Cluster())
	for _, i := range s.Servers() {
		fmt.Fprintf(out, "server %s addr=%s labels=%q seen=%s\n", i.ID, i.Addr, i.Labels, stamp(i.Seen))
	}
	for _, i := range s.Sessions() {
		fmt.Fprintf(out, "session %d host=%q mount=%q path=%q readonly=%v opened=%s\n",
			i.ID, i.Host, i.Mount, i.Path, i.ReadOnly, stamp(i.Opened))
	}
	s.Inodes(func(a inode.Attr) bool {
		dumpInode(out, s, &a)
		return true
	})
	t := s.Totals()
	fmt.Fprintf(out, "totals inodes=%d files=%d dirs=%d symlinks=%d others=%d orphans=%d chunks=%d leases=%d length=%d\n",
		t.Inodes, t.Files, t.Dirs, t.Symlinks, t.Others, t.Orphans, t.Chunks, t.Leases, t.Length)
	if err := out.Flush(); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return fmt.Errorf("the image contradicts itself: %w", err)
	}
	return nil
}

func dumpInode(w io.Writer, s *state.State, a *inode.Attr) {
	path := s.PathOf(a.Ino)
	if path == "" {
		path = fmt.Sprintf("(held by %v)", s.Holds(a.Ino))
	}
	fmt.Fprintf(w, "%s %s mode=%04o nlink=%d uid=%d gid=%d goal=%d trash=%d size=%d atime=%d mtime=%d ctime=%d btime=%d gen=%d",
		a.Kind, a.Ino, a.Mode, a.Nlink, a.Uid, a.Gid, a.Goal, a.Trash, a.Size, a.Atime, a.Mtime, a.Ctime, a.Btime, a.Gen)
	if a.Kind == inode.CharDev || a.Kind == inode.BlockDev {
		fmt.Fprintf(w, " rdev=%d", a.Rdev)
	}
	fmt.Fprintf(w, " path=%q", path)
	if target, ok := s.Target(a.Ino); ok {
		fmt.Fprintf(w, " target=%q", target)
	}
	for name := range strings.SplitSeq(string(s.Xattrs(a.Ino)), "\x00") {
		if name != "" {
			v, _ := s.Xattr(a.Ino, name)
			fmt.Fprintf(w, " xattr=%q:%d", name, len(v))
		}
	}
	fmt.Fprintln(w)
	s.FileChunks(a.Ino, 0, 1<<32-1, func(c state.ChunkSlot) bool {
		fmt.Fprintf(w, "  chunk %d %s version=%d", c.Index, c.ID, c.Version)
		if c.Valid != chunk.Size {
			fmt.Fprintf(w, " valid=%d", c.Valid)
		}
		if c.Lease != 0 {
			fmt.Fprintf(w, " lease=%d min=%d fresh=%v", c.Lease, c.Min, c.Fresh)
		}
		fmt.Fprintln(w)
		return true
	})
}
