package fuse

import (
	"bytes"
	"encoding/hex"
	"math"
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
	if free, busy := o.gaps(4096); busy || !slices.Equal(free, []span{{}}) {
		t.Errorf("an idle inode has %v, %v", free, busy)
	}
	o.begin(span{10000, 10010})
	o.begin(span{100, 5000})
	o.begin(span{4000, 9000})
	want := []span{{off: 12288}}
	if free, busy := o.gaps(4096); !busy || !slices.Equal(free, want) {
		t.Errorf("got %v, want %v", free, want)
	}
	o.end(span{4000, 9000})
	o.end(span{100, 5000})
	want = []span{{0, 8192}, {12288, 0}}
	if free, _ := o.gaps(4096); !slices.Equal(free, want) {
		t.Errorf("got %v, want %v", free, want)
	}
	o.end(span{10000, 10010})
	if _, busy := o.gaps(4096); busy {
		t.Error("still busy")
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
	if o.own(process, 7) != nil || !o.owns(process) || o.owns(file) {
		t.Fatal("owners get mixed up")
	}
	o.own(file, 7)
	o.own(process, 8) // the process locks again through another handle
	left, freed := o.leftovers(7)
	if !slices.Equal(left, []owner{file}) {
		t.Fatalf("handle 7 leaves %v", left)
	}
	waiting := o.own(owner{id: 3, flock: true}, 9)
	if waiting == nil {
		t.Fatal("nobody tells that locks are being freed")
	}
	freed()
	<-waiting
	if !o.disown(process) || o.disown(process) {
		t.Error("a process is forgotten once")
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
	if changing, looking := d.inWork(3); !changing || looking {
		t.Error("a change is not in work")
	}
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
	x, start, twice := d.changed(3, "a")
	if x == nil || !start || twice {
		t.Fatalf("first change: %v %v %v", x, start, twice)
	}
	if _, start, _ := d.changed(3, "b"); start {
		t.Error("a second goroutine is started")
	}
	if got := d.next(3); got != x {
		t.Error("names come in another order")
	}
	if got := d.next(3); got == nil || got.name != "b" {
		t.Error("the second name is lost")
	}
	if d.next(3) != nil {
		t.Error("a name from nowhere")
	}
	d.beginLook(3)
	if d.endLook(3) {
		t.Error("an entry of a hot directory may be cached")
	}
	if !d.hot(3) || d.hot(4) {
		t.Error("the wrong directory is hot")
	}
	if _, _, twice := d.changed(3, "c"); !twice {
		t.Error("a lookup that has just ended is not reckoned with")
	}
	for d.next(3) != nil {
	}
	// Later, when all TTLs from before are over, there is nothing to expire.
	s := d.shard(3)
	s.mu.Lock()
	s.m[3].ttlUntil = time.Now().Add(-time.Second)
	s.mu.Unlock()
	if x, _, _ := d.changed(3, "d"); x != nil {
		t.Error("a name is expired that cannot be cached")
	}
}
