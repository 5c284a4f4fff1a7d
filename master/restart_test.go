package master

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestRestartKeepsEverything(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("clean=", clean), func(t *testing.T) {
			dir := t.TempDir()
			m, servers := cluster(t, testConfig(t, dir), 2)
			a := newMount(t, m).keepAlive()
			d := a.mkdir(inode.Root, "d")
			ino, loc := a.create("f")
			write(servers, loc, "data")
			a.finish(ino, loc, 4)
			a.must(&wire.SetXattr{Ino: ino, Name: "user.x", Value: []byte("v")}, &wire.AttrReply{})
			orphan, _ := a.create("gone")
			a.must(&wire.Remove{Parent: inode.Root, Name: "gone", Ino: orphan, Open: true}, &wire.RemoveReply{})
			if clean {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				dir = crashCopy(t, dir)
				kill(m)
			}

			m2 := startMaster(t, testConfig(t, dir))
			if m2.Status().Cluster != m.loop.st.Cluster() {
				t.Fatal("the cluster has another identity")
			}
			a2, err := a.again(m2, wire.Held{Ino: ino, Rights: inode.R | inode.W}, wire.Held{Ino: orphan, Open: true})
			if err != nil {
				t.Fatal(err)
			}
			a2.keepAlive()
			if len(a2.session.Kept) != 2 || a2.session.Kept[0].Rights&inode.W == 0 || a2.session.Epoch <= a.session.Epoch {
				t.Fatalf("session taken up: %+v", a2.session)
			}
			if e := a2.lookup(inode.Root, "d"); !e.Found || e.Attr.Ino != d.Ino {
				t.Fatalf("directory: %+v", e)
			}
			if e := a2.lookup(inode.Root, "f"); e.Attr.Size != 4 {
				t.Fatalf("file: %+v", e)
			}
			a2.getattr(orphan)
			servers[0].register(m2)
			servers[1].register(m2)
			var lay wire.LayoutReply
			a2.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
			if len(lay.Chunks) != 1 || len(lay.Chunks[0].Replicas) != 2 || lay.Chunks[0].Version != 1 {
				t.Fatalf("layout: %+v", lay)
			}
			if next := a2.mkdir(inode.Root, "e"); next.Ino == d.Ino {
				t.Fatal("an inode number was given twice")
			}
		})
	}
}

