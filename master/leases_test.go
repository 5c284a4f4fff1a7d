package master

import (
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// cluster is a master with chunkservers 1..n.
func cluster(t *testing.T, cfg Config, n int) (*Master, []*fakeChunkd) {
	t.Helper()
	m := startMaster(t, cfg)
	var servers []*fakeChunkd
	for i := range n {
		servers = append(servers, newChunkd(t, m, chunk.Server(i+1)))
	}
	return m, servers
}

// on picks the fake server that a replica names.
func on(servers []*fakeChunkd, r wire.Replica) *fakeChunkd { return servers[r.Server-1] }

// write plays a write to all replicas.
func write(servers []*fakeChunkd, loc wire.ChunkLoc, bytes string) {
	for _, r := range loc.Replicas {
		on(servers, r).wrote(loc, bytes)
	}
}

// create makes an open file with its first chunk leased.
func (mt *mount) create(name string) (inode.Ino, wire.ChunkLoc) {
	mt.t.Helper()
	var e wire.EntryReply
	mt.must(&wire.Make{Parent: inode.Root, Name: name, What: inode.File, Mode: 0o644, Open: true, Lease: true}, &e)
	if !e.Lease || len(e.Chunks) != 1 || len(e.Chunks[0].Replicas) != 2 || e.Rights&inode.W == 0 {
		mt.t.Fatalf("create with a lease: %+v", e)
	}
	return e.Attr.Ino, e.Chunks[0]
}

// finish commits a file's size and ends the lease on its first chunk.
func (mt *mount) finish(ino inode.Ino, loc wire.ChunkLoc, size uint64) {
	mt.t.Helper()
	var r wire.CommitReply
	mt.must(&wire.Commit{Files: []wire.CommitFile{{
		Ino: ino, Size: size, Mtime: 1, Ended: []wire.LeaseEnd{{Index: loc.Index, Chunk: loc.Chunk, Version: loc.Version, Written: true}},
	}}}, &r)
	if r.Codes[0] != 0 || r.Attrs[0].Size != size {
		mt.t.Fatalf("commit: %+v", r)
	}
}

func TestCreateWriteCommitRead(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 3)
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	tok, err := wire.OpenToken(testKey, loc.Token)
	if err != nil || !tok.Write || tok.Chunk != loc.Chunk || tok.Version != loc.Version || tok.Epoch != a.session.Epoch {
		t.Fatalf("token %+v, %v", tok, err)
	}
	if loc.Replicas[0].Server == loc.Replicas[1].Server || loc.Replicas[0].Addr == "" {
		t.Fatalf("replicas %+v", loc.Replicas)
	}
	write(servers, loc, "hello")
	a.finish(ino, loc, 5)
	a.set(func() {
		a.before = func(wire.RecallItem) {
			a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: ino, Size: 5, Mtime: 1, DropW: true}}}, &wire.CommitReply{})
		}
	})
	e := b.lookup(inode.Root, "f")
	if e.Attr.Size != 5 || len(e.Chunks) != 1 || e.Chunks[0].Version != 1 || e.Chunks[0].Min != 1 || len(e.Chunks[0].Replicas) != 2 {
		t.Fatalf("lookup: %+v", e)
	}
	if tok, err := wire.OpenToken(testKey, e.Chunks[0].Token); err != nil || tok.Write {
		t.Fatalf("token to read %+v, %v", tok, err)
	}
	var lay wire.LayoutReply
	b.must(&wire.Layout{Ino: ino, First: 0, Count: 10}, &lay)
	if len(lay.Chunks) != 1 {
		t.Fatalf("layout: %+v", lay)
	}
	// The second writer gets the next version.
	b.acquire(ino, inode.W)
	var l wire.LeaseReply
	b.must(&wire.Lease{Ino: ino, Count: 2}, &l)
	if len(l.Chunks) != 2 || l.Chunks[0].Version != 2 || l.Chunks[0].Min != 1 || l.Chunks[1].Version != 1 {
		t.Fatalf("leases: %+v", l)
	}
	// Asked for again, the lease is the same, with a new token.
	var again wire.LeaseReply
	b.must(&wire.Lease{Ino: ino, Count: 1}, &again)
	if again.Chunks[0].Version != 2 || len(again.Chunks[0].Replicas) != 2 {
		t.Fatalf("renewed: %+v", again)
	}
	a.fails(&wire.Lease{Ino: ino, Count: 1}, status.NoLease)
	// Nothing was written: the versions go back, the fresh chunk is gone.
	b.must(&wire.Commit{Files: []wire.CommitFile{{Ino: ino, Size: 5, Mtime: 1, Ended: []wire.LeaseEnd{
		{Index: 0, Chunk: l.Chunks[0].Chunk, Version: 2}, {Index: 1, Chunk: l.Chunks[1].Chunk, Version: 1},
	}}}}, &wire.CommitReply{})
	b.must(&wire.Layout{Ino: ino, Count: 10}, &lay)
	if len(lay.Chunks) != 1 || lay.Chunks[0].Version != 1 || lay.Chunks[0].Min != 1 {
		t.Fatalf("layout: %+v", lay)
	}
}

