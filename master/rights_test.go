package master

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

func TestChangesRecallNames(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	if e := b.lookup(inode.Root, "new"); e.Found || e.DirRights&inode.D == 0 {
		t.Fatalf("lookup: %+v", e)
	}
	b.set(func() { b.hold = true })
	done := a.start(&wire.Make{Parent: inode.Root, Name: "new", What: inode.File}, &wire.EntryReply{})
	waits(t, "a change of a name that another mount may know", done)
	// Others are answered meanwhile, from the old state and without the right to keep it.
	if e := b.lookup(inode.Root, "new"); e.Found || e.DirRights&inode.D != 0 {
		t.Fatalf("lookup during the recall: %+v", e)
	}
	if e := b.lookup(inode.Root, "other"); e.DirRights&inode.D == 0 {
		t.Fatalf("another name lost D: %+v", e)
	}
	b.set(func() {
		if len(b.recalls) != 1 || len(b.recalls[0].Names) != 1 || b.recalls[0].Names[0] != "new" {
			t.Errorf("recalls: %+v", b.recalls)
		}
	})
	b.letGo()
	comes(t, "make", done)
	if e := b.lookup(inode.Root, "new"); !e.Found || e.DirRights&inode.D == 0 {
		t.Fatalf("lookup after it: %+v", e)
	}
}

func TestCrowdedDirectoryIsNotRecalledByName(t *testing.T) {
	slow(t)
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	a.lookup(inode.Root, "x")
	b.lookup(inode.Root, "x")
	for i := range 20 {
		a.mkfile(inode.Root, fmt.Sprint("a", i))
		b.mkfile(inode.Root, fmt.Sprint("b", i))
	}
	if n := a.recalled(inode.Root) + b.recalled(inode.Root); n > 6 {
		t.Fatalf("%d recalls while two mounts make 40 names", n)
	}
	if e := a.lookup(inode.Root, "b3"); !e.Found || e.DirRights&inode.D != 0 {
		t.Fatalf("lookup in a crowded directory: %+v", e)
	}
	eventually(t, "D is granted again", func() bool { return a.lookup(inode.Root, "b3").DirRights&inode.D != 0 })
}

func TestAttributeChangesRecallR(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b, c := newMount(t, m).keepAlive(), newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.set(func() { b.hold = true })
	done := a.start(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode, Mode: 0o777}, &wire.AttrReply{})
	waits(t, "chmod", done)
	if r := c.getattr(f.Ino); r.Rights != 0 || r.Attr.Mode != 0o644 {
		t.Fatalf("getattr during the recall: %+v", r)
	}
	b.letGo()
	comes(t, "chmod", done)
	if r := b.getattr(f.Ino); r.Rights != inode.R || r.Attr.Mode != 0o777 {
		t.Fatalf("getattr after it: %+v", r)
	}
	// A mount's own rights are not recalled.
	a.set(func() { a.recalls = nil })
	var r wire.AttrReply
	a.must(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode, Mode: 0o700}, &r)
	if r.Rights&inode.R == 0 || a.recalled(f.Ino) != 0 {
		t.Fatalf("own change: %+v, %d recalls", r, a.recalled(f.Ino))
	}
}

func TestWriterIsAskedBeforeReaders(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	if got := a.acquire(f.Ino, inode.W); got&inode.W == 0 {
		t.Fatalf("acquired %v", got)
	}
	a.set(func() {
		a.before = func(item wire.RecallItem) {
			if item.Keep&inode.R == 0 {
				t.Errorf("a reader takes R, too: %+v", item)
			}
			a.must(&wire.Commit{Files: []wire.CommitFile{{Ino: f.Ino, Size: 42, Mtime: 7, DropW: true}}}, &wire.CommitReply{})
		}
	})
	if r := b.getattr(f.Ino); r.Attr.Size != 42 || r.Rights != inode.R {
		t.Fatalf("getattr behind a writer: %+v", r)
	}
	a.set(func() { a.before = nil })
	if got := b.acquire(f.Ino, inode.W); got&inode.W == 0 {
		t.Fatalf("b acquired %v", got)
	}
	if e := a.lookup(inode.Root, "f"); e.Attr.Size != 42 || e.Rights&inode.R == 0 {
		t.Fatalf("lookup behind a writer: %+v", e)
	}
	if got := b.acquire(f.Ino, inode.W); got&inode.W == 0 {
		t.Fatalf("b acquired %v", got)
	}
	var l wire.ReadDirReply
	a.must(&wire.ReadDir{Ino: inode.Root, Max: 10}, &l)
	if b.recalled(f.Ino) != 2 || l.Entries[0].Rights&inode.R == 0 {
		t.Fatalf("%d recalls of the writer, listing %+v", b.recalled(f.Ino), l)
	}
}

func TestTwoWritersTakeTurns(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	done := make(chan int, 2)
	for _, mt := range []*mount{a, b} {
		go func() {
			got := 0
			for end := time.Now().Add(10 * time.Second); got < 50 && time.Now().Before(end); {
				var r wire.AttrReply
				if mt.call(&wire.Acquire{Ino: f.Ino, Rights: inode.W}, &r) == nil && r.Rights&inode.W != 0 {
					got++
				}
			}
			done <- got
		}()
	}
	if x, y := <-done, <-done; x < 50 || y < 50 {
		t.Fatalf("W was had %d and %d times", x, y)
	}
}

