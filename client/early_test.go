package client

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// alone makes a directory of which the client has W, so that changes in it are early.
func alone(t *testing.T, c *Client, name string) inode.Ino {
	t.Helper()
	d := mkdir(t, c, c.Root(), name)
	eventually(t, "there are inode numbers", func() bool {
		if _, err := c.Make(bg, wire.Make{Parent: d, Name: "first", What: inode.FIFO, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(bg, d, "first", false); err != nil {
			t.Fatal(err)
		}
		c.early.mu.Lock()
		defer c.early.mu.Unlock()
		return len(c.early.numbers) > numbersLow && c.met.early.Get() > 0
	})
	return d
}

// TestFirstChangeIsEarly: already the first change in a directory that was only looked at is early, unless
// another mount is interested, which then sees the change at once.
func TestFirstChangeIsEarly(t *testing.T) {
	cl := startCluster(t, 1, false)
	a := cl.connect(nil)
	d := mkdir(t, a, a.Root(), "d")
	names := []string{"removed", "renamed", "shared"}
	for _, name := range names {
		if _, err := a.Make(bg, wire.Make{Parent: d, Name: name, What: inode.FIFO, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(bg); err != nil {
		t.Fatal(err)
	}
	look := func(c *Client) {
		list(t, c, d)
		for _, name := range names {
			if _, err := c.Lookup(bg, d, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, c := cl.connect(nil), cl.connect(nil)
	look(b)
	early := func(what string, want uint64, change func() error) {
		t.Helper()
		before := b.met.early.Get()
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := b.met.early.Get() - before; n != want {
			t.Errorf("%s: %d early changes, want %d", what, n, want)
		}
	}
	early("remove", 1, func() error { return b.Remove(bg, d, "removed", false) })
	early("rename", 1, func() error { return b.Rename(bg, d, "renamed", d, "removed", 0) })
	names = []string{"removed", "shared"}
	look(c)
	look(b)
	early("remove what another mount knows", 0, func() error { return b.Remove(bg, d, "shared", false) })
	if _, err := c.Lookup(bg, d, "shared"); !errors.Is(err, status.NotFound) {
		t.Errorf("the other mount: %v", err)
	}
}

// crash ends a client as kill -9 would: nothing is said to anybody, nothing is
// written, and the intent log stays as it is.
func crash(c *Client) {
	c.closing.Store(true)
	c.stop()
	c.early.close(false)
}

// changes does one of everything in directory d and returns what is there then.
func changes(t *testing.T, c *Client, d inode.Ino) []string {
	t.Helper()
	sub := mkdir(t, c, d, "sub")
	deep := mkdir(t, c, sub, "deep")
	for i := range 20 {
		if _, f, err := c.Create(bg, wire.Make{Parent: deep, Name: fmt.Sprint("f", i), Mode: 0o644, Uid: 5}, syscall.O_RDWR); err != nil {
			t.Fatal(err)
		} else {
			f.Close()
		}
	}
	for i := range 10 {
		if err := c.Rename(bg, deep, fmt.Sprint("f", i), sub, fmt.Sprint("g", i), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Rename(bg, sub, "g0", sub, "g1", 0); err != nil { // takes g1's name
		t.Fatal(err)
	}
	for i := 10; i < 20; i++ {
		if err := c.Remove(bg, deep, fmt.Sprint("f", i), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(bg, sub, "deep", true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Make(bg, wire.Make{Parent: sub, Name: "link", What: inode.Symlink, Target: "g2"}); err != nil {
		t.Fatal(err)
	}
	n, err := c.Lookup(bg, sub, "g2")
	if err != nil {
		t.Fatal(err)
	}
	set := wire.SetAttr{Valid: wire.SetMode | wire.SetUid | wire.SetMtime, Mode: 0o600, Uid: 7, Mtime: 12345}
	if _, err := c.SetAttr(bg, n.Attr.Ino, set); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetAttr(bg, sub, wire.SetAttr{Valid: wire.SetMode, Mode: 0o710}); err != nil {
		t.Fatal(err)
	}
	return []string{"g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9", "link"}
}

// wantChanges looks whether another client sees just what changes has left.
func wantChanges(t *testing.T, c *Client, d inode.Ino, names []string) {
	t.Helper()
	sub, err := c.Lookup(bg, d, "sub")
	if err != nil {
		t.Fatal(err)
	}
	if sub.Attr.Mode != 0o710 || sub.Attr.Nlink != 2 || sub.Attr.Size != uint64(len(names)) {
		t.Errorf("sub is %+v", sub.Attr)
	}
	if got := list(t, c, sub.Attr.Ino); !slices.Equal(got, names) {
		t.Errorf("there are %q, not %q", got, names)
	}
	g, err := c.Lookup(bg, sub.Attr.Ino, "g2")
	if err != nil || g.Attr.Mode != 0o600 || g.Attr.Uid != 7 || g.Attr.Mtime != 12345 {
		t.Errorf("g2 is %+v (%v)", g.Attr, err)
	}
}

func TestEarlyChangesAreSeen(t *testing.T) {
	cl := startCluster(t, 1, false)
	a, b := cl.connect(nil), cl.connect(nil)
	for i := range 5 {
		d := alone(t, a, fmt.Sprint("d", i))
		names := changes(t, a, d)
		wantChanges(t, b, d, names)
		wantChanges(t, a, d, names)
	}
	if n := a.met.spoilt.Get(); n != 0 {
		t.Errorf("%d early changes were refused", n)
	}
}

// TestMasterIsAway: what is known here goes on without a master, and is told
// when there is one again.
func TestMasterIsAway(t *testing.T) {
	cl := startCluster(t, 1, false)
	a := cl.connect(nil)
	d := alone(t, a, "d")
	dir, err := a.OpenDir(bg, d)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cl.stopMaster()
	names := changes(t, a, d)
	synced := make(chan error, 1)
	go func() { synced <- dir.Sync(bg) }()
	select {
	case err := <-synced:
		t.Fatalf("fsync of the directory without a master: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cl.startMaster()
	if err := <-synced; err != nil {
		t.Fatal(err)
	}
	wantChanges(t, cl.connect(nil), d, names)
}

// TestKilledMount: the next process at the mount point finishes what a killed
// one has answered, whether the master had it or not.
func TestKilledMount(t *testing.T) {
	cl := startCluster(t, 1, false)
	path := filepath.Join(t.TempDir(), "intents")
	own := func(cfg *Config) { cfg.Intents = path }
	other := cl.connect(nil)
	for i := range 4 {
		a := cl.connect(own)
		d := alone(t, a, fmt.Sprint("d", i))
		away := i%2 == 1
		if away {
			cl.stopMaster()
		}
		names := changes(t, a, d)
		crash(a)
		if away {
			cl.startMaster()
		}
		b := cl.connect(own)
		wantChanges(t, b, d, names)
		wantChanges(t, other, d, names)
		if err := b.Close(bg); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwiceMounted(t *testing.T) {
	cl := startCluster(t, 1, false)
	path := filepath.Join(t.TempDir(), "intents")
	a := cl.connect(func(cfg *Config) { cfg.Intents = path })
	b := cl.connect(func(cfg *Config) { cfg.Intents = path })
	if !a.early.wanted() || b.early.wanted() {
		t.Error("both have the intent log, or the first has not")
	}
	create(t, b, "x").Close()
	if _, err := a.Lookup(bg, a.Root(), "x"); err != nil {
		t.Error(err)
	}
}

// TestEarlyRace: two mounts change names in the same few directories; in the end
// both see the same, and nothing was refused.
func TestEarlyRace(t *testing.T) {
	cl := startCluster(t, 1, false)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	seed := rand.Uint64()
	t.Log("seed", seed)
	var dirs []inode.Ino
	for i := range 3 {
		dirs = append(dirs, alone(t, clients[i%2], fmt.Sprint("d", i)))
	}
	done := make(chan error)
	for i, c := range clients {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		go func() { done <- scuffle(c, r, dirs, 400) }()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, d := range dirs {
		x, y := list(t, clients[0], d), list(t, clients[1], d)
		if !slices.Equal(x, y) {
			t.Errorf("one sees %q, the other %q", x, y)
		}
		for _, name := range x {
			p, err := clients[0].Lookup(bg, d, name)
			q, err2 := clients[1].Lookup(bg, d, name)
			if err != nil || err2 != nil || p.Attr.Ino != q.Attr.Ino || p.Attr.Mtime != q.Attr.Mtime || p.Attr.Nlink != q.Attr.Nlink {
				t.Errorf("%s is %+v here, %+v there (%v, %v)", name, p.Attr, q.Attr, err, err2)
			}
		}
	}
	for _, c := range clients {
		if n := c.met.spoilt.Get(); n != 0 {
			t.Errorf("%d early changes were refused", n)
		}
	}
}

// scuffle changes names at random. Only errors that another mount explains are
// allowed.
func scuffle(c *Client, r *rand.Rand, dirs []inode.Ino, n int) error {
	d, name := dirs[0], ""
	for i := range n {
		if r.IntN(8) == 0 || i == 0 {
			d = dirs[r.IntN(len(dirs))]
		}
		name = fmt.Sprint("n", r.IntN(6))
		var err error
		switch r.IntN(5) {
		case 0:
			var f *File
			if _, f, err = c.Create(bg, wire.Make{Parent: d, Name: name, Mode: 0o644}, syscall.O_RDWR|syscall.O_EXCL); err == nil {
				f.Close()
			}
		case 1:
			_, err = c.Make(bg, wire.Make{Parent: d, Name: name, What: inode.Dir, Mode: 0o755})
		case 2:
			err = c.Remove(bg, d, name, r.IntN(2) == 0)
		case 3:
			err = c.Rename(bg, d, name, dirs[r.IntN(len(dirs))], fmt.Sprint("n", r.IntN(6)), uint32(r.IntN(2)))
		case 4:
			_, err = c.Lookup(bg, d, name)
		}
		switch status.CodeOf(err) {
		case status.OK, status.Exists, status.NotFound, status.IsDir, status.NotDir, status.NotEmpty:
		default:
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func TestIntentsWrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "intents")
	log, err := openIntents(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openIntents(path); !errors.Is(err, errIntentsBusy) {
		t.Errorf("opened twice: %v", err)
	}
	log.begin(9)
	name := string(bytes.Repeat([]byte("n"), 250))
	var open []int
	for i := 0; i < 3*intentRing/300; i++ {
		if !log.room() {
			t.Fatal("no room")
		}
		open = append(open, log.add(&wire.Make{Once: wire.Once{Seq: uint64(i)}, Name: name}))
		if len(open) > 1000 { // out of order
			k := rand.IntN(500)
			log.done(open[k])
			open = slices.Delete(open, k, k+1)
		}
	}
	log.close()
	if log, err = openIntents(path); err != nil {
		t.Fatal(err)
	}
	defer log.close()
	session, list, err := log.pending()
	if err != nil || session != 9 || len(list) < 1000 {
		t.Fatalf("session %d, %d changes, %v", session, len(list), err)
	}
	last := list[len(list)-1].(*wire.Make)
	if last.Seq != uint64(3*intentRing/300-1) || last.Name != name {
		t.Errorf("the last is %+v", last)
	}
}

func FuzzIntent(f *testing.F) {
	path := filepath.Join(f.TempDir(), "intents")
	log, err := openIntents(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []wire.Message{&wire.Make{Name: "a", Target: "t"}, &wire.Remove{Name: "b"}, &wire.Rename{}, &wire.SetAttr{Mode: 1}} {
		at := log.tail
		log.add(m)
		f.Add(bytes.Clone(log.ring[at:log.tail]))
	}
	log.close()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := decodeIntent(b)
		if err == nil && (n == 0 || n > uint64(len(b))+8) {
			t.Fatalf("%v of %d bytes", m, n)
		}
	})
}

// TestEarlySessionLost: when the master has ended the session, what it does not
// know is gone; fsync of the directory says so, and everything else goes on.
func TestEarlySessionLost(t *testing.T) {
	cl := startCluster(t, 1, false)
	a := cl.connect(nil)
	d := alone(t, a, "d")
	dir, err := a.OpenDir(bg, d)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cl.stopMaster()
	changes(t, a, d)
	eventually(t, "the connection is lost", func() bool {
		a.ses.mu.Lock()
		defer a.ses.mu.Unlock()
		return a.ses.conn == nil
	})
	a.ses.lost()
	cl.startMaster()
	if err := dir.Sync(bg); err == nil {
		t.Error("fsync does not tell that changes were lost")
	}
	if got := list(t, a, d); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
	wantChanges(t, cl.connect(nil), d, changes(t, a, d))
}

// TestEarlyForeignNumbers: a master that was made of a backup does not know the
// numbers that a mount got later. What was made with one is lost; what comes after
// it is not.
func TestEarlyForeignNumbers(t *testing.T) {
	cl := startCluster(t, 1, false)
	a := cl.connect(nil)
	d := alone(t, a, "d")
	a.early.mu.Lock()
	for i := range a.early.numbers {
		a.early.numbers[i] += 1 << 50
	}
	a.early.mu.Unlock()
	made := func(name string) {
		t.Helper()
		if _, err := a.Make(bg, wire.Make{Parent: d, Name: name, What: inode.FIFO, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	made("lost")
	eventually(t, "the master refuses it", func() bool { return a.met.spoilt.Get() > 0 })
	var want []string
	before := a.met.early.Get()
	eventually(t, "changes go early again", func() bool {
		want = append(want, fmt.Sprintf("kept%05d", len(want)))
		made(want[len(want)-1])
		list(t, a, d) // who knows all names of a directory may change them early
		return a.met.early.Get() > before+3
	})
	if err := a.early.drain(bg); err != nil {
		t.Fatal(err)
	}
	if got := list(t, cl.connect(nil), d); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("there is %q", got)
	}
}
