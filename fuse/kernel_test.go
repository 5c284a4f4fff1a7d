package fuse

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
)

// tree is a file system of one directory with files of zeros, for watching what
// the kernel asks after a notification. It keeps the books that the Notifier
// needs, as the true file system does.
type tree struct {
	gofuse.RawFileSystem
	n       *Notifier
	server  *Server
	replies *replies

	mu    sync.Mutex
	calls map[string]int
	hold  map[string]chan struct{} // requests wait until it is closed
	held  chan string              // tells that one waits
}

const treeFile = 100 // node of every name but "dir" and "none"

func (f *tree) enter(what string) {
	f.mu.Lock()
	f.calls[what]++
	hold := f.hold[what]
	f.mu.Unlock()
	if hold != nil {
		f.held <- what
		<-hold
	}
}

func (f *tree) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[what]
}

// block makes requests of a kind wait until the returned function is called.
func (f *tree) block(what string) (release func()) {
	ch := make(chan struct{})
	f.mu.Lock()
	f.hold[what] = ch
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		delete(f.hold, what)
		f.mu.Unlock()
		close(ch)
	}
}

// awaitHeld returns when a blocked request has come.
func (f *tree) awaitHeld(t *testing.T) {
	t.Helper()
	select {
	case <-f.held:
	case <-time.After(10 * time.Second):
		t.Fatal("the kernel does not send the request")
	}
}

func (f *tree) attr(out *gofuse.Attr, node uint64) {
	a := inode.Attr{Ino: inode.Ino(node), Kind: inode.File, Mode: 0o644, Nlink: 1, Size: 1 << 20}
	if node == 1 || node == 2 {
		a.Kind, a.Mode = inode.Dir, 0o755
	}
	fillAttr(out, &a)
}

func (f *tree) entry(out *gofuse.EntryOut, node uint64, cacheable bool) {
	out.NodeId, out.Generation = node, 1
	if cacheable {
		out.SetEntryTimeout(time.Hour)
	}
	out.SetAttrTimeout(time.Hour)
	f.attr(&out.Attr, node)
}

func (f *tree) Lookup(cancel <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	f.n.dirs.beginLook(inode.Ino(h.NodeId))
	f.server.fs.context(cancel, h).Waits()
	f.enter("lookup " + name)
	cacheable := f.n.dirs.endLook(inode.Ino(h.NodeId))
	switch {
	case name == "dir":
		f.entry(out, 2, cacheable)
	case strings.HasPrefix(name, "none") && cacheable:
		out.SetEntryTimeout(time.Hour)
	case strings.HasPrefix(name, "none"):
		return gofuse.ENOENT
	default:
		f.entry(out, treeFile, cacheable)
	}
	return gofuse.OK
}

func (f *tree) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	f.n.dirs.awaitExpired(context.Background(), inode.Ino(in.NodeId), func() bool { return onlyLooks(in.Pid) })
	f.enter(fmt.Sprintf("getattr %d", in.NodeId))
	if !f.n.dirs.pending(inode.Ino(in.NodeId)) {
		out.SetTimeout(time.Hour)
	}
	f.attr(&out.Attr, in.NodeId)
	return gofuse.OK
}

func (f *tree) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	f.n.dirs.beginChange(inode.Ino(in.NodeId))
	f.enter("mkdir " + name)
	f.n.dirs.endChange(inode.Ino(in.NodeId))
	return gofuse.EACCES
}

func (f *tree) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
	f.n.inodes.open(inode.Ino(in.NodeId), true)
	return gofuse.OK
}

func (f *tree) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	o := f.n.inodes.get(inode.Ino(in.NodeId))
	io := o.beginRead(span{int64(in.Offset), int64(in.Offset) + int64(len(buf))}, func() {})
	f.enter("read")
	clear(buf)
	f.replies.await(in.Unique, io)
	return inPlace(buf), gofuse.OK
}

func (f *tree) Writev(_ <-chan struct{}, in *gofuse.WriteIn, data [][]byte) (uint32, gofuse.Status) {
	o := f.n.inodes.get(inode.Ino(in.NodeId))
	io := o.beginWrite(span{int64(in.Offset), int64(in.Offset) + int64(in.Size)})
	f.enter("write")
	io.carriedOut()
	io.answered(false)
	return in.Size, gofuse.OK
}

func (f *tree) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	if o := f.n.inodes.get(inode.Ino(in.NodeId)); o != nil {
		f.n.inodes.close(o, true)
	}
}

