package fuse

import (
	"bytes"
	"encoding/hex"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// The expected bytes are laid out by hand from struct fuse_out_header,
// fuse_notify_inval_inode_out and fuse_notify_inval_entry_out, little-endian.
func TestEncodeNotifications(t *testing.T) {
	f := func(got []byte, want string) {
		t.Helper()
		w, err := hex.DecodeString(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, w) {
			t.Errorf("\ngot  %x\nwant %x", got, w)
		}
	}
	f(encodeInode(0x1122, -1, 0), "28000000"+"02000000"+"0000000000000000"+
		"2211000000000000"+"ffffffffffffffff"+"0000000000000000")
	f(encodeInode(5, 4096, 8192), "28000000"+"02000000"+"0000000000000000"+
		"0500000000000000"+"0010000000000000"+"0020000000000000")
	f(encodeEntry(1, "ab", expireOnly), "23000000"+"03000000"+"0000000000000000"+
		"0100000000000000"+"02000000"+"01000000"+"616200")

	if n := unsafe.Sizeof(gofuse.NotifyInvalInodeOut{}); n != 24 {
		t.Errorf("an inode notification has %d bytes", n)
	}
	if n := unsafe.Sizeof(gofuse.NotifyInvalEntryOut{}); n != 16 {
		t.Errorf("an entry notification has %d bytes before its name", n)
	}
}

func TestNodes(t *testing.T) {
	whole := nodes{root: inode.Root}
	sub := nodes{root: 77}
	if whole.node(1) != 1 || whole.node(77) != 77 || whole.ino(1) != 1 || whole.ino(77) != 77 {
		t.Error("the whole file system's numbers are not its own")
	}
	if sub.node(77) != 1 || sub.ino(1) != 77 || sub.node(78) != 78 || sub.ino(78) != 78 {
		t.Error("the root of a subdirectory mount is not node 1")
	}
}

func TestHandles(t *testing.T) {
	var tab handles
	a, b := &handle{ino: 1}, &handle{ino: 2}
	fa, fb := tab.add(a), tab.add(b)
	if fa == 0 || fa == fb || tab.get(fa) != a || tab.get(fb) != b || tab.get(0) != nil || tab.get(99) != nil {
		t.Fatal("handles get mixed up")
	}
	if tab.file(fa) != nil {
		t.Error("a handle without a file is taken for a file")
	}
	if tab.remove(fa) != a || tab.remove(fa) != nil || tab.get(fa) != nil || tab.remove(1<<40) != nil {
		t.Error("a removed handle is still there")
	}
	if got := tab.add(a); got != fa {
		t.Errorf("number %d is not used again, but %d", fa, got)
	}
	if tab.len() != 2 || len(tab.all()) != 2 {
		t.Errorf("%d handles instead of 2", tab.len())
	}
}

func TestTimes(t *testing.T) {
	for _, ns := range []int64{0, 1, -1, 1e9, -1e9, -1e9 - 1, 1767225600e9 + 999999999} {
		sec, nsec := split(ns)
		if nsec >= 1e9 || join(sec, nsec) != ns {
			t.Errorf("%d becomes %d and %d and back %d", ns, int64(sec), nsec, join(sec, nsec))
		}
	}
	if got := join(math.MaxInt64, 5); got <= 0 {
		t.Errorf("the far future becomes %d", got)
	}
	minusMost := int64(math.MinInt64)
	if got := join(uint64(minusMost), 5); got >= 0 {
		t.Errorf("the far past becomes %d", got)
	}
}

func TestDeviceNumbers(t *testing.T) {
	// As new_encode_dev makes them: minor 8+12 bits around a major of 12 bits.
	for _, d := range []struct{ dev, major, minor uint32 }{{0x0103, 1, 3}, {0x0801, 8, 1}, {0xabc00f12, 0xf, 0xabc12}} {
		if major, minor := decodeDev(d.dev); major != d.major || minor != d.minor {
			t.Errorf("%#x is %#x:%#x, want %#x:%#x", d.dev, major, minor, d.major, d.minor)
		}
	}
}

func TestSetAttrTranslation(t *testing.T) {
	var in gofuse.SetAttrIn
	in.Valid = gofuse.FATTR_MODE | gofuse.FATTR_ATIME | gofuse.FATTR_ATIME_NOW | gofuse.FATTR_MTIME | gofuse.FATTR_SIZE | gofuse.FATTR_KILL_SUIDGID | gofuse.FATTR_FH
	in.Mode, in.Size, in.Mtime, in.Mtimensec = 0o104755, 12, 7, 8
	got := setAttr(&in)
	if want := uint32(wire.SetMode | wire.SetAtimeNow | wire.SetMtime | wire.SetSize | wire.SetKill); got.Valid != want {
		t.Errorf("valid %#x, want %#x", got.Valid, want)
	}
	if got.Mode != 0o4755 || got.Size != 12 || got.Mtime != 7e9+8 {
		t.Errorf("translated to %+v", got)
	}
}

func TestXattrNames(t *testing.T) {
	for name, want := range map[string]gofuse.Status{
		"user.a": gofuse.OK, "security.capability": gofuse.OK, "trusted.x": gofuse.OK,
		"system.posix_acl_access": gofuse.OK, "system.posix_acl_default": gofuse.OK,
		"user.": gofuse.EINVAL, "user": gofuse.EINVAL, "system.nfs4_acl": notSupported, "plain": notSupported, "": notSupported,
	} {
		if got := checkXattrName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestMayOpen(t *testing.T) {
	a := inode.Attr{Kind: inode.File, Mode: 0o640, Uid: 10, Gid: 20}
	f := func(uid, flags uint32, want bool) {
		t.Helper()
		if got := mayOpen(&a, uid, flags); got != want {
			t.Errorf("uid %d flags %#o mode %o: %v", uid, flags, a.Mode, got)
		}
	}
	const rdonly, wronly, rdwr, trunc = 0, 1, 2, 0o1000
	f(0, rdwr, true)
	f(10, rdwr, true)
	f(11, rdonly, false) // the group may, others may not: for the kernel to decide
	a.Mode = 0o644
	f(11, rdonly, true)
	f(11, rdonly|trunc, false)
	f(11, wronly, false)
	a.Flags = inode.HasACL
	f(11, rdonly, false)
	a.Kind = inode.Symlink
	f(0, rdonly, false)
}

func TestGaps(t *testing.T) {
	o := &openInode{}
	if free, locked := o.gaps(4096); len(locked) > 0 || !slices.Equal(free, []span{{}}) {
		t.Errorf("an idle inode has %v, %v", free, locked)
	}
	r := o.beginRead(span{10000, 10010}, func() {})
	w := o.beginWrite(span{100, 5000}) // only its last page can be locked
	free, locked := o.gaps(4096)
	if want := []span{{0, 4096}, {12288, 0}}; !slices.Equal(free, want) {
		t.Errorf("free %v, want %v", free, want)
	}
	if want := []span{{4096, 8192}, {8192, 12288}}; !slices.Equal(locked, want) {
		t.Errorf("locked %v, want %v", locked, want)
	}
	if answers, stale := w.carriedOut(); answers != nil || stale {
		t.Error("pages were dropped by nobody")
	}
	r.arrived()
	w.answered(false)
	if _, locked := o.gaps(4096); len(locked) > 0 {
		t.Errorf("still locked: %v", locked)
	}
}

func TestReadWaitsForTheWriteBefore(t *testing.T) {
	o := &openInode{}
	w := o.beginWrite(span{0, 100})
	other := o.beginRead(span{100, 200}, func() {}) // other bytes
	other.arrived()
	began := make(chan *pageIO)
	go func() { began <- o.beginRead(span{99, 200}, func() {}) }()
	eventually(t, "the READ is noted", func() bool {
		_, locked := o.gaps(4096)
		return len(locked) == 2
	})
	select {
	case <-began:
		t.Fatal("the READ does not wait")
	default:
	}
	w.carriedOut()
	r := <-began
	r.fetching()
	if o.refetch() != nil || r.fetched() {
		t.Error("what was fetched before a drop is answered")
	}
	r.fetching()
	if !r.fetched() || !slices.Equal(o.refetch(), []*pageIO{r}) {
		t.Error("it is not on its way")
	}
}

// pageScript plays drops, READs and a WRITE against the page table.
type pageScript struct {
	o    *openInode
	read *pageIO
}

func (s *pageScript) drop() { s.o.endDrop(s.o.beginDrop(), span{0, math.MaxInt64}) }

func (s *pageScript) fetch(at span) {
	s.read = s.o.beginRead(at, func() {})
	s.read.fetching()
}

func (s *pageScript) answer(at span) {
	s.fetch(at)
	s.read.fetched()
	s.read.arrived()
}

func (s *pageScript) wrote() {
	w := s.o.beginWrite(span{0, 1})
	w.carriedOut()
	w.answered(false)
}

func TestWhatAWriteMustDrop(t *testing.T) {
	here, there := span{4096, 8192}, span{8192, 12288}
	var begun uint64
	for _, c := range []struct {
		what    string
		stale   bool
		answers int
		before  func(*pageScript)
	}{
		{"nothing", false, 0, func(s *pageScript) {}},
		{"a READ, and no drop", false, 0, func(s *pageScript) { s.answer(here) }},
		{"a drop, and no READ", false, 0, func(s *pageScript) { s.drop() }},
		{"a READ behind a drop, long ago", true, 0, func(s *pageScript) { s.drop(); s.answer(here) }},
		{"a READ of other pages", false, 0, func(s *pageScript) { s.drop(); s.answer(there) }},
		{"a READ before a drop", false, 0, func(s *pageScript) { s.answer(here); s.drop() }},
		{"a READ between drops", false, 0, func(s *pageScript) { s.drop(); s.answer(here); s.drop() }},
		{"a READ beside a drop", true, 0, func(s *pageScript) { begun = s.o.beginDrop(); s.answer(here); s.o.endDrop(begun, span{0, 1 << 20}) }},
		{"a READ before a drop of other pages", true, 0, func(s *pageScript) {
			s.drop()
			s.answer(here)
			s.o.endDrop(s.o.beginDrop(), there)
		}},
		{"a READ whose answer is on its way", false, 1, func(s *pageScript) { s.drop(); s.fetch(here); s.read.fetched() }},
		{"a READ that can fetch again", false, 0, func(s *pageScript) { s.drop(); s.fetch(here) }},
		{"a READ before the last WRITE", false, 0, func(s *pageScript) { s.drop(); s.answer(here); s.wrote() }},
		{"many READs", true, 0, func(s *pageScript) {
			s.drop()
			for i := range int64(2 * fillsKept) {
				s.answer(span{i * 4096, i*4096 + 4096})
			}
		}},
	} {
		s := &pageScript{o: &openInode{}}
		s.wrote()
		c.before(s)
		w := s.o.beginWrite(span{5000, 5100})
		answers, stale := w.carriedOut()
		if stale != c.stale || len(answers) != c.answers {
			t.Errorf("%s: stale %v, %d answers", c.what, stale, len(answers))
		}
		if s.read != nil && c.what == "a READ that can fetch again" && s.read.fetched() {
			t.Error("it does not fetch again")
		}
		if len(s.o.pages.fills) > fillsKept {
			t.Errorf("%d READs are remembered", len(s.o.pages.fills))
		}
	}
}

func TestOnceRunsAfterEachCall(t *testing.T) {
	o := &openInode{}
	entered, leave := make(chan int), make(chan bool)
	runs := 0
	run := func() { runs++; entered <- runs; <-leave }
	first := o.once(run)
	<-entered
	second := o.once(run) // while the first is in work: one more run
	third := o.once(run)  // shares it
	leave <- true
	<-first
	if n := <-entered; n != 2 {
		t.Fatalf("run %d", n)
	}
	leave <- true
	<-second
	<-third
	fourth := o.once(run)
	<-entered
	leave <- true
	<-fourth
	if runs != 3 {
		t.Errorf("%d runs instead of 3", runs)
	}
}

func TestOwners(t *testing.T) {
	o := &openInode{}
	process, file := owner{id: 1}, owner{id: 2, flock: true}
	o.own(process, 7)
	if !o.owns(process) || o.owns(file) {
		t.Fatal("owners get mixed up")
	}
	o.own(file, 7)
	o.own(process, 8) // the process locks again through another handle
	since := o.frees()
	left, freed := o.leftovers(7)
	if !slices.Equal(left, []owner{file}) {
		t.Fatalf("handle 7 leaves %v", left)
	}
	refused := owner{id: 3, flock: true}
	o.own(refused, 9)
	waited := make(chan bool)
	go func() { waited <- o.awaitFree(t.Context(), refused, since) }()
	freed()
	if !<-waited || !o.awaitFree(t.Context(), refused, since) {
		t.Error("nobody tells that locks have been freed")
	}
	if !o.disown(process) || o.disown(process) {
		t.Error("a process is forgotten once")
	}
	if o.awaitFree(t.Context(), refused, o.frees()) {
		t.Error("locks are freed that nobody has here")
	}
}

func TestInodes(t *testing.T) {
	tab := newInodes()
	a := tab.open(5, true)
	if tab.open(5, false) != a || tab.get(5) != a || tab.get(6) != nil || !a.pageCached() {
		t.Fatal("inodes get mixed up")
	}
	tab.close(a, true)
	if a.pageCached() || tab.get(5) != a {
		t.Error("the direct handle is gone, too")
	}
	tab.close(a, false)
	if tab.get(5) != nil {
		t.Error("a closed inode is remembered")
	}
}

func TestDirsForgetWhatIsOver(t *testing.T) {
	d := newDirs()
	d.beginChange(3)
	if !d.endChange(3) {
		t.Error("the entry may not be cached")
	}
	if len(d.shard(3).m) != 0 {
		t.Error("an idle directory is remembered")
	}
	d.beginLook(3)
	if !d.endLook(3) {
		t.Error("the entry may not be cached")
	}
	s := d.shard(3)
	s.mu.Lock()
	s.sweep(time.Now().Add(time.Minute))
	if len(s.m) != 0 {
		t.Error("an idle directory is remembered")
	}
	s.mu.Unlock()
}

func TestDirsBecomeHot(t *testing.T) {
	d := newDirs()
	if pending, start, later := d.changed(3, "a"); !pending || !start || later {
		t.Fatalf("first change: %v %v %v", pending, start, later)
	}
	if _, start, _ := d.changed(3, "b"); start {
		t.Error("a second goroutine is started")
	}
	if name, ok := d.next(3, 0); name != "a" || !ok || !d.pending(3) {
		t.Error("names come in another order")
	}
	if name, ok := d.next(3, 1); name != "b" || !ok || !d.pending(3) {
		t.Error("the second name is lost")
	}
	if _, ok := d.next(3, 1); ok || d.pending(3) {
		t.Error("a name from nowhere")
	}
	d.beginLook(3)
	if d.endLook(3) {
		t.Error("an entry of a hot directory may be cached")
	}
	if _, start, later := d.changed(3, "c"); !start || later {
		t.Error("a lookup in a hot directory brings nothing back")
	}
	d.next(3, 0)
	d.next(3, 1)
	// Later, when all TTLs from before are over, there is nothing to expire.
	s := d.shard(3)
	s.mu.Lock()
	s.m[3].ttlUntil = time.Now().Add(-time.Second)
	s.mu.Unlock()
	if pending, _, _ := d.changed(3, "d"); pending {
		t.Error("a name is expired that cannot be cached")
	}
}

func TestDirsExpireTwiceBehindALookup(t *testing.T) {
	d := newDirs()
	d.beginLook(3)
	d.endLook(3)
	pending, start, later := d.changed(3, "a")
	if !pending || !start || !later {
		t.Fatalf("%v %v %v", pending, start, later)
	}
	d.next(3, 0)
	if _, ok := d.next(3, 1); ok || !d.pending(3) {
		t.Error("the second expiry is not waited for")
	}
	if !d.again(3, "a") {
		t.Error("nobody carries out the second expiry")
	}
	if name, ok := d.next(3, 0); name != "a" || !ok {
		t.Error("the second expiry is lost")
	}
	if d.next(3, 1); d.pending(3) {
		t.Error("still pending")
	}
}

func TestAwaitExpired(t *testing.T) {
	d := newDirs()
	yes, no := func() bool { return true }, func() bool { return false }
	d.awaitExpired(t.Context(), 3, yes) // nothing to wait for
	waits := func(onlyLooks func() bool) <-chan bool {
		t.Helper()
		passed := make(chan bool)
		go func() { d.awaitExpired(t.Context(), 3, onlyLooks); close(passed) }()
		select {
		case <-passed:
			t.Fatal("does not wait")
		case <-time.After(10 * gatePatience):
		}
		return passed
	}
	d.beginChange(3)
	d.changed(3, "a")
	first := waits(no) // a change is in work
	d.endChange(3)
	<-first // nothing is in work: it may be in the way itself
	second := waits(yes)
	d.next(3, 0)
	d.next(3, 1)
	<-second
}

func TestLooks(t *testing.T) {
	for line, want := range map[string]bool{
		"": false, "running": false, "-1 0x7ffc 0x7f55": false,
		"332 0xffffff9c 0x7f 0x100 0xfff 0x7f 0x0 0x7ff 0x7f5":    true,  // statx
		"257 0xffffff9c 0x7f 0x80000 0x0 0x0 0x0 0x7ff 0x7f5":     true,  // openat
		"257 0xffffff9c 0x7f 0x80241 0x1a4 0x0 0x0 0x7ff 0x7f5":   false, // with O_CREAT
		"258 0xffffff9c 0x7f 0x1ed 0x0 0x0 0x0 0x7ffc 0x7f5":      false, // mkdirat
		"2 0x7f00 0x0 0x0 0x0 0x0 0x0 0x7ff 0x7f5":                true,  // open
		"2 0x7f00 0x41 0x1ff 0x0 0x0 0x0 0x7ff 0x7f5":             false, // with O_CREAT
		"xyz 0xffffff9c 0x7f 0x80241 0x1a4 0x0 0x0 0x7ffc11 0x7f": false,
	} {
		if got := looks(line); got != want && runtime.GOARCH == "amd64" {
			t.Errorf("%q: %v", line, got)
		}
	}
}