func TestGraceWaitsForMountsThatMayHoldRights(t *testing.T) {
	dir := t.TempDir()
	m := startMaster(t, testConfig(t, dir))
	a, b := newMount(t, m), newMount(t, m)
	f := a.mkfile(inode.Root, "f")
	a.acquire(f.Ino, inode.W)
	m.Close()

	m = startMaster(t, testConfig(t, dir))
	b, err := b.again(m)
	if err != nil {
		t.Fatal(err)
	}
	b.keepAlive()
	reply := &wire.AttrReply{}
	get := b.start(&wire.GetAttr{Ino: f.Ino}, reply)
	mk := b.start(&wire.Make{Parent: inode.Root, Name: "g", What: inode.File}, &wire.EntryReply{})
	waits(t, "getattr of what another mount may be writing", get)
	back := make(chan *mount, 1)
	a.before = func(item wire.RecallItem) {
		if item.Ino == f.Ino {
			a := <-back
			a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: f.Ino, Size: 9, Mtime: 1, DropW: true}}}, &wire.CommitReply{})
		}
	}
	a, err = a.again(m, wire.Held{Ino: f.Ino, Rights: inode.R | inode.W, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	back <- a
	a.keepAlive()
	comes(t, "getattr", get)
	comes(t, "make", mk)
	if reply.Attr.Size != 9 {
		t.Fatalf("size %d, not what the other mount had not yet told", reply.Attr.Size)
	}
}

func TestGraceEndsWithTheLease(t *testing.T) {
	slow(t)
	dir := t.TempDir()
	cfg := testConfig(t, dir)
	cfg.SessionLease = 400 * time.Millisecond
	m := startMaster(t, cfg)
	a, b := newMount(t, m), newMount(t, m)
	f := a.mkfile(inode.Root, "f")
	_ = a
	m.Close()
	m = startMaster(t, cfg)
	b, err := b.again(m)
	if err != nil {
		t.Fatal(err)
	}
	b.keepAlive()
	begun := time.Now()
	b.getattr(f.Ino) // a never comes back
	if took := time.Since(begun); took > 3*time.Second {
		t.Fatalf("a mount that did not come back held others up for %v", took)
	}
}

// A chunk that nobody has written yet is not missing after a restart; one that was, is.
func TestUnwrittenChunkIsNotMissing(t *testing.T) {
	dir := t.TempDir()
	m, servers := cluster(t, testConfig(t, dir), 3)
	a := newMount(t, m)
	unwritten, _ := a.create("unwritten")
	ino, loc := a.create("lost")
	write(servers, loc, "one ")
	a.finish(ino, loc, 4)
	kill(m)
	for _, s := range servers {
		s.mu.Lock()
		delete(s.copies, loc.Chunk)
		s.mu.Unlock()
	}

	m = startMaster(t, testConfig(t, dir))
	a, err := a.again(m, wire.Held{Ino: unwritten, Rights: inode.R | inode.W, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	a.keepAlive()
	for _, s := range servers {
		s.register(m)
	}
	var st *wire.Status
	eventually(t, "all have told their copies, one is missing", func() bool {
		st = m.Status()
		return st.Chunks.Missing == 1 && !slices.ContainsFunc(st.Servers, func(s wire.ServerStatus) bool { return s.State != "up" })
	})
	if st.Chunks.Total != 2 || st.Chunks.Leased != 1 {
		t.Errorf("%+v", st.Chunks)
	}
}

func TestLeaseOfBeforeARestartGoesOn(t *testing.T) {
	dir := t.TempDir()
	m, servers := cluster(t, testConfig(t, dir), 3)
	a := newMount(t, m)
	ino, loc := a.create("f")
	write(servers, loc, "one ")
	a.finish(ino, loc, 4)
	var l wire.LeaseReply
	a.must(&wire.Lease{Ino: ino, Count: 1}, &l)
	loc = l.Chunks[0] // version 2
	write(servers, loc, "two ")
	// A third server has a copy of before the lease: it must not get into the set.
	third := servers[6-loc.Replicas[0].Server-loc.Replicas[1].Server-1]
	third.wrote(wire.ChunkLoc{Chunk: loc.Chunk, Version: 1}, "one ")
	kill(m)

	m = startMaster(t, testConfig(t, dir))
	a, err := a.again(m, wire.Held{Ino: ino, Rights: inode.R | inode.W, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	a.keepAlive()
	done := a.start(&wire.Lease{Ino: ino, Count: 1}, &l)
	waits(t, "a lease whose copies are not known yet", done)
	for _, s := range servers {
		s.register(m)
	}
	comes(t, "lease", done)
	next := l.Chunks[0]
	if next.Version != 3 || len(next.Replicas) != 2 {
		t.Fatalf("lease: %+v", next)
	}
	for _, r := range next.Replicas {
		if r.Server == third.id {
			t.Fatalf("a copy that has missed writes is in the set: %+v", next)
		}
	}
	write(servers, next, "three")
	a.finish(ino, next, 13)
}

func TestCommitOfALeaseOfBeforeARestart(t *testing.T) {
	dir := t.TempDir()
	m, servers := cluster(t, testConfig(t, dir), 2)
	a := newMount(t, m)
	ino, loc := a.create("f")
	write(servers, loc, "data")
	kill(m)
	m = startMaster(t, testConfig(t, dir))
	a, err := a.again(m, wire.Held{Ino: ino, Rights: inode.R | inode.W})
	if err != nil {
		t.Fatal(err)
	}
	a.keepAlive()
	servers[0].register(m)
	a.finish(ino, loc, 4)
	servers[1].register(m)
	eventually(t, "both copies count", func() bool {
		var lay wire.LayoutReply
		a.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
		return len(lay.Chunks[0].Replicas) == 2 && m.Status().Chunks.UnderGoal == 0
	})
}

func TestAtMostOnce(t *testing.T) {
	dir := t.TempDir()
	m := startMaster(t, testConfig(t, dir))
	a := newMount(t, m)
	req := &wire.Make{Parent: inode.Root, Name: "f", What: inode.File, Mode: 0o600, Open: true}
	var first, second wire.EntryReply
	a.must(req, &first)
	a.must(req, &second) // the same Seq
	if second.Attr.Ino != first.Attr.Ino || !second.Found || second.Rights&inode.W == 0 {
		t.Fatalf("sent again: %+v", second)
	}
	rm := &wire.Remove{Parent: inode.Root, Name: "f", Ino: first.Attr.Ino, Open: true}
	var removed wire.RemoveReply
	a.must(rm, &removed)
	m.Close()
	m = startMaster(t, testConfig(t, dir))
	b, err := a.again(m)
	if err != nil {
		t.Fatal(err)
	}
	b.keepAlive()
	b.must(rm, &removed)
	if !removed.Orphan && removed.Attr.Ino != first.Attr.Ino {
		t.Fatalf("remove sent again behind a restart: %+v", removed)
	}
	b.fails(&wire.Remove{Parent: inode.Root, Name: "f"}, status.NotFound)
}

func TestSentAgainWhileUnderWay(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	b.lookup(inode.Root, "f")
	b.set(func() { b.hold = true })
	req := &wire.Make{Parent: inode.Root, Name: "f", What: inode.File}
	old := a.start(req, &wire.EntryReply{})
	waits(t, "make", old)
	a.conn.Close()
	a2, err := a.again(m)
	if err != nil {
		t.Fatal(err)
	}
	a2.keepAlive()
	var e wire.EntryReply
	again := a2.start(req, &e)
	waits(t, "make, sent again", again)
	b.letGo()
	comes(t, "make, sent again", again)
	if !e.Found || e.Attr.Ino != a2.lookup(inode.Root, "f").Attr.Ino {
		t.Fatalf("made %+v", e)
	}
}

// TestManyMountsAndKills lets mounts change the tree while the master is killed
// again and again: whatever was acknowledged must be there.
func TestManyMountsAndKills(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t, dir)
	cfg.ImageEntries = 50
	m := startMaster(t, cfg)
	rounds, mounts := 4, 3
	if testing.Short() {
		rounds = 2
	}
	type made struct {
		name string
		ino  inode.Ino
	}
	acked := make([][]made, mounts)
	all := make([]*mount, mounts)
	for i := range all {
		all[i] = newMount(t, m)
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for i, mt := range all {
			wg.Go(func() {
				for n := 0; ; n++ {
					name := fmt.Sprintf("r%d-m%d-%d", round, i, n)
					var e wire.EntryReply
					if mt.call(&wire.Make{Parent: inode.Root, Name: name, What: inode.File, Mode: 0o600}, &e) != nil {
						return
					}
					acked[i] = append(acked[i], made{name, e.Attr.Ino})
				}
			})
		}
		time.Sleep(100 * time.Millisecond) // the time that changes go on, not a wait for anything
		kill(m)
		wg.Wait()
		m = startMaster(t, cfg)
		for i := range all {
			next, err := all[i].again(m)
			if err != nil {
				t.Fatal(err)
			}
			all[i] = next
		}
		for i := range acked {
			for _, f := range acked[i] {
				if e := all[0].lookup(inode.Root, f.name); !e.Found || e.Attr.Ino != f.ino {
					t.Fatalf("%s was acknowledged as inode %d and is %+v", f.name, f.ino, e)
				}
			}
		}
	}
	total := 0
	for i := range acked {
		total += len(acked[i])
	}
	t.Logf("%d files in %d rounds", total, rounds)
}