// needFuse skips where the kernel cannot be asked.
func needFuse(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no /dev/fuse: %v", err)
	}
	unix.Close(fd)
}

// mountTree mounts a tree. The mount is gone when the test ends.
func mountTree(t *testing.T) (*tree, string) {
	t.Helper()
	needFuse(t)
	dir := t.TempDir()
	n := NewNotifier()
	ctx, cancel := context.WithCancel(context.Background())
	fs := &fileSystem{notify: n, ctx: ctx}
	f := &tree{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(), n: n, replies: &fs.replies,
		calls: make(map[string]int), hold: make(map[string]chan struct{}), held: make(chan string, 16),
	}
	o := DefaultOptions()
	o.FSName = "varve-test"
	fd, err := mountDevice(dir, &o, maxRequest)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := newChannel(fd)
	if err != nil {
		t.Fatal(err)
	}
	reqs, err := newRequests(fd, gofuse.NewProtocolServer(f, protocol(&o, slog.Default())), fs, false,
		time.Duration(o.SpinUS)*time.Microsecond, nil, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	n.attach(ch, inode.Root, slog.Default())
	s := &Server{
		dir: dir, log: slog.Default(), fs: fs, requests: reqs, channel: ch,
		cancel: cancel, ended: make(chan struct{}),
	}
	f.server = s
	s.start(&o)
	t.Cleanup(func() {
		if err := s.Abort(); err != nil {
			t.Error(err)
		}
	})
	return f, dir
}

// cool makes a directory forget that another mount has changed it.
func (d *dirs) cool(ino inode.Ino) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.m[ino]; e != nil {
		e.hotUntil, e.ttlUntil = time.Time{}, time.Time{}
	}
}

func stat(path string) error {
	var st unix.Stat_t
	return unix.Stat(path, &st)
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

// asks says whether calling do makes the kernel send what.
func (f *tree) asks(what string, do func()) bool {
	before := f.count(what)
	do()
	return f.count(what) > before
}

func TestEntryMakesTheKernelLookAgain(t *testing.T) {
	f, dir := mountTree(t)
	for _, name := range []string{"file", "none"} {
		path := filepath.Join(dir, name)
		look := func() { stat(path) }
		look()
		if f.asks("lookup "+name, look) {
			t.Fatalf("%s: the kernel does not cache at all", name)
		}
		f.n.Entry(inode.Root, name)
		if !f.asks("lookup "+name, look) {
			t.Errorf("%s: the kernel still believes the old entry", name)
		}
		// The directory is hot now: nothing is cached until it cools down.
		if !f.asks("lookup "+name, look) {
			t.Errorf("%s: the kernel caches entries of a contended directory", name)
		}
		f.n.dirs.cool(inode.Root)
	}
	f.n.Entry(inode.Root, "never seen")
}

// Expiring the name of a directory must not take it from under the processes
// that work in it.
func TestEntryLeavesTheTreeAlone(t *testing.T) {
	f, dir := mountTree(t)
	sub := filepath.Join(dir, "dir")
	d, err := unix.Open(sub, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d)
	f.n.Entry(inode.Root, "dir")
	if err := stat(sub); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d)); err != nil || got != sub {
		t.Errorf("the directory is now called %q, %v", got, err)
	}
}

func TestAttrMakesTheKernelAskAgain(t *testing.T) {
	f, dir := mountTree(t)
	path := filepath.Join(dir, "file")
	what := fmt.Sprintf("getattr %d", treeFile)
	ask := func() { stat(path) }
	ask()
	if f.asks(what, ask) {
		t.Fatal("the kernel does not cache at all")
	}
	f.n.Attr(treeFile)
	if !f.asks(what, ask) {
		t.Error("the kernel still believes the old attributes")
	}
}

func readAt(t *testing.T, fd int, off int64) {
	t.Helper()
	if _, err := unix.Pread(fd, make([]byte, 100), off); err != nil {
		t.Error(err)
	}
}

