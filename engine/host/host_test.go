package host_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/enginetest"
	"github.com/varvefs/varve/engine/host"
	"github.com/varvefs/varve/engine/posix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t testing.TB, path string) (*host.Dir, *bytes.Buffer) {
	t.Helper()
	text := new(bytes.Buffer)
	d, err := host.OpenDir(path, slog.New(slog.NewTextHandler(text, nil)))
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d, text
}

// everything lists a directory with hidden files, but without the lock.
func everything(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	d, _ := openDir(t, dir)
	if _, err := host.OpenDir(dir, slog.Default()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second opener: %v", err)
	}
	must(t, d.Close())
	openDir(t, dir)
}

func TestOpenWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{filepath.Join(dir, "nobody"), file} {
		if _, err := host.OpenDir(path, slog.Default()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("open %s: %v", path, err)
		}
	}
}

// TestLeftovers: what a crash in the middle of Create leaves is not listed and goes at
// the next start; what is not ours stays.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".part-seg", ".part-probe", ".profile"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	d, _ := openDir(t, dir)
	names, err := d.List()
	must(t, err)
	if len(names) != 0 {
		t.Errorf("listed %q", names)
	}
	if got := everything(t, dir); !slices.Equal(got, []string{".profile", "link", "lost+found"}) {
		t.Errorf("directory holds %q", got)
	}
	for _, name := range []string{"link", "lost+found"} {
		if _, err := d.Open(name); err == nil {
			t.Errorf("opened %s", name)
		}
		if _, err := d.Create(name, 4096); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v", name, err)
		}
	}
}

func TestReservesSpace(t *testing.T) {
	dir := t.TempDir()
	d, _ := openDir(t, dir)
	if total, free, err := d.Space(); err != nil || total == 0 || free == 0 || free > total {
		t.Errorf("space: total %d, free %d, %v", total, free, err)
	}
	f, err := d.Create("seg", 8<<20)
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(f.Fd(), &st))
	if st.Size != 8<<20 || st.Blocks*512 < 8<<20 {
		t.Errorf("size %d, allocated %d", st.Size, st.Blocks*512)
	}
	if got := everything(t, dir); !slices.Equal(got, []string{"seg"}) {
		t.Errorf("directory holds %q", got)
	}
}

// TestOddSize: a file that is no multiple of the alignment is rounded down.
func TestOddSize(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "odd"), make([]byte, 10000), 0o600))
	d, _ := openDir(t, dir)
	f, err := d.Open("odd")
	must(t, err)
	if f.Size() != 8192 {
		t.Errorf("size is %d", f.Size())
	}
	must(t, f.ReadAt(engine.Alloc(8192), 0))
}

func TestScratchLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d, _ := openDir(t, dir)
	f, err := d.Scratch(64 << 10)
	must(t, err)
	if got := everything(t, dir); len(got) != 0 {
		t.Errorf("directory holds %q", got)
	}
	must(t, f.Zero(0, 64<<10))
	must(t, f.Close())
}

func TestWhole(t *testing.T) {
	for _, c := range []struct {
		kind    engine.Kind
		n, want int
		err     error
		out     error
	}{
		{engine.Read, 4096, 4096, nil, nil},
		{engine.Read, 512, 4096, nil, io.ErrUnexpectedEOF},
		{engine.Write, 512, 4096, nil, io.ErrShortWrite},
		{engine.WriteSync, 0, 4096, nil, io.ErrShortWrite},
		{engine.WriteSync, 0, 4096, syscall.EIO, syscall.EIO},
		{engine.Sync, 0, 4096, nil, nil},
		{engine.Sync, 0, 0, syscall.EIO, syscall.EIO},
	} {
		if got := host.Whole(c.kind, c.n, c.want, c.err); got != c.out {
			t.Errorf("%v of %d, %d transferred, error %v: %v", c.kind, c.want, c.n, c.err, got)
		}
	}
}

// mount mounts a file system in memory for the test.
func mount(t testing.TB, fstype, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("varve-test", dir, fstype, 0, options); err != nil {
		t.Skipf("mounting a %s needs root: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestNoSpace: a file that does not fit fails cleanly and leaves nothing behind, and a
// full file system can still be opened.
func TestNoSpace(t *testing.T) {
	dir := mount(t, "tmpfs", "size=1m")
	d, _ := openDir(t, dir)
	if _, err := d.Create("big", 64<<20); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "big") {
		t.Errorf("create: %v", err)
	}
	if got := everything(t, dir); len(got) != 0 {
		t.Errorf("directory holds %q", got)
	}
	_, free, err := d.Space()
	must(t, err)
	f, err := d.Create("fits", int64(free)&^(engine.Align-1))
	must(t, err)
	must(t, f.Zero(0, f.Size()))
	must(t, d.Close())
	d, _ = openDir(t, dir)
	f, err = d.Open("fits")
	must(t, err)
	must(t, f.Zero(0, f.Size()))
	if _, free, _ := d.Space(); free != 0 {
		t.Errorf("%d bytes are free", free)
	}
}

// TestBuffered: ramfs knows neither direct I/O nor fallocate.
func TestBuffered(t *testing.T) {
	dir := mount(t, "ramfs", "")
	d, text := openDir(t, dir)
	if d.Direct() {
		t.Skip("this kernel's ramfs has direct I/O")
	}
	if s := text.String(); !strings.Contains(s, "no direct I/O") || !strings.Contains(s, dir) {
		t.Errorf("logged %q", s)
	}
	if got := everything(t, dir); len(got) != 0 {
		t.Errorf("directory holds %q", got)
	}
	must(t, d.Close())
	t.Run("suite", func(t *testing.T) {
		enginetest.Run(t, func(t testing.TB) enginetest.Place {
			sub, err := os.MkdirTemp(dir, "")
			must(t, err)
			return place(sub)
		})
	})
}

type place string

func (p place) Open(t testing.TB) engine.Disk {
	d, err := posix.Open(string(p), slog.New(slog.DiscardHandler))
	must(t, err)
	return d
}
