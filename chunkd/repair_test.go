package chunkd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func loc(id chunk.ID, v chunk.Version, from ...*Server) wire.ChunkLoc {
	l := wire.ChunkLoc{Chunk: id, Min: v, Version: v}
	for _, s := range from {
		l.Replicas = append(l.Replicas, replica(s))
	}
	return l
}

func TestReplicate(t *testing.T) {
	m := newMaster(t)
	a, b := start(t, m), start(t, m)
	u := use(t, a)
	const id = chunk.ID(31)
	u.write(wire.Write{Chunk: id, Create: true, Off: 100}, data(3<<20, 1))
	u.write(wire.Write{Chunk: id, Create: true, Off: 20 << 20}, data(777, 2))
	if err := m.order(b, &wire.Replicate{Epoch: 7, Loc: loc(id, 1, a), Version: 2}, nil); err != nil {
		t.Fatal(err)
	}
	v := use(t, b)
	v.want(id, 2, 100, data(3<<20, 1))
	v.want(id, 2, 20<<20, data(777, 2))
	v.want(id, 2, 10<<20, make([]byte, 100000))
	eventually(t, "the new copy is reported", func() bool {
		k, ok := m.reported(b, id)
		return ok && k.Version == 2 && k.Length == 20<<20+777
	})
	if err := m.order(a, &wire.SetVersion{Epoch: 7, Chunk: id, Min: 1, Max: 1, Version: 2}, nil); err != nil {
		t.Fatal(err)
	}
	da, db := digestOf(t, m, a, id), digestOf(t, m, b, id)
	da.Writes, db.Writes = 0, 0
	if !sameDigest(da, db) {
		t.Fatalf("the copies differ:\n%+v\n%+v", da, db)
	}
	// A copy replaces whatever is there, in one step.
	u.epoch = 100
	u.write(wire.Write{Chunk: id, Min: 2, Version: 3, Off: 0}, data(500, 3))
	if err := m.order(b, &wire.Replicate{Epoch: 100, Loc: loc(id, 3, a), Version: 3}, nil); err != nil {
		t.Fatal(err)
	}
	v.want(id, 3, 0, data(500, 3))
	// Refused: to a lower version, from nowhere, from a server without it, at another version.
	wantCode(t, m.order(b, &wire.Replicate{Epoch: 100, Loc: loc(id, 2, a), Version: 2}, nil), status.StaleVersion)
	wantCode(t, m.order(b, &wire.Replicate{Epoch: 100, Loc: loc(id, 3), Version: 3}, nil), status.NoChunk)
	wantCode(t, m.order(b, &wire.Replicate{Epoch: 100, Loc: loc(99, 3, a), Version: 3}, nil), status.NoChunk)
	wantCode(t, m.order(b, &wire.Replicate{Epoch: 100, Loc: loc(id, 4, a), Version: 4}, nil), status.StaleVersion)
	v.want(id, 3, 0, data(500, 3))
	if n := b.Stats().Disks[0].Chunks; n != 1 {
		t.Fatalf("%d chunks after failed copies", n)
	}
}

func TestReplicateEmpty(t *testing.T) {
	m := newMaster(t)
	a, b := start(t, m), start(t, m)
	use(t, a).write(wire.Write{Chunk: 4, Create: true, What: wire.WriteTrim}, nil)
	if err := m.order(b, &wire.Replicate{Epoch: 7, Loc: loc(4, 1, a), Version: 1}, nil); err != nil {
		t.Fatal(err)
	}
	use(t, b).want(4, 1, 0, make([]byte, 10000))
}

