package raw_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/enginetest"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/engine/raw"
	"github.com/varvefs/varve/engine/sim"
)

const deviceSize = 64 << 20

// place is a device, or a file in the place of one.
type place struct{ path, backend string }

func (p place) Open(t testing.TB) engine.Disk {
	t.Helper()
	d, err := open.Open(p.path, p.backend, nil)
	must(t, err)
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes an empty file that stands for a device.
func image(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

// loop makes a block device of an empty file, with old data everywhere but in its first MiB.
func loop(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a loop device needs root")
	}
	path := image(t, deviceSize)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("old data"), (deviceSize-4<<20)/8), 3<<20)
	must(t, errors.Join(err, f.Close()))
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device to be had: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

func TestSuiteFile(t *testing.T) {
	for _, backend := range []string{open.POSIX, open.Auto} {
		t.Run(backend, func(t *testing.T) {
			enginetest.Run(t, func(t testing.TB) enginetest.Place { return place{image(t, deviceSize), backend} })
		})
	}
}

// TestSuiteLoop runs the suite on a block device of the kernel.
func TestSuiteLoop(t *testing.T) {
	enginetest.Run(t, func(t testing.TB) enginetest.Place { return place{loop(t), open.Auto} })
}

// TestExclusive: nobody else gets a device that is open.
func TestExclusive(t *testing.T) {
	for _, path := range []string{image(t, deviceSize), loop(t)} {
		d := place{path, open.POSIX}.Open(t)
		if _, err := open.Open(path, open.POSIX, nil); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s was opened twice: %v", path, err)
		}
		must(t, d.Close())
	}
}

// TestForeign: what is not ours and not empty is refused, and is as it was afterwards.
func TestForeign(t *testing.T) {
	for _, c := range []struct {
		off  int64
		mark string
		want string
	}{
		{0x438, "\x53\xef", "ext4"}, {0, "XFSB", "XFS"}, {0x10040, "_BHRfS_M", "Btrfs"}, {0x200, "EFI PART", "GPT"},
		{0x1fe, "\x55\xaa", "partition table"}, {0x218, "LVM2 001", "LVM"}, {deviceSize - 512, "EFI PART", "GPT"},
		{deviceSize - 8192, "\xfc\x4e\x2b\xa9", "md RAID"}, {1<<20 - 1, "x", "unknown data (byte 1048575"},
	} {
		path := image(t, deviceSize)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte(c.mark), c.off)
		must(t, errors.Join(err, f.Close()))
		before, err := os.ReadFile(path)
		must(t, err)
		if _, err := open.Open(path, open.POSIX, nil); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "wipefs") {
			t.Errorf("%s: %v", c.want, err)
		}
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(before, after) {
			t.Errorf("%s: the device was changed", c.want)
		}
	}
	if _, err := open.Open(image(t, 1<<20), open.POSIX, nil); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Errorf("a tiny device: %v", err)
	}
}

// TestCopies damages one copy of the table after the other: the other one serves, and
// makes the first whole again. With both damaged nothing is opened, let alone made anew.
func TestCopies(t *testing.T) {
	path := image(t, deviceSize)
	p := place{path, open.POSIX}
	d := p.Open(t)
	_, err := d.Create("f", 8192)
	must(t, errors.Join(err, d.Close()))
	spoil := func(off int64) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{0xff}, off)
		must(t, errors.Join(err, f.Close()))
	}
	for _, off := range []int64{1000, 4096 + 50, 1<<20 + 1000, 1<<20 + 4096 + 50} {
		spoil(off)
		d := p.Open(t)
		if names, err := d.List(); err != nil || !slices.Equal(names, []string{"f"}) {
			t.Errorf("with byte %d damaged: %q, %v", off, names, err)
		}
		must(t, d.Close())
	}
	spoil(1000)
	spoil(1<<20 + 1000)
	if _, err := open.Open(path, open.POSIX, nil); err == nil || !strings.Contains(err.Error(), "no whole copy") {
		t.Errorf("both damaged: %v", err)
	}
}

// TestFull fills a device, and again what a file leaves that goes.
func TestFull(t *testing.T) {
	d := place{image(t, 16<<20), open.POSIX}.Open(t)
	defer d.Close()
	for i := range 14 {
		if _, free, err := d.Space(); err != nil || free != uint64(14-i)<<20 {
			t.Fatalf("after %d files: %d bytes free, %v", i, free, err)
		}
		f, err := d.Create(fmt.Sprint("f", i), 1<<20)
		must(t, err)
		if i != 5 {
			must(t, f.Close())
		}
	}
	_, err := d.Create("more", 4096)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full device: %v", err)
	}
	must(t, d.Remove("f5"))
	if _, err := d.Create("more", 4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the place of a file that is open: %v", err)
	}
	must(t, d.Remove("f9"))
	f, err := d.Create("more", 4096)
	must(t, err)
	must(t, f.Close())
}

