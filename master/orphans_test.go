package master

import (
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestOrphanLivesUntilTheLastRelease(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.set(func() { b.open[f.Ino] = true }) // says so when it is asked for R
	var rm wire.RemoveReply
	a.must(&wire.Remove{Parent: inode.Root, Name: "f", Ino: f.Ino, Open: true}, &rm)
	if !rm.Orphan || rm.Attr.Nlink != 0 {
		t.Fatalf("remove: %+v", rm)
	}
	if e := b.lookup(inode.Root, "f"); e.Found {
		t.Fatal("the name is still there")
	}
	a.must(&wire.Release{Rights: []wire.Held{{Ino: f.Ino, Open: true}}}, nil)
	if r := b.getattr(f.Ino); r.Attr.Nlink != 0 {
		t.Fatalf("orphan: %+v", r.Attr)
	}
	b.must(&wire.Release{Rights: []wire.Held{{Ino: f.Ino, Open: true}}}, nil)
	b.fails(&wire.GetAttr{Ino: f.Ino}, status.Stale)
}

func TestRemoveOfAnUnknownInodeCountsAsOpen(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	g := a.mkfile(inode.Root, "g")
	var rm wire.RemoveReply
	a.must(&wire.Remove{Parent: inode.Root, Name: "f"}, &rm)
	if !rm.Orphan {
		t.Fatal("a file that the mount did not know of is gone although it may be open")
	}
	var rn wire.RenameReply
	h := a.mkfile(inode.Root, "h")
	a.must(&wire.Rename{Parent: inode.Root, Name: "h", NewParent: inode.Root, NewName: "g", Ino: g.Ino, Open: true}, &rn)
	if !rn.Orphan || rn.Gone.Ino != g.Ino || rn.Moved.Ino != h.Ino {
		t.Fatalf("rename: %+v", rn)
	}
	a.must(&wire.SessionClose{}, nil)
	b := newMount(t, m).keepAlive()
	b.fails(&wire.GetAttr{Ino: f.Ino}, status.Stale)
	b.fails(&wire.GetAttr{Ino: g.Ino}, status.Stale)
}

func TestTmpfile(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	a.fails(&wire.Make{Parent: inode.Root, What: inode.File}, status.Invalid)
	var e wire.EntryReply
	a.must(&wire.Make{Parent: inode.Root, What: inode.File, Open: true}, &e)
	if e.Attr.Nlink != 0 {
		t.Fatalf("tmpfile: %+v", e.Attr)
	}
	a.must(&wire.Link{Ino: e.Attr.Ino, Parent: inode.Root, Name: "named"}, &e)
	if e.Attr.Nlink != 1 || !a.lookup(inode.Root, "named").Found {
		t.Fatalf("linked tmpfile: %+v", e.Attr)
	}
}

func TestSessionDeathFreesItsOrphans(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.SessionLease, cfg.SessionKeep = 200*time.Millisecond, 400*time.Millisecond
	m := startMaster(t, cfg)
	a, b := newMount(t, m).keepAlive(), newMount(t, m)
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.set(func() { b.open[f.Ino] = true })
	var rm wire.RemoveReply
	a.must(&wire.Remove{Parent: inode.Root, Name: "f", Ino: f.Ino}, &rm)
	if rm.Orphan {
		t.Fatal("the orphan is held for a mount that does not have it open")
	}
	a.getattr(f.Ino)
	b.conn.Close()
	eventually(t, "the dead mount's orphan is gone", func() bool {
		return status.CodeOf(a.call(&wire.GetAttr{Ino: f.Ino}, nil)) == status.Stale
	})
}

func TestOrphanOfALostMountIsKeptForIt(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.SessionLease, cfg.SessionKeep = 300*time.Millisecond, 20*time.Second
	m := startMaster(t, cfg)
	a, b := newMount(t, m).keepAlive(), newMount(t, m)
	f, g := a.mkfile(inode.Root, "f"), a.mkfile(inode.Root, "g")
	b.getattr(f.Ino)
	b.getattr(g.Ino)
	b.conn.Close()
	// It cannot be asked whether the files are open there: they count as open.
	a.must(&wire.Remove{Parent: inode.Root, Name: "f", Ino: f.Ino}, &wire.RemoveReply{})
	a.must(&wire.Remove{Parent: inode.Root, Name: "g", Ino: g.Ino}, &wire.RemoveReply{})
	b2, err := b.again(m, wire.Held{Ino: f.Ino, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	b2.keepAlive().getattr(f.Ino)
	eventually(t, "what it does not have open is gone", func() bool {
		return status.CodeOf(a.call(&wire.GetAttr{Ino: g.Ino}, nil)) == status.Stale
	})
	b2.getattr(f.Ino)
}
