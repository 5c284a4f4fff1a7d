package posix_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/rig"
)

// pair is one directory as two mounts show it.
type pair struct{ a, b string }

func (p pair) at(name string) (a, b string) {
	return filepath.Join(p.a, name), filepath.Join(p.b, name)
}

// TestTwoMounts: what is done on one mount is seen on the other as soon as the
// call has returned. Nothing here waits for anything to expire.
func TestTwoMounts(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 2})
	a, b := c.Mount(t), c.Mount(t)
	for name, test := range map[string]func(*testing.T, pair){
		"NamesAppear":       testNamesAppear,
		"NamesVanish":       testNamesVanish,
		"NamesInListed":     testNamesInListed,
		"NamesMove":         testNamesMove,
		"Listing":           testListing,
		"Attributes":        testAttributes,
		"Bytes":             testBytes,
		"BytesWhileOpen":    testBytesWhileOpen,
		"PingPong":          testPingPong,
		"Truncated":         testTruncatedElsewhere,
		"UnlinkedElsewhere": testUnlinkedElsewhere,
		"Xattrs":            testXattrsElsewhere,
		"Permissions":       testPermissionsElsewhere,
		"Appenders":         testAppenders,
		"SameDirectory":     testSameDirectory,
		"SamePages":         testSamePages,
		"CreateRace":        testCreateRace,
		"Flock":             testFlock,
		"RecordLocks":       testRecordLocks,
		"OFDLocks":          testOFDLocks,
		"LockCounter":       testLockCounter,
		"LockWait":          testLockWait,
		"MappedElsewhere":   testMappedElsewhere,
		"WorkingDirectory":  testWorkingDirectory,
	} {
		t.Run(name, func(t *testing.T) {
			p := pair{filepath.Join(a, name), filepath.Join(b, name)}
			must(t, os.Mkdir(p.a, 0o777))
			must(t, os.Chmod(p.a, 0o777))
			finishes(t, func() { test(t, p) })
		})
	}
}

// finishes makes a test whose mounts wait for each other fail by itself.
func finishes(t *testing.T, do func()) {
	t.Helper()
	slow := time.AfterFunc(100*time.Second, func() { panic(t.Name() + ": the mounts wait for each other") })
	defer slow.Stop()
	do()
}

func exists(t *testing.T, path string, should bool) {
	t.Helper()
	_, err := os.Lstat(path)
	if should && err != nil || !should && !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s should exist: %v, but: %v", path, should, err)
	}
}

func testNamesAppear(t *testing.T, p pair) {
	for i := range 100 {
		a, b := p.at(fmt.Sprint("name", i))
		exists(t, b, false) // this may be cached
		switch i % 4 {
		case 0:
			write(t, a, "x")
		case 1:
			must(t, os.Mkdir(a, 0o755))
		case 2:
			must(t, os.Symlink("target", a))
		case 3:
			must(t, os.Link(strings.TrimSuffix(a, fmt.Sprint(i))+fmt.Sprint(i-3), a))
		}
		exists(t, b, true)
	}
}

// The same in directories that were listed or made a moment ago, of which a
// mount knows all names and so also which there are not.
func testNamesInListed(t *testing.T, p pair) {
	for i := range 30 {
		a, b := p.at(fmt.Sprint("dir", i))
		if i%2 == 0 {
			a, b = b, a
		}
		must(t, os.Mkdir(b, 0o777))
		for j := range 4 {
			if _, err := os.ReadDir(b); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprint("name", j)
			exists(t, filepath.Join(b, name), false)
			exists(t, filepath.Join(b, "other"), false)
			write(t, filepath.Join(a, name), "")
			exists(t, filepath.Join(b, name), true)
		}
		must(t, os.RemoveAll(a))
		exists(t, b, false)
	}
}

func testNamesVanish(t *testing.T, p pair) {
	for i := range 100 {
		a, b := p.at(fmt.Sprint("name", i))
		if i%2 == 0 {
			write(t, a, "x")
		} else {
			must(t, os.Mkdir(a, 0o755))
		}
		exists(t, b, true)
		exists(t, b, true)
		must(t, os.Remove(a))
		exists(t, b, false)
		write(t, b, "again") // the name is free over there, too
		wantText(t, a, "again")
		must(t, os.Remove(b))
		exists(t, a, false)
	}
}

