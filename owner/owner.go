// Package owner gives what root makes in somebody else's directory to that
// directory's owner. A command that an operator runs as root on a daemon's files
// ('varve master recover'), or a master that once ran without its supervisor,
// would otherwise leave files that the daemon, which runs as a user of its own,
// can never open. Whoever makes a file that a later daemon needs calls it; it has
// no state and no locks.
package owner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Give gives the file that this process has just made to the owner of its directory. It does
// nothing unless root made it. Root without the right to do so (CAP_CHOWN, which
// the master's unit does not have) keeps the file, as all that it makes.
func Give(f *os.File) error { return give(filepath.Dir(f.Name()), f.Stat, f.Chown) }

// MkdirAll is os.MkdirAll, but the last directory, if it is new, goes to the
// owner of the one around it.
func MkdirAll(path string, mode fs.FileMode) error {
	path = filepath.Clean(path)
	_, err := os.Stat(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(path, mode)
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return give(filepath.Dir(path),
		func() (fs.FileInfo, error) { return os.Lstat(path) },
		func(uid, gid int) error { return os.Lchown(path, uid, gid) })
}

func give(dir string, stat func() (fs.FileInfo, error), chown func(uid, gid int) error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	around, err := os.Stat(dir)
	if err != nil {
		return err
	}
	own, err := stat()
	if err != nil {
		return err
	}
	want, have := around.Sys().(*syscall.Stat_t), own.Sys().(*syscall.Stat_t)
	if want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	if err := chown(int(want.Uid), int(want.Gid)); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}
