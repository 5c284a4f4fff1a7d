package master

import (
	"fmt"
	"testing"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestNames(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	dir := a.mkdir(inode.Root, "dir")
	file := a.mkfile(dir.Ino, "file")
	if file.Kind != inode.File || file.Mode != 0o644 || file.Nlink != 1 {
		t.Fatalf("made %+v", file)
	}
	a.fails(&wire.Make{Parent: dir.Ino, Name: "file", What: inode.File}, status.Exists)
	if e := a.lookup(dir.Ino, "file"); !e.Found || e.Attr.Ino != file.Ino || e.Rights&inode.R == 0 || e.DirRights&inode.D == 0 {
		t.Fatalf("lookup: %+v", e)
	}
	if e := a.lookup(dir.Ino, "other"); e.Found || e.DirRights&inode.D == 0 {
		t.Fatalf("lookup of nothing: %+v", e)
	}
	a.fails(&wire.Lookup{Parent: file.Ino, Name: "x"}, status.NotDir)
	a.fails(&wire.Lookup{Parent: 12345, Name: "x"}, status.Stale)

	var e wire.EntryReply
	a.must(&wire.Link{Ino: file.Ino, Parent: inode.Root, Name: "second"}, &e)
	if e.Attr.Nlink != 2 {
		t.Fatalf("link: %+v", e.Attr)
	}
	a.must(&wire.Make{Parent: dir.Ino, Name: "sym", What: inode.Symlink, Mode: 0o777, Target: "file"}, &e)
	if string(a.lookup(dir.Ino, "sym").Target) != "file" {
		t.Fatal("a symbolic link has lost its target")
	}
	var target wire.BytesReply
	a.must(&wire.Readlink{Ino: e.Attr.Ino}, &target)
	if string(target.Bytes) != "file" {
		t.Fatalf("readlink: %q", target.Bytes)
	}
	var rn wire.RenameReply
	a.must(&wire.Rename{Parent: dir.Ino, Name: "sym", NewParent: inode.Root, NewName: "second"}, &rn)
	if !rn.Replaced || rn.Gone.Ino != file.Ino || rn.Gone.Nlink != 1 || rn.Moved.Ino != e.Attr.Ino {
		t.Fatalf("rename: %+v", rn)
	}
	a.fails(&wire.Remove{Parent: inode.Root, Name: "dir", Dir: true}, status.NotEmpty)
	var rm wire.RemoveReply
	a.must(&wire.Remove{Parent: dir.Ino, Name: "file", Ino: file.Ino}, &rm)
	if rm.Orphan || rm.Rights != 0 || rm.Attr.Nlink != 0 {
		t.Fatalf("remove of a file that is not open: %+v", rm)
	}
	a.fails(&wire.GetAttr{Ino: file.Ino}, status.Stale)
	a.must(&wire.Remove{Parent: inode.Root, Name: "dir", Dir: true}, &rm)
}

func TestReadDir(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	want := map[string]bool{}
	for i := range 100 {
		name := fmt.Sprint("n", i)
		a.mkfile(inode.Root, name)
		want[name] = true
	}
	var cookie uint64
	for {
		var r wire.ReadDirReply
		a.must(&wire.ReadDir{Ino: inode.Root, Cookie: cookie, Max: 7}, &r)
		if r.DirRights&inode.D == 0 || r.Parent != inode.Root {
			t.Fatalf("readdir: %+v", r)
		}
		for _, e := range r.Entries {
			if !want[e.Name] || e.Rights&inode.R == 0 {
				t.Fatalf("unexpected or without rights: %+v", e)
			}
			delete(want, e.Name)
			cookie = e.Cookie
		}
		if r.End {
			break
		}
	}
	if len(want) != 0 {
		t.Fatalf("not listed: %v", want)
	}
}

func TestAttributes(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	var r wire.AttrReply
	a.must(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode | wire.SetSize, Mode: 0o600, Size: 1 << 20}, &r)
	if r.Attr.Mode != 0o600 || r.Attr.Size != 1<<20 || r.Rights&inode.R == 0 {
		t.Fatalf("setattr: %+v", r)
	}
	a.must(&wire.SetXattr{Ino: f.Ino, Name: "user.a", Value: []byte("1")}, &r)
	a.fails(&wire.SetXattr{Ino: f.Ino, Name: "user.a", Value: []byte("2"), Flags: wire.XattrCreate}, status.Exists)
	var b wire.BytesReply
	a.must(&wire.GetXattr{Ino: f.Ino, Name: "user.a"}, &b)
	if string(b.Bytes) != "1" {
		t.Fatalf("getxattr: %q", b.Bytes)
	}
	a.must(&wire.ListXattr{Ino: f.Ino}, &b)
	if string(b.Bytes) != "user.a\x00" {
		t.Fatalf("listxattr: %q", b.Bytes)
	}
	a.must(&wire.RemoveXattr{Ino: f.Ino, Name: "user.a"}, &r)
	a.fails(&wire.GetXattr{Ino: f.Ino, Name: "user.a"}, status.NoAttr)
}

func TestReadOnlySessionsAndPaths(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	dir := a.mkdir(inode.Root, "sub")
	a.mkfile(inode.Root, "file")

	ro := dialMount(t, m)
	ro.must(&wire.SessionOpen{Path: "/sub", ReadOnly: true}, &ro.session)
	if ro.session.Root != dir.Ino {
		t.Fatalf("root of a mount of /sub is %d, want %d", ro.session.Root, dir.Ino)
	}
	ro.fails(&wire.Make{Parent: dir.Ino, Name: "x", What: inode.File}, status.ReadOnly)
	ro.fails(&wire.SessionOpen{}, status.Invalid)

	bad := dialMount(t, m)
	bad.fails(&wire.Lookup{Parent: inode.Root, Name: "sub"}, status.Stale)
	bad.fails(&wire.SessionOpen{Path: "/none"}, status.NotFound)
	bad.fails(&wire.SessionOpen{Path: "/file"}, status.NotDir)
	bad.fails(&wire.SessionOpen{Session: 999}, status.Stale)
}