func openFile(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestDataMakesTheKernelReadAgain(t *testing.T) {
	f, dir := mountTree(t)
	fd := openFile(t, filepath.Join(dir, "file"))
	read := func() { readAt(t, fd, 0) }
	read()
	if f.asks("read", read) {
		t.Fatal("the kernel does not cache at all")
	}
	f.n.Data(treeFile)
	if !f.asks("read", read) {
		t.Error("the kernel still believes the old bytes")
	}
	f.n.Data(inode.Ino(999)) // nobody knows it
}

// While a MKDIR is in work the kernel holds the directory's lock, and the MKDIR
// may be waiting for whoever waits for this notification. Entry does not wait,
// and yet nobody who begins to look for the name gets the old answer.
func TestEntryDoesNotWaitForAChange(t *testing.T) {
	f, dir := mountTree(t)
	for _, name := range []string{"file", "none-such"} {
		path := filepath.Join(dir, name)
		stat(path)
		release := f.block("mkdir none")
		made := make(chan error, 1)
		go func() { made <- unix.Mkdir(filepath.Join(dir, "none"), 0o755) }()
		f.awaitHeld(t)

		begin := time.Now()
		f.n.Entry(inode.Root, name)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the notification took %v", d)
		}
		before := f.count("lookup " + name)
		looked := make(chan bool)
		go func() { stat(path); close(looked) }()
		select {
		case <-looked:
			if f.count("lookup "+name) == before {
				t.Errorf("%s: the kernel still believes the old entry", name)
			}
		case <-time.After(20 * time.Millisecond):
		}
		release()
		<-made
		<-looked
		if f.count("lookup "+name) == before {
			t.Errorf("%s: the kernel still believes the old entry behind the change", name)
		}
		f.n.dirs.cool(inode.Root)
	}
}

// A WRITE to a part of a page that is not cached keeps that page locked.
func TestDataDoesNotWaitForAWrite(t *testing.T) {
	f, dir := mountTree(t)
	fd := openFile(t, filepath.Join(dir, "file"))
	const far = 900 << 10
	readAt(t, fd, far)
	release := f.block("write")
	written := make(chan error, 1)
	go func() {
		_, err := unix.Pwrite(fd, []byte("some bytes"), 10)
		written <- err
	}()
	f.awaitHeld(t)

	begin := time.Now()
	f.n.Data(treeFile)
	if d := time.Since(begin); d > time.Second {
		t.Errorf("the notification took %v", d)
	}
	if !f.asks("read", func() { readAt(t, fd, far) }) {
		t.Error("pages away from the write are still cached")
	}
	release()
	if err := <-written; err != nil {
		t.Error(err)
	}
	if !f.asks("read", func() { readAt(t, fd, 0) }) {
		t.Error("the page of the write is still cached")
	}
}

// A READ in work ends by itself; its pages are dropped before Data returns,
// because the bytes in the reply may be old.
func TestDataDropsWhatIsBeingRead(t *testing.T) {
	f, dir := mountTree(t)
	fd := openFile(t, filepath.Join(dir, "file"))
	release := f.block("read")
	done := make(chan bool)
	go func() { readAt(t, fd, 0); close(done) }()
	f.awaitHeld(t)
	f.n.Data(treeFile)
	release()
	<-done
	eventually(t, "the pages that were being read are dropped", func() bool {
		readAt(t, fd, 0)
		return f.count("read") > 1 // the reader itself may have had to read twice
	})
}

func TestStaleMount(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	o := DefaultOptions()
	o.FSName = "varve-test"
	fd, err := mountDevice(dir, &o, maxRequest)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // as when the process dies
	err = CheckMountpoint(dir, o)
	if err == nil || !strings.Contains(err.Error(), "umount -l "+dir) {
		t.Errorf("a stale mount is reported as %v", err)
	}
	if is, err := IsVarve(filepath.Join(dir, "x")); err != nil || !is {
		t.Errorf("not taken for a varve mount: %v, %v", is, err)
	}
	if err := CleanStale(dir); err != nil {
		t.Fatal(err)
	}
	if err := CheckMountpoint(dir, o); err != nil {
		t.Errorf("after cleaning: %v", err)
	}
}

// TestUnmountEndsCopies: a mount namespace that was made meanwhile has a copy of the
// mount, which keeps the connection alive. The mount ends all the same.
func TestUnmountEndsCopies(t *testing.T) {
	f, dir := mountTree(t)
	other := exec.Command("sleep", "600")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		t.Skipf("no mount namespace can be made: %v", err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	copied := fmt.Sprintf("/proc/%d/root%s/file", other.Process.Pid, dir)
	if err := stat(copied); err != nil {
		t.Fatalf("the other namespace has no copy: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- f.server.Unmount() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the mount does not end")
	}
	if err := stat(copied + "2"); err != unix.ENOTCONN { // a name that the kernel has not asked for yet
		t.Errorf("the copy: %v", err)
	}
}

func TestUnmountWaitsForTheLastClose(t *testing.T) {
	_, dir := mountTree(t)
	fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != unix.EBUSY {
		t.Errorf("unmount of an open file: %v", err)
	}
	unix.Close(fd)
}
