package master

import (
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// shortLease is a configuration in which a dead mount is noticed quickly.
func shortLease(t *testing.T) Config {
	cfg := testConfig(t, t.TempDir())
	cfg.SessionLease, cfg.SessionKeep = 300*time.Millisecond, 600*time.Millisecond
	return cfg
}

func TestDeadWritersChunkIsReconciled(t *testing.T) {
	slow(t)
	m, servers := cluster(t, shortLease(t), 2)
	a, b := newMount(t, m), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "both ")
	more := on(servers, loc.Replicas[1])
	more.wrote(loc, "one")
	a.conn.Close()

	// Somebody who wants to write is not kept waiting longer than the lease.
	if got := b.acquire(ino, inode.W); got&inode.W == 0 {
		t.Fatalf("acquired %v", got)
	}
	var l wire.LeaseReply
	b.must(&wire.Lease{Ino: ino, Count: 1}, &l)
	if len(l.Chunks) != 1 {
		// The chunk lay behind the end of the file: it is gone and was made anew.
		t.Fatalf("lease %+v", l)
	}
	if l.Chunks[0].Chunk == loc.Chunk {
		t.Fatalf("a chunk of which no byte was committed is still there: %+v", l.Chunks[0])
	}
}

func TestReconcileChoosesTheCopyThatHasMost(t *testing.T) {
	slow(t)
	m, servers := cluster(t, shortLease(t), 2)
	a, b := newMount(t, m), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "both ")
	a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: ino, Size: 5, Mtime: 1}}}, &wire.CommitReply{})
	more, less := on(servers, loc.Replicas[1]), on(servers, loc.Replicas[0])
	more.wrote(loc, "one")
	a.conn.Close()
	var lay wire.LayoutReply
	eventually(t, "the lease has ended at a new version", func() bool {
		b.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
		return len(lay.Chunks) == 1 && lay.Chunks[0].Version == 2 && lay.Chunks[0].Min == 2
	})
	if lay.Chunks[0].Valid != 5 {
		t.Fatalf("%d bytes count, the file has 5", lay.Chunks[0].Valid)
	}
	if c, _ := more.copyOf(loc.Chunk); c.version != 2 || c.bytes != "both one" {
		t.Fatalf("the best copy is %+v", c)
	}
	eventually(t, "the other copy is replaced", func() bool {
		c, _ := less.copyOf(loc.Chunk)
		return c.version == 2 && c.bytes == ""
	})
	if more.ordered(wire.KindReplicate) != 0 {
		t.Fatal("the best copy was overwritten")
	}
}

func TestEqualCopiesAreBothKept(t *testing.T) {
	slow(t)
	m, servers := cluster(t, shortLease(t), 2)
	a, b := newMount(t, m), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "same")
	a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: ino, Size: 4, Mtime: 1}}}, &wire.CommitReply{})
	a.conn.Close()
	var lay wire.LayoutReply
	eventually(t, "both copies are at the new version", func() bool {
		b.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
		return lay.Chunks[0].Min == 2 && len(lay.Chunks[0].Replicas) == 2
	})
	for _, s := range servers {
		if s.ordered(wire.KindReplicate) != 0 {
			t.Fatal("a good copy was replaced")
		}
	}
}

func TestReconcileWaitsForTheServersOfTheLease(t *testing.T) {
	slow(t)
	m, servers := cluster(t, shortLease(t), 2)
	a, b := newMount(t, m), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "data")
	a.finish(ino, loc, 4)
	var l wire.LeaseReply
	a.must(&wire.Lease{Ino: ino, Count: 1}, &l)
	// The write has reached only the server that goes away with it.
	holder := on(servers, l.Chunks[0].Replicas[0])
	holder.wrote(l.Chunks[0], "more")
	a.conn.Close()
	holder.die()
	eventually(t, "the session is closed", func() bool { return len(m.Status().Mounts) == 1 })
	info := func() wire.ChunkLoc {
		var lay wire.LayoutReply
		b.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
		return lay.Chunks[0]
	}
	if loc := info(); loc.Min == loc.Version {
		t.Fatalf("the lease was ended with a copy that has missed writes: %+v", loc)
	}
	holder.register(m)
	eventually(t, "the lease has ended", func() bool { loc := info(); return loc.Version == 3 && loc.Min == 3 })
	if c, _ := holder.copyOf(loc.Chunk); c.version != 3 {
		t.Fatalf("the copy that has the writes is at version %d", c.version)
	}
}

func TestWithdrawnWriterThatKeepsALease(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 2)
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "data")
	a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: ino, Size: 4, Mtime: 1, DropW: true}}}, &wire.CommitReply{})
	b.acquire(ino, inode.W)
	var l wire.LeaseReply
	b.must(&wire.Lease{Ino: ino, Count: 1}, &l)
	if l.Chunks[0].Version != 3 || l.Chunks[0].Min != 2 {
		t.Fatalf("lease behind a withdrawn writer: %+v", l.Chunks[0])
	}
	a.fails(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: 1}, status.NoLease)
}
