package posix_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/fuse"
	"github.com/varvefs/varve/test/rig"
)

// A mount may show a directory of the file system as its root.
func TestSubdirectoryMount(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 1})
	whole := c.Mount(t)
	must(t, os.MkdirAll(filepath.Join(whole, "a/b/deep"), 0o755))
	write(t, filepath.Join(whole, "a/b/file"), "text")
	part := c.MountWith(t, rig.MountOptions{Path: "/a/b"}).Dir

	wantText(t, filepath.Join(part, "file"), "text")
	want(t, "inode of the root", stat(t, part).Ino, stat(t, filepath.Join(whole, "a/b")).Ino)
	want(t, "inode below", stat(t, filepath.Join(part, "deep")).Ino, stat(t, filepath.Join(whole, "a/b/deep")).Ino)
	write(t, filepath.Join(part, "new"), "from below")
	wantText(t, filepath.Join(whole, "a/b/new"), "from below")
	must(t, os.Rename(filepath.Join(part, "new"), filepath.Join(part, "deep/moved")))
	exists(t, filepath.Join(whole, "a/b/new"), false)
	must(t, os.Chmod(part, 0o711))
	want(t, "mode of the root", stat(t, filepath.Join(whole, "a/b")).Mode&0o7777, 0o711)
	must(t, unix.Setxattr(part, "user.x", []byte("v"), 0))
	b := make([]byte, 10)
	n, err := unix.Getxattr(filepath.Join(whole, "a/b"), "user.x", b)
	must(t, err)
	want(t, "attribute of the root", string(b[:n]), "v")
	// What the other mount changes in the root is seen, too.
	exists(t, filepath.Join(part, "later"), false)
	write(t, filepath.Join(whole, "a/b/later"), "")
	exists(t, filepath.Join(part, "later"), true)
	entries, err := os.ReadDir(part)
	must(t, err)
	want(t, "entries", len(entries), 3)
}

func TestReadOnlyMount(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 1})
	rw := c.Mount(t)
	write(t, filepath.Join(rw, "file"), "text")
	ro := c.MountWith(t, rig.MountOptions{Options: "ro"}).Dir
	wantText(t, filepath.Join(ro, "file"), "text")
	for what, err := range map[string]error{
		"create": os.WriteFile(filepath.Join(ro, "new"), nil, 0o644),
		"write":  os.WriteFile(filepath.Join(ro, "file"), nil, 0o644),
		"mkdir":  os.Mkdir(filepath.Join(ro, "dir"), 0o755),
		"remove": os.Remove(filepath.Join(ro, "file")),
		"chmod":  os.Chmod(filepath.Join(ro, "file"), 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The states of a mount point: mounted, unmounted by umount(8), left behind by
// a killed process.
func TestMountPointStates(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 1})
	m := c.MountWith(t, rig.MountOptions{})
	write(t, filepath.Join(m.Dir, "file"), "text")

	if is, err := fuse.IsVarve(filepath.Join(m.Dir, "file")); err != nil || !is {
		t.Errorf("not known as a mount of ours: %v, %v", is, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[1] == m.Dir && (f[2] != "fuse.varve" || !strings.HasPrefix(f[0], "varve")) {
			t.Errorf("mounted as %s", line)
		}
	}
	bdi := fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", unix.Minor(stat(t, m.Dir).Dev))
	if kib, err := os.ReadFile(bdi); err == nil {
		want(t, "read-ahead, KiB", strings.TrimSpace(string(kib)), "8192")
	}
	err = fuse.CheckMountpoint(m.Dir, fuse.DefaultOptions())
	if err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a second mount: %v", err)
	}

	must(t, unix.Unmount(m.Dir, 0))
	m.AwaitEnd()
	exists(t, filepath.Join(m.Dir, "file"), false)

	m.Start()
	wantText(t, filepath.Join(m.Dir, "file"), "text")
	m.Kill()
	err = fuse.CheckMountpoint(m.Dir, fuse.DefaultOptions())
	if err == nil || !strings.Contains(err.Error(), "umount -l") {
		t.Errorf("a stale mount: %v", err)
	}
	m.Start() // which cleans up
	wantText(t, filepath.Join(m.Dir, "file"), "text")
}

// When nothing can be written any more, the mount can still be taken away and
// the programs that wait get an error.
func TestForcedUnmount(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 1})
	m := c.MountWith(t, rig.MountOptions{})
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	must(t, err)
	defer f.Close()
	_, err = f.Write(noise(1, 100000))
	must(t, err)
	must(t, f.Sync())
	c.KillServer(0)
	_, err = f.Write(noise(2, 100000))
	must(t, err)
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	select {
	case err := <-synced:
		t.Fatalf("synced to no chunkserver: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	must(t, unix.Unmount(m.Dir, unix.MNT_FORCE|unix.MNT_DETACH))
	select {
	case err := <-synced:
		if err == nil {
			t.Error("synced to no chunkserver")
		}
	case <-time.After(30 * time.Second):
		t.Error("fsync still waits")
	}
	m.Kill() // it would keep trying to write
}
