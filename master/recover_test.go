package master

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// TestOlderThanChunkservers: a master whose directory is an older state than what a
// chunkserver has obeyed says which epoch it needs, and gets it by Recover.
func TestOlderThanChunkservers(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	m := startMaster(t, cfg)
	reg := &wire.Register{Server: 1, Addr: "127.0.0.1:1", Epoch: 4000}
	register := func() error {
		conn, err := link.Dial(context.Background(), "tcp", m.ServerAddr().String(), link.Config{Key: testKey, Role: wire.RoleChunkd, Want: wire.RoleMaster}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		var reply wire.RegisterReply
		return conn.Call(context.Background(), reg, nil, &reply)
	}
	for range 2 {
		if err := register(); !errors.Is(err, status.OldEpoch) || !strings.Contains(err.Error(), "--epoch 4000") {
			t.Fatal(err)
		}
	}
	if all := strings.Join(m.Status().Problems, "\n"); !strings.Contains(all, "varve master recover --dir "+cfg.Dir+" --epoch 4000 --yes") {
		t.Errorf("the status does not say what to do:\n%s", all)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Recover(cfg.Dir, 0, 4000, cfg.Log); err != nil || s.NewTerm != 4001 {
		t.Fatalf("%+v, %v", s, err)
	}
	m = startMaster(t, cfg)
	if err := register(); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(m.Status().Problems, "\n"); strings.Contains(all, "refused") {
		t.Errorf("still a problem:\n%s", all)
	}
}

// TestRecoverYoungMetalogger: a metalogger that has fetched no image yet has all of
// the changelog, from which a master starts.
func TestRecoverYoungMetalogger(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	a := newMount(t, lead).keepAlive()
	a.mkfile(inode.Root, "f")
	want := lead.log.Status().Commit
	eventually(t, "the metalogger has it", func() bool { return c.logger.Log().Status().Commit >= want })
	if err := c.logger.Close(); err != nil {
		t.Fatal(err)
	}
	c.logger = nil
	if list, err := filepath.Glob(filepath.Join(c.dirs[3], "image.*")); err != nil || len(list) > 0 {
		t.Fatalf("%v, %v: it has an image", list, err)
	}
	dir := t.TempDir()
	if err := copyTree(c.dirs[3], dir); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, dir)
	if s, err := Survey(dir, 0, 0, cfg.Log); err != nil || s.ID != 3 || s.Last < want {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := Recover(dir, 0, 0, cfg.Log); err != nil {
		t.Fatal(err)
	}
	cfg.ID = 3
	b, err := a.again(startMaster(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	if e := b.lookup(inode.Root, "f"); !e.Found {
		t.Error("f is not in what was recovered")
	}
	if _, err := Recover(t.TempDir(), 0, 0, cfg.Log); err == nil {
		t.Error("an empty directory was recovered")
	}
}

// rewrite opens a file's first chunk for writing again.
func (mt *mount) rewrite(ino inode.Ino) wire.ChunkLoc {
	mt.t.Helper()
	mt.acquire(ino, inode.W)
	var r wire.LeaseReply
	mt.must(&wire.Lease{Ino: ino, First: 0, Count: 1}, &r)
	if len(r.Chunks) != 1 {
		mt.t.Fatalf("%+v", r)
	}
	return r.Chunks[0]
}

// TestRecoverGivesNoNumberAgain: a backup gives no number that the history which it
// replaces has given: chunkservers have bytes under them, and mounts files. What that
// history has written of a file that the backup has is not lost.
func TestRecoverGivesNoNumberAgain(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	m, servers := cluster(t, cfg, 2)
	a := newMount(t, m).keepAlive()
	kept, loc := a.create("kept")
	write(servers, loc, "kept")
	a.finish(kept, loc, 4)
	backup := crashCopy(t, cfg.Dir)
	newer := a.rewrite(kept) // a grant that the backup does not know raises the version
	write(servers, newer, "newer")
	a.finish(kept, newer, 5)
	lost, lostLoc := a.create("lost")
	write(servers, lostLoc, "lost")
	a.finish(lost, lostLoc, 4)
	late := newMount(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(backup, 0, 0, cfg.Log); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = backup
	m = startMaster(t, cfg)
	for _, s := range servers {
		s.register(m)
	}
	if _, err := late.again(m); status.CodeOf(err) != status.Stale {
		t.Errorf("a session that was lost: %v", err)
	}
	b := newMount(t, m).keepAlive()
	if e := b.lookup(inode.Root, "kept"); !e.Found || e.Attr.Ino != kept {
		t.Errorf("what was in the backup: %+v", e)
	}
	var lay wire.LayoutReply
	b.must(&wire.Layout{Ino: kept, First: 0, Count: 1}, &lay)
	if len(lay.Chunks) != 1 || len(lay.Chunks[0].Replicas) != 2 || lay.Chunks[0].Version <= newer.Version {
		t.Errorf("the chunk with newer copies cannot be read: %+v", lay.Chunks)
	}
	ino, loc := b.create("new")
	if ino == lost || loc.Chunk == lostLoc.Chunk || b.session.Session == late.session.Session {
		t.Errorf("inode %d, chunk %v, session %d were given to inode %d, chunk %v, session %d before",
			ino, loc.Chunk, b.session.Session, lost, lostLoc.Chunk, late.session.Session)
	}
	write(servers, loc, "new") // which a chunkserver with the lost chunk of that number would refuse
	b.finish(ino, loc, 3)
	// It is done once.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = startMaster(t, cfg)
	next := newMount(t, m).session.Session
	if next-b.session.Session > 10 {
		t.Errorf("session %d follows %d after a restart", next, b.session.Session)
	}
}