func testNamesMove(t *testing.T, p pair) {
	ax, bx := p.at("x")
	ay, by := p.at("y")
	for i := range 50 {
		text := fmt.Sprint("round ", i)
		write(t, ax, text)
		wantText(t, bx, text)
		exists(t, by, i > 0)
		must(t, os.Rename(ax, ay))
		exists(t, bx, false)
		wantText(t, by, text)
	}
	// A directory moves with all below it, an exchange turns two names around.
	must(t, os.MkdirAll(filepath.Join(p.a, "d/e"), 0o755))
	write(t, filepath.Join(p.a, "d/e/f"), "deep")
	wantText(t, filepath.Join(p.b, "d/e/f"), "deep")
	must(t, os.Rename(filepath.Join(p.a, "d"), filepath.Join(p.a, "g")))
	exists(t, filepath.Join(p.b, "d/e/f"), false)
	wantText(t, filepath.Join(p.b, "g/e/f"), "deep")
	write(t, ax, "X")
	wantText(t, bx, "X")
	must(t, unix.Renameat2(unix.AT_FDCWD, ax, unix.AT_FDCWD, ay, unix.RENAME_EXCHANGE))
	wantText(t, by, "X")
	wantText(t, bx, "round 49")
}

func testListing(t *testing.T, p pair) {
	list := func(dir string) string {
		entries, err := os.ReadDir(dir)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	want(t, "empty", list(p.b), "")
	for i := range 20 {
		a, _ := p.at(fmt.Sprintf("%02d", i))
		write(t, a, "")
		want(t, "after create", list(p.b), list(p.a))
		if i%3 == 0 {
			must(t, os.Remove(a))
			want(t, "after remove", list(p.b), list(p.a))
		}
	}
}

func testAttributes(t *testing.T, p pair) {
	a, b := p.at("file")
	write(t, a, "")
	for i := range 30 {
		mode := uint32(0o600 + i%8)
		must(t, unix.Chmod(a, mode))
		want(t, "mode", stat(t, b).Mode&0o7777, mode)
		must(t, os.Chown(b, i, i+1))
		want(t, "owner", stat(t, a).Uid, uint32(i))
		must(t, os.Chtimes(a, time.Unix(int64(i), 5), time.Unix(int64(i), 7)))
		want(t, "mtime", stat(t, b).Mtim, unix.Timespec{Sec: int64(i), Nsec: 7})
	}
	must(t, os.Link(a, a+"2"))
	want(t, "links", stat(t, b).Nlink, 2)
	must(t, os.Remove(b+"2"))
	want(t, "links", stat(t, a).Nlink, 1)
}

func testBytes(t *testing.T, p pair) {
	a, b := p.at("file")
	for i := range 50 {
		data := noise(uint64(i), 1+i*3000)
		must(t, os.WriteFile(a, data, 0o644))
		got, err := os.ReadFile(b)
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Fatalf("round %d: %d bytes are wrong", i, len(got))
		}
		want(t, "size", stat(t, b).Size, int64(len(data)))
	}
}

// Without any close or fsync: a write(2) that has returned is seen.
func testBytesWhileOpen(t *testing.T, p pair) {
	a, b := p.at("file")
	fa := open(t, a, os.O_RDWR|os.O_CREATE)
	fb := open(t, b, os.O_RDWR)
	buf := make([]byte, 100)
	for i := range 100 {
		text := fmt.Sprintf("round %3d", i)
		from, to := fa, fb
		if i%3 == 0 {
			from, to = fb, fa
		}
		_, err := from.WriteAt([]byte(text), int64(i*50))
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Fstat(int(to.Fd()), &st))
		want(t, "size", st.Size, int64(i*50+len(text)))
		n, err := to.ReadAt(buf, int64(i*50))
		if err != io.EOF || string(buf[:n]) != text {
			t.Fatalf("round %d: %q, %v", i, buf[:n], err)
		}
	}
}