func TestAcquireIsAnsweredWhenItsMountIsAsked(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b, c := newMount(t, m).keepAlive(), newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	c.getattr(f.Ino)
	c.set(func() { c.hold = true })
	b.set(func() { b.hold = true })
	write := a.start(&wire.Acquire{Ino: f.Ino, Rights: inode.W}, &wire.AttrReply{})
	eventually(t, "b is asked", func() bool { return b.recalled(f.Ino) == 1 })
	var r wire.AttrReply
	b.must(&wire.Acquire{Ino: f.Ino, Rights: inode.W}, &r) // at once, before its answer
	if r.Rights != 0 {
		t.Fatalf("b holds %v while it is asked for everything", r.Rights)
	}
	waits(t, "a's acquire", write)
	b.letGo()
	c.letGo()
	comes(t, "a's acquire", write)
}

func TestExpiredSessionBlocksNobodyForLong(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.SessionLease = 300 * time.Millisecond
	m := startMaster(t, cfg)
	a, b := newMount(t, m).keepAlive(), newMount(t, m) // b never pings
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.lookup(inode.Root, "f")
	b.set(func() { b.hold = true })
	begun := time.Now()
	var r wire.AttrReply
	a.must(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode, Mode: 0o600}, &r)
	if took := time.Since(begun); took < 200*time.Millisecond || took > 3*time.Second {
		t.Fatalf("a silent mount held a change up for %v", took)
	}
	<-b.conn.Done()
	b2, err := b.again(m, wire.Held{Ino: f.Ino, Rights: inode.R | inode.W, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(b2.session.Kept) != 1 || b2.session.Kept[0].Rights != 0 {
		t.Fatalf("kept %+v after its rights were taken", b2.session.Kept)
	}
}

// A mount that lives may take as long as it needs to give a file back: it may be
// waiting for a chunkserver.
func TestLivingMountIsNeverExpelled(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.RecallLimit = 100 * time.Millisecond
	m := startMaster(t, cfg)
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.set(func() { b.hold = true })
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.must(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode, Mode: 0o600}, &wire.AttrReply{})
	}()
	select {
	case <-done:
		t.Fatal("the change did not wait for the mount")
	case <-b.conn.Done():
		t.Fatal("the mount was thrown out")
	case <-time.After(2 * cfg.SessionLease):
	}
	b.conn.Close() // now it dies
	<-done
}

func TestTooManyRightsAreTrimmed(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.RightsLimit = 50
	m := startMaster(t, cfg)
	a := newMount(t, m).keepAlive()
	for i := range 200 {
		a.mkfile(inode.Root, fmt.Sprint("f", i))
	}
	eventually(t, "the oldest rights are recalled", func() bool {
		s := m.Status()
		return len(s.Mounts) == 1 && s.Mounts[0].Rights <= 50
	})
}

func TestRelease(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	f := a.mkfile(inode.Root, "f")
	b.getattr(f.Ino)
	b.must(&wire.Release{Rights: []wire.Held{{Ino: f.Ino, Rights: inode.R}}}, nil)
	a.must(&wire.SetAttr{Ino: f.Ino, Valid: wire.SetMode, Mode: 0o600}, &wire.AttrReply{})
	if n := b.recalled(f.Ino); n != 0 {
		t.Fatalf("%d recalls of a released right", n)
	}
}

// TestDirectoryIsHadAlone: W with D on a directory comes when no other mount is interested, and recalls nothing.
func TestDirectoryIsHadAlone(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	const all = inode.R | inode.D | inode.W
	d := a.mkdir(inode.Root, "d").Ino
	letGo := func() { a.must(&wire.Release{Rights: []wire.Held{{Ino: d, Rights: all}}}, nil) }
	if got := b.acquire(d, all); got&inode.W != 0 || a.recalled(d) != 0 {
		t.Fatalf("beside another mount: %v, %d recalls", got, a.recalled(d))
	}
	b.getattr(d)
	letGo()
	if got := a.acquire(d, all); got&inode.W != 0 {
		t.Fatalf("the other way round: %v", got)
	}
	letGo()
	if got := b.acquire(d, all); got != all {
		t.Fatalf("alone: %v", got)
	}
	if e := a.lookup(d, "x"); e.Found || b.recalled(d) != 1 {
		t.Fatalf("lookup: %+v, %d recalls", e, b.recalled(d))
	}
}

// TestAnswerBehindTheEnd: a recall is answered, and before the answer is served another master leads. Who has
// waited for it does not go on.
func TestAnswerBehindTheEnd(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	a, b := newMount(t, m).keepAlive(), newMount(t, m).keepAlive()
	a.lookup(inode.Root, "f")
	a.set(func() { a.hold = true })
	b.start(&wire.Make{Parent: inode.Root, Name: "f", What: inode.File, Mode: 0o644, Open: true, Lease: true}, &wire.EntryReply{})
	goOn := make(chan int)
	eventually(t, "the recall is sent", func() bool {
		m.in.post(func(l *loop) {
			for _, s := range l.sessions {
				if conn, list := s.conn, s.recalls[inode.Root]; len(list) > 0 && !list[0].sent.IsZero() {
					l.depose()
					l.recalled(s, conn, slices.Clone(list), nil, nil)
					goOn <- len(l.soon)
					return
				}
			}
			goOn <- -1
		})
		n := <-goOn
		if n > 0 {
			t.Errorf("%d go on", n)
		}
		return n >= 0
	})
}
