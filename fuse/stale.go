package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A mount outlives its process in two ways. Mostly the kernel closes /dev/fuse
// with the process, and the mount answers ENOTCONN. But a thread that was telling
// the kernel to drop a page which a READ keeps locked waits in the kernel for the
// answer that its own process owed; the process cannot end, /dev/fuse stays open,
// and whoever touches the mount waits for ever. So nothing here touches a mount
// before it is known that somebody serves it.

// How long a mount may take to answer before it is looked for its process, and
// before a question about a mount point is given up.
const (
	answerPatience = time.Second
	touchPatience  = 5 * time.Second
)

// errSilent says that a mount did not answer in time.
var errSilent = errors.New("it does not answer")

// CleanStale takes away a mount of ours at dir whose process is gone, also one on
// which every access hangs. It does nothing when there is none, never touches
// another file system, and leaves a mount alone whose process lives.
func CleanStale(dir string) error {
	abs, err := findMountpoint(dir)
	if err != nil {
		return fmt.Errorf("mount point %s: %w", dir, err)
	}
	for { // there may be several, one on another
		m, ok := mountedOn(abs)
		if !ok {
			return nil
		}
		if m.fsType != fsType {
			if errors.Is(probe(abs, answerPatience), unix.ENOTCONN) {
				return fmt.Errorf("mount point %s: %w, but it is not one of varve", abs, ErrStale)
			}
			return nil
		}
		if !isDead(abs, m.minor) {
			return nil
		}
		if err := removeDead(abs, m.minor); err != nil {
			return err
		}
	}
}

// isDead tells whether nobody serves a mount of ours any more. Silence alone
// proves nothing: the masters may be away. So does an unseen process: it may be
// in another PID namespace, and then it answers.
func isDead(dir string, minor uint32) bool {
	switch err := probe(dir, answerPatience); {
	case errors.Is(err, unix.ENOTCONN):
		return true
	case errors.Is(err, errSilent):
		return !served(minor)
	}
	return false
}

// probe asks a mount for its size, and gives up waiting after a time; the thread
// that asks ends when the mount does. It is statfs(2) since the kernel may answer
// stat(2) of a dead mount from its cache.
func probe(dir string, patience time.Duration) error {
	return inTime(patience, func() error {
		var st unix.Statfs_t
		return unix.Statfs(dir, &st)
	})
}

// inTime runs f, which may hang, and is errSilent when it takes too long.
func inTime(patience time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errSilent
	}
}

// removeDead breaks the connection of a dead mount, so that all who wait for it
// get an error, and takes it from the tree.
func removeDead(dir string, minor uint32) error {
	// fusectl first: it needs no path that leads to the mount. Without it MNT_FORCE
	// must do alone.
	_ = abortConnection(minor)
	err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		err = helperUnmount(dir, true)
	}
	if err != nil {
		return fmt.Errorf("remove the dead mount %s: %w; try umount -f %s as root", dir, err, dir)
	}
	return nil
}

// connectionFile aborts a connection when something is written to it.
func connectionFile(minor uint32) string {
	return fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor)
}

// abortConnection breaks a connection through fusectl, which many machines have not
// mounted: then it is, for the moment. os.ErrNotExist: there is no such connection.
func abortConnection(minor uint32) error {
	err := os.WriteFile(connectionFile(minor), []byte("1"), 0)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp("", "varve-fusectl-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("fusectl", dir, "fusectl", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount fusectl to break the connection: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	return os.WriteFile(filepath.Join(dir, strconv.FormatUint(uint64(minor), 10), "abort"), []byte("1"), 0)
}

// served tells whether a living process has the connection open, as far as /proc
// shows. Where the kernel names no descriptor's connection, any living process
// with /dev/fuse may be the one. Where it does, a descriptor without one belongs
// to a process that is about to mount something else.
func served(minor uint32) bool {
	named := namesConnections()
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		proc := filepath.Dir(dir)
		if pid, err := strconv.Atoi(filepath.Base(proc)); err != nil || Ended(pid) {
			continue
		}
		entries, _ := os.ReadDir(dir) // a process of somebody else does not serve a mount of ours
		for _, e := range entries {
			if target, _ := os.Readlink(filepath.Join(dir, e.Name())); target != "/dev/fuse" {
				continue
			}
			info, err := os.ReadFile(filepath.Join(proc, "fdinfo", e.Name()))
			if err != nil {
				continue // closed meanwhile
			}
			if n, known := connectionOf(string(info)); known && n == minor || !known && !named {
				return true
			}
		}
	}
	return false
}

// namesConnections tells whether this kernel shows the connection of a descriptor
// of /dev/fuse in its fdinfo: Linux 6.16 and later (fuse_dev_show_fdinfo).
func namesConnections() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major > 6 || major == 6 && minor >= 16)
}

// connectionOf finds the line "fuse_connection:	N" of a descriptor's fdinfo.
func connectionOf(info string) (minor uint32, ok bool) {
	for line := range strings.Lines(info) {
		if text, found := strings.CutPrefix(line, "fuse_connection:"); found {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// Ended tells whether a process is over for all but the kernel: it does not exist,
// or it was killed and some of its threads, perhaps the first, cannot end yet.
func Ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if value != "" && strings.ContainsRune("ZX", rune(value[0])) {
				return true
			}
		case "SigPnd", "ShdPnd": // a first thread that waits in the kernel has not taken its SIGKILL
			if set, err := strconv.ParseUint(value, 16, 64); err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// findMountpoint gives the absolute path of dir without symbolic links, like
// filepath.EvalSymlinks, but does not touch what is mounted there.
func findMountpoint(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	const maxLinks = 40 // as the kernel has it
	for range maxLinks {
		if _, ok := mountedOn(abs); ok {
			return abs, nil
		}
		parent := filepath.Dir(abs)
		err := inTime(touchPatience, func() (err error) {
			parent, err = filepath.EvalSymlinks(parent)
			return err
		})
		if errors.Is(err, os.ErrNotExist) {
			return abs, nil // nothing is mounted there
		}
		if err != nil {
			return "", err
		}
		abs = filepath.Join(parent, filepath.Base(abs))
		target, err := os.Readlink(abs)
		if err != nil {
			return abs, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(parent, target)
		}
		abs = filepath.Clean(target)
	}
	return "", unix.ELOOP
}