func TestCommitWithoutRightIsRefused(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a := newMount(t, m).keepAlive()
	f, g := a.mkfile(inode.Root, "f"), a.mkfile(inode.Root, "g")
	a.acquire(g.Ino, inode.W)
	var r wire.CommitReply
	a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: f.Ino, Size: 1}, {Ino: g.Ino, Size: 2}}}, &r)
	if status.Code(r.Codes[0]) != status.NoLease || r.Codes[1] != 0 || r.Attrs[0].Size != 0 || r.Attrs[1].Size != 2 {
		t.Fatalf("commit: %+v", r)
	}
}

func TestLeaseFail(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 2)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "hello")
	a.finish(ino, loc, 5)
	var l wire.LeaseReply
	a.must(&wire.Lease{Ino: ino, Count: 1}, &l)
	loc = l.Chunks[0]
	bad, good := on(servers, loc.Replicas[0]), on(servers, loc.Replicas[1])
	good.wrote(loc, " world")
	fail := &wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: loc.Version, Failed: []chunk.Server{bad.id}}
	a.must(fail, &l)
	next := l.Chunks[0]
	if next.Version != loc.Version+1 || next.Min != next.Version || len(next.Replicas) != 1 || next.Replicas[0].Server != good.id {
		t.Fatalf("after the failure: %+v", next)
	}
	if c, _ := good.copyOf(loc.Chunk); c.version != next.Version {
		t.Fatalf("the surviving copy is at version %d, not %d", c.version, next.Version)
	}
	a.fails(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: loc.Version, Failed: []chunk.Server{good.id}}, status.StaleVersion)
	good.wrote(next, "!")
	a.finish(ino, next, 12)
	// Without the lease the chunk is copied again, over the stale copy.
	eventually(t, "there are two good copies", func() bool {
		c, _ := bad.copyOf(loc.Chunk)
		return c.version == next.Version
	})
}

func TestLeaseFailOfAllCopies(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 2)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	all := []chunk.Server{1, 2}
	var l wire.LeaseReply
	a.must(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: 1, Failed: all}, &l) // the master can reach them
	if len(l.Chunks[0].Replicas) != 2 || l.Chunks[0].Version != 2 {
		t.Fatalf("set %+v", l.Chunks[0])
	}
	for _, s := range servers {
		s.mu.Lock()
		s.fail = func(wire.Message) error { return status.DiskFailed }
		s.mu.Unlock()
	}
	a.fails(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: 2, Failed: all}, status.IO)
}

func TestFreshChunkThatNobodyTookGetsANewSet(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 3)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	bad := loc.Replicas[0].Server
	servers[bad-1].die()
	var l wire.LeaseReply
	a.must(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: 1, Failed: []chunk.Server{bad}}, &l)
	if len(l.Chunks[0].Replicas) != 2 || l.Chunks[0].Replicas[0].Server == bad || l.Chunks[0].Replicas[1].Server == bad {
		t.Fatalf("set %+v", l.Chunks[0].Replicas)
	}
}