// TestCrash cuts the power at every moment of a row of changes. Each of them is there as
// a whole or not at all, and those that were done are there.
func TestCrash(t *testing.T) {
	s := sim.New(sim.Config{Seed: 5, Mode: sim.Manual, Grain: 1024})
	dev, err := s.Create("device", 16<<20)
	must(t, err)
	var before, after []string // what there is before and after the change under way
	crashes := 0
	explore := func() {
		for e := new(sim.Every); e.Next(); {
			crashes++
			left := s.CrashClone(e)
			got, err := names(left)
			must(t, err)
			if !slices.Equal(got, before) && !slices.Equal(got, after) {
				t.Fatalf("crash %d: %q, want %q or %q", crashes, got, before, after)
			}
			must(t, left.Close())
		}
	}
	do := func(f engine.File, kind engine.Kind, buf []byte, off int64) error {
		done := make(chan error, 1)
		f.Submit(&engine.Op{Kind: kind, Buf: buf, Off: off, Done: func(op *engine.Op) { done <- op.Err }})
		if kind != engine.Sync { // zeros may tear in more ways than can be tried
			explore()
		}
		for s.Step() {
		}
		return <-done
	}
	d, err := raw.Open(raw.Config{Device: dev, Backend: "sim", Do: do})
	must(t, err)
	change := func(err error, now ...string) {
		t.Helper()
		must(t, err)
		before, after = now, now
		explore()
	}
	create := func(name string) error { f, err := d.Create(name, 4096); return errors.Join(err, f.Close()) }
	after = []string{"a"}
	change(create("a"), "a")
	after = []string{"a", "b"}
	change(create("b"), "a", "b")
	after = []string{"b"}
	change(d.Remove("a"), "b")
	after = []string{"b", "c"}
	change(create("c"), "b", "c")
	if crashes < 100 {
		t.Errorf("only %d crashes", crashes)
	}
}

// names opens a device that a crash has left, and lists its files, twice: the second time
// what the first has mended.
func names(s *sim.Disk) ([]string, error) {
	s.SetMode(sim.Auto)
	var lists [2][]string
	for i := range lists {
		dev, err := s.Open("device")
		if err != nil {
			return nil, err
		}
		d, err := raw.Open(raw.Config{Device: dev, Backend: "sim"})
		if err != nil {
			return nil, err
		}
		if lists[i], err = d.List(); err != nil {
			return nil, err
		}
		if err := d.Close(); err != nil {
			return nil, err
		}
	}
	if !slices.Equal(lists[0], lists[1]) {
		return nil, fmt.Errorf("opened again: %q, before %q", lists[1], lists[0])
	}
	return lists[0], nil
}

// TestDoubt: when the table could not be written nobody knows which one counts, so it
// takes no more changes until it is opened anew.
func TestDoubt(t *testing.T) {
	s := sim.New(sim.Config{Seed: 6})
	dev, err := s.Create("device", 16<<20)
	must(t, err)
	d, err := raw.Open(raw.Config{Device: dev, Backend: "sim"})
	must(t, err)
	rule := s.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.WriteSync}, Err: syscall.EIO})
	if _, err := d.Create("f", 4096); !errors.Is(err, syscall.EIO) {
		t.Errorf("create: %v", err)
	}
	rule.Lift()
	if _, err := d.Create("f", 4096); err == nil || errors.Is(err, fs.ErrExist) {
		t.Errorf("create after that: %v", err)
	}
	must(t, d.Close())
}

// FuzzTable feeds the decoder tables that were never written.
func FuzzTable(f *testing.F) {
	s := sim.New(sim.Config{})
	dev, err := s.Create("device", 8<<20)
	must(f, err)
	d, err := raw.Open(raw.Config{Device: dev, Backend: "sim"})
	must(f, err)
	for _, name := range []string{"a", "b"} {
		_, err := d.Create(name, 8192)
		must(f, err)
	}
	b := engine.Alloc(8192)
	must(f, dev.ReadAt(b, 0))
	f.Add(slices.Clone(b), uint32(0), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, at uint32, x byte) {
		m := memory(make([]byte, 8<<20))
		copy(m, data)
		m[at%uint32(len(m))] ^= x
		tab, err := raw.Read(raw.Resum(m))
		if err != nil {
			return
		}
		for _, e := range tab.Files {
			if e.Off < 0 || e.Size <= 0 || e.Off > tab.Size-e.Size {
				t.Errorf("%+v on a device of %d bytes", e, tab.Size)
			}
		}
	})
}

type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }
func (m memory) ReadAt(b []byte, off int64) error {
	if err := engine.CheckRange(b, off, m.Size()); err != nil {
		return err
	}
	copy(b, m[off:])
	return nil
}