// TestDamage: damaged bytes are never served; reader and master learn of it, and
// a new copy heals it.
func TestDamage(t *testing.T) {
	m := newMaster(t)
	dir := t.TempDir()
	a, b := start(t, m, dir), start(t, m)
	d := data(1<<20, 5)
	for _, s := range []*Server{a, b} {
		use(t, s).write(wire.Write{Chunk: 41, Create: true, Sync: true}, d)
		use(t, s).write(wire.Write{Chunk: 42, Create: true, Sync: true}, data(1000, 6))
	}
	damage(t, dir, d[500000:500100])
	u := use(t, a)
	for range 2 {
		_, err := u.read(41, 1, 400000, 200000)
		wantCode(t, err, status.Corrupt)
	}
	u.want(41, 1, 0, d[:400000]) // the rest of it reads
	u.want(42, 1, 0, data(1000, 6))
	eventually(t, "the master is told", func() bool { _, bad := m.counts(41); return bad == 1 })
	if st := a.Stats(); st.Damaged != 1 || st.Disks[0].Damaged != 1 || st.Errors == 0 {
		t.Fatalf("stats %+v", st)
	}
	wantCode(t, m.order(a, &wire.Digest{Epoch: 7, Chunk: 41}, nil), status.Corrupt)
	// It must not spread: as a source, the damaged copy is left out.
	c := start(t, m)
	if err := m.order(c, &wire.Replicate{Epoch: 7, Loc: loc(41, 1, a, b), Version: 1}, nil); err != nil {
		t.Fatal(err)
	}
	use(t, c).want(41, 1, 0, d)
	wantCode(t, m.order(c, &wire.Replicate{Epoch: 7, Loc: loc(41, 1, a), Version: 1}, nil), status.Corrupt)
	use(t, c).want(41, 1, 0, d)
	// Healing.
	if err := m.order(a, &wire.Replicate{Epoch: 7, Loc: loc(41, 1, a, b), Version: 1}, nil); err != nil {
		t.Fatal(err)
	}
	u.want(41, 1, 0, d)
	if st := a.Stats(); st.Damaged != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// TestDamageIsToldAgain: a master that comes later learns of damage, too.
func TestDamageIsToldAgain(t *testing.T) {
	m := newMaster(t)
	dir := t.TempDir()
	s := start(t, m, dir)
	u := use(t, s)
	d := data(100000, 5)
	u.write(wire.Write{Chunk: 41, Create: true, Sync: true}, d)
	damage(t, dir, d[:100])
	_, err := u.read(41, 1, 0, 1000)
	wantCode(t, err, status.Corrupt)
	addr := m.addr()
	m.srv.Close()
	m = newMasterAt(t, addr, "cluster-1", 8)
	eventually(t, "the new master is told", func() bool { _, bad := m.counts(41); return bad > 0 })
}

func TestDelete(t *testing.T) {
	m := newMaster(t)
	dir := t.TempDir()
	s := start(t, m, dir)
	u := use(t, s)
	var order wire.Delete
	order.Epoch = 7
	for id := chunk.ID(1); id <= 50; id++ {
		u.write(wire.Write{Chunk: id, Create: true, Version: 3, Min: 3}, data(5000, uint64(id)))
		v := chunk.Version(3)
		if id%10 == 0 {
			v = 2 // the copy is newer than what may go
		}
		order.Copies = append(order.Copies, wire.Copy{Chunk: id, Version: v})
	}
	order.Copies = append(order.Copies, wire.Copy{Chunk: 1000, Version: 9}) // not here: no error
	for range 2 {
		if err := m.order(s, &order, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, m, dir)
	u = use(t, s)
	for id := chunk.ID(1); id <= 50; id++ {
		_, err := u.read(id, 3, 0, 10)
		if id%10 == 0 && err != nil {
			t.Fatalf("chunk %v is gone: %v", id, err)
		}
		if id%10 != 0 {
			wantCode(t, err, status.NoChunk)
		}
	}
	if n := s.Stats().Disks[0].Chunks; n != 5 {
		t.Fatalf("%d chunks", n)
	}
}

// TestRestart: what was durable is there again under the same identity.
func TestRestart(t *testing.T) {
	m := newMaster(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	s := start(t, m, dirs...)
	u := use(t, s)
	for id := chunk.ID(1); id <= 20; id++ {
		u.write(wire.Write{Chunk: id, Create: true, Sync: id%2 == 0}, data(10000, uint64(id)))
	}
	server := s.ID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := u.read(1, 1, 0, 10); err == nil {
		t.Fatal("a stopped server answers")
	}
	s = start(t, m, dirs[1], dirs[0])
	if s.ID() != server {
		t.Fatalf("identity %v became %v", server, s.ID())
	}
	u = use(t, s)
	for id := chunk.ID(1); id <= 20; id++ {
		u.want(id, 1, 0, data(10000, uint64(id)))
		if k, ok := m.reported(s, id); !ok || k.Length != 10000 || k.Version != 1 {
			t.Fatalf("chunk %v is reported as %+v", id, k)
		}
	}
}

// TestSeveralDisks: chunks are spread by free space, one that loses its disk is
// reported, the rest serves on.
func TestSeveralDisks(t *testing.T) {
	m := newMaster(t)
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	s := start(t, m, dirs...)
	u := use(t, s)
	const chunks = 8
	for id := chunk.ID(1); id <= chunks; id++ {
		u.write(wire.Write{Chunk: id, Create: true, Sync: true}, data(1<<20, uint64(id)))
	}
	on := map[chunk.ID]string{}
	for id := chunk.ID(1); id <= chunks; id++ {
		d, _, err := s.shelf.find(id)
		if err != nil {
			t.Fatal(err)
		}
		on[id] = d.path
	}
	for _, d := range s.Stats().Disks {
		if d.Chunks < 2 {
			t.Fatalf("disk %s has %d of %d chunks", d.Path, d.Chunks, chunks)
		}
	}
	if err := os.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all chunks of the disk are reported lost", func() bool {
		for id, dir := range on {
			if lost, _ := m.counts(id); (lost > 0) != (dir == dirs[0]) {
				return false
			}
		}
		return true
	})
	for id, dir := range on {
		if dir == dirs[0] {
			_, err := u.read(id, 1, 0, 10)
			wantCode(t, err, status.NoChunk)
		} else {
			u.want(id, 1, 0, data(1<<20, uint64(id)))
		}
	}
	u.write(wire.Write{Chunk: 100, Create: true, Sync: true}, data(5000, 100))
	eventually(t, "the beat shows the failed disk", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		failed := 0
		for _, d := range m.last[s.ID()].Disks {
			if d.Failed && d.Error != "" && d.Path == dirs[0] {
				failed++
			}
		}
		return failed == 1
	})
	if s.Ready() != nil {
		t.Fatal(s.Ready())
	}
	// A master that comes later hears only of what is there.
	addr := m.addr()
	m.srv.Close()
	m = newMasterAt(t, addr, "cluster-1", 8)
	eventually(t, "registered anew", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.whole[s.ID()] })
	for id, dir := range on {
		if _, ok := m.reported(s, id); ok != (dir != dirs[0]) {
			t.Fatalf("chunk %v on %s is reported: %t", id, dir, ok)
		}
	}
}

