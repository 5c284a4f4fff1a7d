package client

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func mkdir(t testing.TB, c *Client, parent inode.Ino, name string) inode.Ino {
	t.Helper()
	n, err := c.Make(bg, wire.Make{Parent: parent, Name: name, What: inode.Dir, Mode: 0o755})
	if err != nil {
		t.Fatalf("mkdir %s: %v", name, err)
	}
	return n.Attr.Ino
}

// list reads a directory in steps of a few entries.
func list(t testing.TB, c *Client, dir inode.Ino) []string {
	t.Helper()
	d, err := c.OpenDir(bg, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var names []string
	cookie := uint64(0)
	for {
		k := 0
		err := d.Read(bg, cookie, func(e DirEntry) bool {
			if k == 7 {
				return false
			}
			names = append(names, e.Name)
			cookie = e.Cookie
			k++
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if k == 0 {
			sort.Strings(names)
			return names
		}
	}
}

func TestNamesAreCoherent(t *testing.T) {
	cl := startCluster(t, 1, false)
	a, b := cl.connect(nil), cl.connect(nil)
	root := a.Root()
	missing := func(c *Client, name string) {
		t.Helper()
		if _, err := c.Lookup(bg, root, name); !errors.Is(err, status.NotFound) {
			t.Fatalf("lookup %s: %v, want not found", name, err)
		}
	}
	present := func(c *Client, name string, ino inode.Ino) {
		t.Helper()
		if n, err := c.Lookup(bg, root, name); err != nil || n.Attr.Ino != ino {
			t.Fatalf("lookup %s: inode %d, %v; want %d", name, n.Attr.Ino, err, ino)
		}
	}
	for i := range 20 {
		name := fmt.Sprintf("n%d", i)
		missing(b, name)
		missing(a, name)
		f := create(t, a, name)
		f.Close()
		present(b, name, f.Ino())
		present(a, name, f.Ino())
		if err := b.Rename(bg, root, name, root, name+"x", 0); err != nil {
			t.Fatal(err)
		}
		missing(a, name)
		present(a, name+"x", f.Ino())
		if _, err := a.Link(bg, f.Ino(), root, name); err != nil {
			t.Fatal(err)
		}
		present(b, name, f.Ino())
		if got := attr(t, b, f.Ino()).Nlink; got != 2 {
			t.Fatalf("%d links", got)
		}
		if err := b.Remove(bg, root, name, false); err != nil {
			t.Fatal(err)
		}
		missing(a, name)
		if got := attr(t, a, f.Ino()).Nlink; got != 1 {
			t.Fatalf("%d links", got)
		}
		if err := a.Remove(bg, root, name+"x", false); err != nil {
			t.Fatal(err)
		}
		missing(b, name+"x")
	}
}

func TestRename(t *testing.T) {
	cl := startCluster(t, 1, false)
	a, b := cl.connect(nil), cl.connect(nil)
	root := a.Root()
	x, y := create(t, a, "x"), create(t, a, "y")
	defer x.Close()
	y.Close()
	if err := b.Rename(bg, root, "x", root, "y", wire.RenameNoReplace); !errors.Is(err, status.Exists) {
		t.Fatalf("no-replace: %v", err)
	}
	if err := b.Rename(bg, root, "x", root, "y", wire.RenameExchange); err != nil {
		t.Fatal(err)
	}
	n, err := a.Lookup(bg, root, "y")
	if err != nil || n.Attr.Ino != x.Ino() {
		t.Fatalf("exchange: %d, %v", n.Attr.Ino, err)
	}
	d := mkdir(t, a, root, "d")
	if err := a.Rename(bg, root, "y", d, "z", 0); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Lookup(bg, d, "z"); err != nil || n.Attr.Ino != x.Ino() {
		t.Fatalf("moved: %d, %v", n.Attr.Ino, err)
	}
	if err := a.Rename(bg, root, "d", d, "loop", 0); !errors.Is(err, status.Invalid) {
		t.Fatalf("into itself: %v", err)
	}
	if err := b.Remove(bg, root, "d", true); !errors.Is(err, status.NotEmpty) {
		t.Fatalf("rmdir: %v", err)
	}
}

func TestListing(t *testing.T) {
	cl := startCluster(t, 1, false)
	a, b := cl.connect(nil), cl.connect(nil)
	d := mkdir(t, a, a.Root(), "d")
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("e%03d", i))
		if _, err := a.Make(bg, wire.Make{Parent: d, Name: want[i], What: inode.FIFO, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	same := func(c *Client) {
		t.Helper()
		got := list(t, c, d)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("listing %v, want %v", got, want)
		}
	}
	same(a)
	same(b)
	eventually(t, "the listing is kept", func() bool {
		list(t, b, d)
		n := b.table.get(d)
		defer n.unpin()
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.dir.list != nil
	})
	misses := b.met.entryMiss.Get()
	same(b)
	if _, err := b.Lookup(bg, d, "nothing"); !errors.Is(err, status.NotFound) || b.met.entryMiss.Get() != misses {
		t.Errorf("a complete listing does not answer for absent names: %v", err)
	}
	if err := a.Remove(bg, d, "e050", false); err != nil {
		t.Fatal(err)
	}
	want = append(want[:50:50], want[51:]...)
	same(b)
	same(a)
	if err := b.Remove(bg, d, "e001", false); err != nil {
		t.Fatal(err)
	}
	want = append(want[:1:1], want[2:]...)
	same(b)
	same(a)
	dir, err := b.OpenDir(bg, d)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if dir.Parent() != b.Root() {
		t.Errorf("parent %d", dir.Parent())
	}
}

func TestUnlinkedWhileOpen(t *testing.T) {
	cl := startCluster(t, 2, false)
	a, b := cl.connect(nil), cl.connect(nil)
	data := pattern(10000, 1)
	f := create(t, a, "x")
	write(t, f, data, 0)
	g := open(t, b, "x")
	if err := a.Remove(bg, a.Root(), "x", false); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := read(t, g, 0, 20000); !bytes.Equal(got, data) {
		t.Fatal("an open file lost its bytes with its name")
	}
	write(t, g, data, 10000)
	if err := g.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, g, 10000, 20000); !bytes.Equal(got, data) {
		t.Fatal("an unlinked file cannot be written")
	}
	before, err := a.StatFS(bg)
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	eventually(t, "the inode goes with its last user", func() bool {
		fs, err := a.StatFS(bg)
		return err == nil && fs.Inodes == before.Inodes-1
	})
	tmp, h, err := b.Create(bg, wire.Make{Parent: b.Root(), Mode: 0o600}, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	write(t, h, data, 0)
	if _, err := b.Link(bg, tmp.Attr.Ino, b.Root(), "named"); err != nil {
		t.Fatal(err)
	}
	h.Close()
	k := open(t, a, "named")
	defer k.Close()
	if got := read(t, k, 0, 20000); !bytes.Equal(got, data) {
		t.Fatal("a file without a name lost its bytes when it got one")
	}
}

// What was written to a file that has no name any more is seen by a mount that
// still has it open, also when the writer has closed it.
func TestUnlinkedIsShared(t *testing.T) {
	cl := startCluster(t, 2, false)
	a, b := cl.connect(nil), cl.connect(nil)
	for _, openAtUnlink := range []bool{true, false} {
		f := create(t, a, "x")
		g := open(t, b, "x")
		data := pattern(10000, 1)
		write(t, f, data[:5000], 0)
		if !openAtUnlink {
			f.Close()
		}
		if err := a.Remove(bg, a.Root(), "x", false); err != nil {
			t.Fatal(err)
		}
		if openAtUnlink {
			write(t, f, data[5000:], 5000)
			f.Close()
		} else {
			data = data[:5000]
		}
		if got := read(t, g, 0, 20000); !bytes.Equal(got, data) {
			t.Fatalf("open at unlink %v: %d bytes are read, want %d", openAtUnlink, len(got), len(data))
		}
		g.Close()
	}
}

func TestOpenFlags(t *testing.T) {
	cl := startCluster(t, 2, false)
	a, b := cl.connect(nil), cl.connect(nil)
	f := create(t, a, "x")
	write(t, f, pattern(10000, 1), 0)
	f.Close()
	m := wire.Make{Parent: b.Root(), Name: "x", Mode: 0o644}
	if _, _, err := b.Create(bg, m, syscall.O_RDWR|syscall.O_EXCL); !errors.Is(err, status.Exists) {
		t.Fatalf("O_EXCL: %v", err)
	}
	n, g, err := b.Create(bg, m, syscall.O_RDWR)
	if err != nil || n.Attr.Size != 10000 {
		t.Fatalf("create of what exists: size %d, %v", n.Attr.Size, err)
	}
	g.Close()
	n, g, err = b.Create(bg, m, syscall.O_RDWR|syscall.O_TRUNC)
	if err != nil || n.Attr.Size != 0 {
		t.Fatalf("O_TRUNC: size %d, %v", n.Attr.Size, err)
	}
	g.Close()
	if got := attr(t, a, n.Attr.Ino).Size; got != 0 {
		t.Fatalf("size %d", got)
	}
	ro := cl.connect(func(c *Config) { c.ReadOnly = true })
	if _, _, err := ro.Create(bg, wire.Make{Parent: ro.Root(), Name: "y"}, syscall.O_RDWR); !errors.Is(err, status.ReadOnly) {
		t.Fatalf("read-only: %v", err)
	}
}

func TestAttributes(t *testing.T) {
	cl := startCluster(t, 2, false)
	a, b := cl.connect(nil), cl.connect(nil)
	f := create(t, a, "x")
	defer f.Close()
	ino := f.Ino()
	write(t, f, []byte("hello"), 0)
	// A time that is set must survive the commit of what was written before.
	if _, err := a.SetAttr(bg, ino, wire.SetAttr{Valid: wire.SetMtime | wire.SetMode, Mtime: 12345, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if got := attr(t, a, ino); got.Mtime != 12345 || got.Size != 5 || got.Mode != 0o600 {
		t.Fatalf("mtime %d size %d mode %o", got.Mtime, got.Size, got.Mode)
	}
	if got := attr(t, b, ino); got.Mtime != 12345 || got.Size != 5 || got.Mode != 0o600 {
		t.Fatalf("other mount: mtime %d size %d mode %o", got.Mtime, got.Size, got.Mode)
	}
	if err := a.SetXattr(bg, ino, "user.a", []byte("1"), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := b.SetXattr(bg, ino, "user.a", []byte("2"), wire.XattrCreate, false); !errors.Is(err, status.Exists) {
		t.Fatalf("create: %v", err)
	}
	for range 2 {
		if v, err := b.GetXattr(bg, ino, "user.a"); err != nil || string(v) != "1" {
			t.Fatalf("%q, %v", v, err)
		}
		if _, err := b.GetXattr(bg, ino, "user.b"); !errors.Is(err, status.NoAttr) {
			t.Fatalf("absent: %v", err)
		}
		if v, err := b.ListXattr(bg, ino); err != nil || string(v) != "user.a\x00" {
			t.Fatalf("%q, %v", v, err)
		}
	}
	if err := b.RemoveXattr(bg, ino, "user.a"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.GetXattr(bg, ino, "user.a"); !errors.Is(err, status.NoAttr) {
		t.Fatalf("removed: %v", err)
	}
	link, err := a.Make(bg, wire.Make{Parent: a.Root(), Name: "l", What: inode.Symlink, Target: "to/where"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{a, b} {
		if target, err := c.Readlink(bg, link.Attr.Ino); err != nil || string(target) != "to/where" {
			t.Fatalf("%q, %v", target, err)
		}
	}
}

func TestManyMakersInOneDirectory(t *testing.T) {
	cl := startCluster(t, 1, false)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	d := mkdir(t, clients[0], clients[0].Root(), "d")
	var wg sync.WaitGroup
	const each = 60
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := clients[w%2]
			for i := range each {
				name := fmt.Sprintf("w%d-%d", w, i)
				if _, err := c.Make(bg, wire.Make{Parent: d, Name: name, What: inode.FIFO}); err != nil {
					t.Errorf("make %s: %v", name, err)
					return
				}
				if i%3 == 0 {
					if err := c.Remove(bg, d, name, false); err != nil {
						t.Errorf("remove %s: %v", name, err)
						return
					}
				}
			}
		}()
	}
	wg.Wait()
	for _, c := range clients {
		if got := len(list(t, c, d)); got != 4*each*2/3 {
			t.Errorf("%d names, want %d", got, 4*each*2/3)
		}
	}
}

func TestLocks(t *testing.T) {
	cl := startCluster(t, 1, false)
	a, b := cl.connect(nil), cl.connect(nil)
	f := create(t, a, "x")
	defer f.Close()
	lock := wire.Lock{Ino: f.Ino(), Owner: 1, Type: wire.LockWrite, End: 99}
	if _, err := a.Lock(bg, lock); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lock(bg, lock); !errors.Is(err, status.NotWaited) {
		t.Fatalf("taken twice: %v", err)
	}
	lock.Wait = true
	ctx, cancel := contextFor(50 * time.Millisecond)
	defer cancel()
	if _, err := b.Lock(ctx, lock); !errors.Is(err, status.Interrupted) {
		t.Fatalf("withdrawn: %v", err)
	}
	got := make(chan error, 1)
	go func() { _, err := b.Lock(bg, lock); got <- err }()
	free := wire.Lock{Ino: f.Ino(), Owner: 1, Type: wire.LockFree, End: 99}
	if _, err := a.Lock(bg, free); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatalf("waited for: %v", err)
	}
}