func TestNoServers(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.ServerWait = 300 * time.Millisecond
	m := startMaster(t, cfg)
	a := newMount(t, m).keepAlive()
	var e wire.EntryReply
	a.must(&wire.Make{Parent: inode.Root, Name: "f", What: inode.File, Open: true, Lease: true}, &e)
	if e.Lease || e.Rights&inode.W == 0 {
		t.Fatalf("made without chunkservers: %+v", e)
	}
	a.fails(&wire.Lease{Ino: e.Attr.Ino, Count: 1}, status.NoServers)
	newChunkd(t, m, 1)
	a.must(&wire.Lease{Ino: e.Attr.Ino, Count: 1}, &wire.LeaseReply{})
}

func TestFullServers(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	s := &fakeChunkd{t: t, id: 1, copies: map[chunk.ID]*fakeCopy{}, full: true}
	s.register(m)
	a := newMount(t, m).keepAlive()
	var e wire.EntryReply
	a.must(&wire.Make{Parent: inode.Root, Name: "f", What: inode.File, Open: true}, &e)
	if err := a.call(&wire.Lease{Ino: e.Attr.Ino, Count: 1}, &wire.LeaseReply{}); err != nil && status.CodeOf(err) != status.NoSpace {
		t.Fatalf("lease on full servers: %v", err)
	}
	var fs wire.StatFSReply
	a.must(&wire.StatFS{}, &fs)
	if fs.Total != 100<<30 || fs.Free != 0 {
		t.Fatalf("statfs: %+v", fs)
	}
}

func TestReadersWaitForServersThatComeBack(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 2)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	a.finish(ino, loc, 1)
	for _, s := range servers {
		s.die()
	}
	eventually(t, "both are down", func() bool {
		st := m.Status()
		return st.Servers[0].State == "down" && st.Servers[1].State == "down"
	})
	var lay wire.LayoutReply
	done := a.start(&wire.Layout{Ino: ino, Count: 1}, &lay)
	waits(t, "layout", done)
	servers[1].register(m)
	comes(t, "layout", done)
	if len(lay.Chunks) != 1 || len(lay.Chunks[0].Replicas) != 1 {
		t.Fatalf("layout %+v", lay)
	}
}

func TestLostServerIsReplaced(t *testing.T) {
	slow(t)
	m, servers := cluster(t, testConfig(t, t.TempDir()), 3)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	a.finish(ino, loc, 1)
	third := servers[6-loc.Replicas[0].Server-loc.Replicas[1].Server-1]
	on(servers, loc.Replicas[0]).die()
	eventually(t, "the chunk is copied to the third server", func() bool {
		_, ok := third.copyOf(loc.Chunk)
		return ok
	})
	// A damaged copy is replaced, too, and the removed file's copies go.
	a.must(&wire.Remove{Parent: inode.Root, Name: "f", Ino: ino}, &wire.RemoveReply{})
	eventually(t, "the copies are removed", func() bool {
		_, ok := third.copyOf(loc.Chunk)
		_, ok2 := on(servers, loc.Replicas[1]).copyOf(loc.Chunk)
		return !ok && !ok2
	})
}

func TestTrouble(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 2)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	a.finish(ino, loc, 1)
	if err := servers[0].conn.Call(t.Context(), &wire.Trouble{Damaged: []chunk.ID{loc.Chunk}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the damaged copy is made anew", func() bool { return servers[0].ordered(wire.KindReplicate) > 0 })
	servers[1].mu.Lock()
	delete(servers[1].copies, loc.Chunk)
	servers[1].mu.Unlock()
	if err := servers[1].conn.Call(t.Context(), &wire.Trouble{Lost: []chunk.ID{loc.Chunk}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lost copy is made anew", func() bool { _, ok := servers[1].copyOf(loc.Chunk); return ok })
}

func TestWriterOfAShortChunkIsAskedToPause(t *testing.T) {
	m, servers := cluster(t, testConfig(t, t.TempDir()), 3)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	bad := loc.Replicas[0].Server
	var l wire.LeaseReply
	a.must(&wire.LeaseFail{Ino: ino, Chunk: loc.Chunk, Version: 1, Failed: []chunk.Server{bad}}, &l)
	eventually(t, "W is recalled", func() bool { return a.recalled(ino) > 0 })
}