func TestAllDisksGone(t *testing.T) {
	m := newMaster(t)
	dir := filepath.Join(t.TempDir(), "a")
	s := start(t, m, dir)
	u := use(t, s)
	u.write(wire.Write{Chunk: 1, Create: true, Sync: true}, data(100, 1))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the chunk is reported lost", func() bool { lost, _ := m.counts(1); return lost > 0 })
	if s.Ready() == nil {
		t.Fatal("ready without a disk")
	}
	_, err := u.send(wire.Write{Chunk: 2, Create: true}, data(100, 1))
	wantCode(t, err, status.DiskFailed)
}

func TestMixedUpDisks(t *testing.T) {
	m := newMaster(t)
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := start(t, m, dir).Close(); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(want string, dirs ...string) {
		t.Helper()
		s, err := Start(testConfig(t, m, dirs...))
		if err == nil {
			s.Close()
			t.Fatalf("%v: started", dirs)
		}
		if !strings.Contains(err.Error(), want) {
			t.Fatalf("%v: %v", dirs, err)
		}
	}
	fails("belongs to chunkserver", a, b)
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(a)); err != nil {
		t.Fatal(err)
	}
	fails("is a copy of", a, copied)
	s := start(t, m, a)
	fails("in use", a)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, m, a, filepath.Join(t.TempDir(), "new")) // a further disk joins
}

// TestLostLog: when a part of the log cannot be read after a crash, every copy on
// the disk is doubtful, and the master is told so.
func TestLostLog(t *testing.T) {
	m := newMaster(t)
	dir := t.TempDir()
	s := start(t, m, dir)
	u := use(t, s)
	for id := chunk.ID(1); id <= 8; id++ {
		u.write(wire.Write{Chunk: id, Create: true, Sync: true}, data(5000, uint64(id)))
	}
	// The headers of two neighbouring frames go bad, with the server down: of one
	// alone the next would tell what it was about.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	spoilFrames(t, dir)
	s = start(t, m, dir)
	eventually(t, "all copies are told as damaged", func() bool {
		n := 0
		for id := chunk.ID(1); id <= 8; id++ {
			if _, ok := m.reported(s, id); !ok {
				n++ // it was in that frame
			} else if _, bad := m.counts(id); bad > 0 {
				n++
			}
		}
		return n == 8 && s.Stats().Damaged > 0
	})
}

// spoilFrames overwrites the headers of two frames in the middle of the container
// that has most of them.
func spoilFrames(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segments-*"))
	if err != nil {
		t.Fatal(err)
	}
	var most []int64
	var file string
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var frames []int64
		for off := 0; off < len(raw); off += chunk.Block {
			if string(raw[off:off+4]) == "VRVF" {
				frames = append(frames, int64(off))
			}
		}
		if len(frames) > len(most) {
			most, file = frames, name
		}
	}
	if len(most) < 5 {
		t.Fatalf("%d frames in the containers", len(most))
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range most[len(most)/2-1 : len(most)/2+1] {
		if _, err := f.WriteAt([]byte("no frame"), off); err != nil {
			t.Fatal(err)
		}
	}
}