// Both overwrite the same bytes in turn.
func testPingPong(t *testing.T, p pair) {
	a, b := p.at("file")
	fa := open(t, a, os.O_RDWR|os.O_CREATE)
	fb := open(t, b, os.O_RDWR)
	buf := make([]byte, 4)
	for i := range 200 {
		from, to := fa, fb
		if i%2 == 0 {
			from, to = fb, fa
		}
		text := fmt.Sprintf("%04d", i)
		_, err := from.WriteAt([]byte(text), 10)
		must(t, err)
		_, err = to.ReadAt(buf, 10)
		must(t, err)
		want(t, "bytes", string(buf), text)
	}
}

func testTruncatedElsewhere(t *testing.T, p pair) {
	a, b := p.at("file")
	fb := open(t, b, os.O_RDWR|os.O_CREATE)
	buf := make([]byte, 20000)
	for i := range 30 {
		_, err := fb.WriteAt(noise(1, 10000), 0)
		must(t, err)
		must(t, os.Truncate(a, int64(i*100)))
		want(t, "size", stat(t, b).Size, int64(i*100))
		n, err := fb.ReadAt(buf, 0)
		if n != i*100 || err != io.EOF {
			t.Fatalf("read %d bytes of %d, %v", n, i*100, err)
		}
		must(t, os.Truncate(a, 9000))
		n, err = fb.ReadAt(buf, 0)
		if n != 9000 || err != io.EOF || !bytes.Equal(buf[i*100:9000], make([]byte, 9000-i*100)) {
			t.Fatalf("read %d bytes, %v; or what was cut off is back", n, err)
		}
	}
}

// A file lives until the last close on any mount.
func testUnlinkedElsewhere(t *testing.T, p pair) {
	a, b := p.at("file")
	write(t, a, "keep me")
	fb := open(t, b, os.O_RDWR)
	must(t, os.Remove(a))
	exists(t, b, false)
	buf := make([]byte, 100)
	n, err := fb.ReadAt(buf, 0)
	if err != io.EOF || string(buf[:n]) != "keep me" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	_, err = fb.WriteAt([]byte(" longer"), 7)
	must(t, err)
	n, _ = fb.ReadAt(buf, 0)
	want(t, "bytes", string(buf[:n]), "keep me longer")
	var st unix.Stat_t
	must(t, unix.Fstat(int(fb.Fd()), &st))
	want(t, "links", st.Nlink, 0)

	// The same when another file takes its place.
	write(t, a, "one")
	fb = open(t, b, os.O_RDONLY)
	write(t, a+".new", "two")
	must(t, os.Rename(a+".new", a))
	wantText(t, b, "two")
	n, _ = fb.ReadAt(buf, 0)
	want(t, "bytes", string(buf[:n]), "one")
}

func testXattrsElsewhere(t *testing.T, p pair) {
	a, b := p.at("file")
	write(t, a, "")
	buf := make([]byte, 100)
	for i := range 30 {
		value := fmt.Sprint("value ", i)
		must(t, unix.Setxattr(a, "user.x", []byte(value), 0))
		n, err := unix.Getxattr(b, "user.x", buf)
		must(t, err)
		want(t, "value", string(buf[:n]), value)
		must(t, unix.Removexattr(b, "user.x"))
		_, err = unix.Getxattr(a, "user.x", buf)
		want(t, "removed", err, error(unix.ENODATA))
	}
}

// What one mount forbids, the other forbids at once, also by ACL.
func testPermissionsElsewhere(t *testing.T, p pair) {
	a, b := p.at("file")
	write(t, a, "text")
	read := func() error {
		return as(1000, 1000, func() error { _, err := os.ReadFile(b); return err })
	}
	for range 20 {
		must(t, os.Chmod(a, 0o644))
		if err := read(); err != nil {
			t.Fatalf("mode 644: %v", err)
		}
		must(t, os.Chmod(a, 0o600))
		if err := read(); !errors.Is(err, unix.EACCES) {
			t.Fatalf("mode 600: %v", err)
		}
		must(t, unix.Setxattr(a, "system.posix_acl_access", acl(
			[3]uint32{aclUserObj, 6, aclNone}, [3]uint32{aclUser, 4, 1000}, [3]uint32{aclGroupObj, 0, aclNone},
			[3]uint32{aclMask, 4, aclNone}, [3]uint32{aclOther, 0, aclNone}), 0))
		if err := read(); err != nil {
			t.Fatalf("with an ACL: %v", err)
		}
		must(t, unix.Removexattr(a, "system.posix_acl_access"))
		if err := read(); !errors.Is(err, unix.EACCES) {
			t.Fatalf("without the ACL: %v", err)
		}
	}
}

// testAppenders: eight programs on two mounts append to one file; no line is
// lost or torn, and every line is where its writer was told.
func testAppenders(t *testing.T, p pair) {
	const writers = 8
	lines := 300
	if testing.Short() {
		lines = 50
	}
	a, b := p.at("log")
	write(t, a, "")
	var all sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		path := a
		if w%2 == 1 {
			path = b
		}
		all.Go(func() {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				errs <- err
				return
			}
			defer f.Close()
			for i := range lines {
				if _, err := fmt.Fprintf(f, "writer %d line %d %s\n", w, i, strings.Repeat("x", (w*i)%90)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, path := range []string{a, b} {
		data, err := os.ReadFile(path)
		must(t, err)
		next := [writers]int{}
		for line := range strings.Lines(string(data)) {
			var w, i int
			if _, err := fmt.Sscanf(line, "writer %d line %d", &w, &i); err != nil || w < 0 || w >= writers {
				t.Fatalf("%s: torn line %q", path, line)
			}
			if line != fmt.Sprintf("writer %d line %d %s\n", w, i, strings.Repeat("x", (w*i)%90)) || i != next[w] {
				t.Fatalf("%s: writer %d: line %d where %d should be: %q", path, w, i, next[w], line)
			}
			next[w]++
		}
		for w, n := range next {
			want(t, fmt.Sprint("lines of writer ", w), n, lines)
		}
	}
}

// testSameDirectory: both make, rename and remove names in one directory at the
// same time. Their kernels' directory locks must not make them wait for each other.
func testSameDirectory(t *testing.T, p pair) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for w := range 8 {
		dir, other := p.a, p.b
		if w%2 == 1 {
			dir, other = p.b, p.a
		}
		all.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("w%d-%d", w, i)
				if err := makeMoveRemove(dir, other, name); err != nil {
					errs <- fmt.Errorf("%s: %w", name, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	entries, err := os.ReadDir(p.a)
	must(t, err)
	want(t, "entries left", len(entries), 0)
}

// makeMoveRemove makes name in dir, and looks at every step from other.
func makeMoveRemove(dir, other, name string) error {
	path, there := filepath.Join(dir, name), filepath.Join(other, name)
	for _, free := range []string{there, there + "-moved"} {
		if _, err := os.Lstat(free); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("before it was made: %v", err)
		}
	}
	if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
		return err
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != name {
		return fmt.Errorf("the other mount reads %q, %v", b, err)
	}
	if err := os.Rename(path, path+"-moved"); err != nil {
		return err
	}
	if _, err := os.Lstat(there); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("after it was moved: %v", err)
	}
	if err := os.Remove(there + "-moved"); err != nil {
		return err
	}
	if _, err := os.Lstat(path + "-moved"); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("after it was removed: %v", err)
	}
	return nil
}

// testSamePages: both write into the same pages through the page cache, each
// its own bytes, and read the other's. A page that is locked for a write must
// not make them wait for each other, and no stale page may hide a byte.
func testSamePages(t *testing.T, p pair) {
	const writers, slot = 8, 100
	rounds := 100
	if testing.Short() {
		rounds = 30
	}
	a, b := p.at("file")
	must(t, os.WriteFile(a, make([]byte, 5*4096), 0o644))
	var all sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		path := a
		if w%2 == 1 {
			path = b
		}
		all.Go(func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				errs <- err
				return
			}
			defer f.Close()
			got := make([]byte, slot)
			for i := range rounds {
				for page := range int64(5) {
					mine := bytes.Repeat([]byte{byte(w*31 + i)}, slot)
					at := page*4096 + int64(w*slot)
					if _, err := f.WriteAt(mine, at); err != nil {
						errs <- err
						return
					}
					if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, mine) {
						errs <- fmt.Errorf("writer %d round %d page %d: own bytes are %d.., want %d, %v", w, i, page, got[0], mine[0], err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, path := range []string{a, b} {
		data, err := os.ReadFile(path)
		must(t, err)
		for w := range writers {
			for page := range 5 {
				at := page*4096 + w*slot
				if !bytes.Equal(data[at:at+slot], bytes.Repeat([]byte{byte(w*31 + rounds - 1)}, slot)) {
					t.Errorf("%s: writer %d page %d: %d", path, w, page, data[at])
				}
			}
		}
	}
}

// testCreateRace: of many O_EXCL creates of one name one wins; without O_EXCL
// all get the same file, and nobody one that he may not open.
func testCreateRace(t *testing.T, p pair) {
	for i := range 50 {
		a, b := p.at(fmt.Sprint("excl", i))
		var all sync.WaitGroup
		won := make(chan string, 4)
		for w := range 4 {
			path := a
			if w%2 == 1 {
				path = b
			}
			all.Go(func() {
				if fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600); err == nil {
					unix.Close(fd)
					won <- path
				}
			})
		}
		all.Wait()
		want(t, "winners", len(won), 1)
	}
	for i := range 50 {
		a, b := p.at(fmt.Sprint("secret", i))
		var all sync.WaitGroup
		var rootErr, userErr error
		all.Go(func() { rootErr = os.WriteFile(a, []byte("secret"), 0o600) })
		all.Go(func() {
			userErr = as(1000, 1000, func() error {
				f, err := os.OpenFile(b, os.O_RDWR|os.O_CREATE, 0o666)
				if err != nil {
					return err
				}
				return f.Close()
			})
		})
		all.Wait()
		must(t, rootErr)
		if owner := stat(t, a).Uid; owner == 0 && !errors.Is(userErr, unix.EACCES) {
			t.Errorf("another user opens a file of mode 600: %v", userErr)
		} else if owner == 1000 && userErr != nil {
			t.Errorf("the file's maker: %v", userErr)
		}
	}
}

// The other mount's mapping of a file follows.
func testMappedElsewhere(t *testing.T, p pair) {
	a, b := p.at("file")
	must(t, os.WriteFile(a, make([]byte, 8192), 0o644))
	fb := open(t, b, os.O_RDWR)
	m, err := unix.Mmap(int(fb.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(m)
	fa := open(t, a, os.O_RDWR)
	buf := make([]byte, 4)
	for i := range 50 {
		text := fmt.Sprintf("%04d", i)
		_, err := fa.WriteAt([]byte(text), 5000)
		must(t, err)
		want(t, "mapped", string(m[5000:5004]), text)
		copy(m[100:], text)
		must(t, unix.Msync(m, unix.MS_SYNC))
		_, err = fa.ReadAt(buf, 100)
		must(t, err)
		want(t, "read", string(buf), text)
	}
}

// A process keeps its working directory whatever the other mount does around it.
func testWorkingDirectory(t *testing.T, p pair) {
	a, b := p.at("sub")
	must(t, os.Mkdir(a, 0o755))
	fd, err := unix.Open(b, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	for i := range 20 {
		write(t, filepath.Join(a, fmt.Sprint("f", i)), "")
		must(t, os.Chmod(a, os.FileMode(0o700+i)))
		write(t, filepath.Join(p.a, fmt.Sprint("g", i)), "")
		exists(t, filepath.Join(b, fmt.Sprint("f", i)), true)
		got, err := os.Readlink(link)
		must(t, err)
		want(t, "path", got, b)
	}
	must(t, os.Rename(a, a+"-moved"))
	exists(t, b, false)
	if _, err := os.Stat(filepath.Join(link, "f1")); err != nil {
		t.Errorf("a moved directory is lost to who works in it: %v", err)
	}
}
