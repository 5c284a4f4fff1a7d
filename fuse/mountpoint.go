package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsType is the file system's type in /proc/mounts.
const fsType = "fuse.varve"

// ErrStale says that the mount point shows a file system whose process is gone
// ("Transport endpoint is not connected"). CleanStale is the cure.
var ErrStale = errors.New("stale mount: its process is gone")

// CheckMountpoint says whether dir may be mounted on; the error names a remedy.
func CheckMountpoint(dir string, o Options) error {
	_, err := checkMountPoint(dir, o.NonEmpty)
	return err
}

// checkMountPoint returns the absolute path of a directory that may be mounted
// on, or an error that says what is wrong and what to do about it. It does not
// hang on a mount that does not answer.
func checkMountPoint(dir string, nonEmpty bool) (string, error) {
	if dir == "" {
		return "", errors.New("no mount point given")
	}
	abs, err := findMountpoint(dir)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, err)
	}
	var info os.FileInfo
	err = inTime(touchPatience, func() error {
		var dead unix.Statfs_t // statfs(2), since the kernel may answer stat(2) of a dead mount from its cache
		if err := unix.Statfs(abs, &dead); errors.Is(err, unix.ENOTCONN) {
			return err
		}
		st, err := os.Stat(abs)
		if err == nil {
			info = st
		}
		return err
	})
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return "", fmt.Errorf("mount point %s: %w; remove it with umount -l %s", abs, ErrStale, abs)
	case errors.Is(err, errSilent):
		return "", fmt.Errorf("mount point %s: something is mounted there, and %w; remove it with umount -f %s", abs, err, abs)
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mount point %s does not exist; create it with mkdir -p %s", abs, abs)
	case err != nil:
		return "", fmt.Errorf("mount point: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("mount point %s is not a directory", abs)
	}
	if nonEmpty {
		return abs, nil
	}
	if m, ok := mountedOn(abs); ok {
		return "", fmt.Errorf("mount point %s is busy: %s (%s) is mounted there; unmount it with umount %s, or mount over it with -o nonempty",
			abs, m.source, m.fsType, abs)
	}
	if empty, err := isEmpty(abs); err != nil {
		return "", fmt.Errorf("mount point: %w", err)
	} else if !empty {
		return "", fmt.Errorf("mount point %s is not empty; choose an empty directory, or hide what is there with -o nonempty", abs)
	}
	return abs, nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

// IsVarve says whether path lies on a mount of this kind. It does not touch path.
func IsVarve(path string) (bool, error) {
	m, err := mountOf(path)
	return m.fsType == fsType, err
}

// MastersOf gives the addresses of the masters that serve the mount on which
// path lies, as they were given to Mount; "" where it is not one of ours.
func MastersOf(path string) (string, error) {
	m, err := mountOf(path)
	if m.fsType != fsType {
		return "", err
	}
	_, masters, _ := strings.Cut(m.source, "#")
	return masters, err
}

// mountOf finds the mount on which path lies.
func mountOf(path string) (mountInfo, error) {
	var best mountInfo
	abs, err := filepath.Abs(path)
	if err != nil {
		return best, err
	}
	mounts, err := readMountInfo()
	if err != nil {
		return best, err
	}
	for _, m := range mounts {
		inside := m.point == "/" || abs == m.point || strings.HasPrefix(abs, m.point+"/")
		if inside && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best, nil
}

// detach removes a mount from the tree at once; what is open stays so.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		err = helperUnmount(dir, true)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// mountInfo is one line of /proc/self/mountinfo.
type mountInfo struct {
	minor  uint32 // of the device number; the major of a file system like ours is 0
	point  string
	fsType string
	source string
}

// mountedOn finds the topmost mount at exactly dir, without touching it.
func mountedOn(dir string) (found mountInfo, ok bool) {
	mounts, _ := readMountInfo() // without /proc nothing is known
	for _, m := range mounts {
		if m.point == dir {
			found, ok = m, true // a later one lies on top
		}
	}
	return found, ok
}

func readMountInfo() ([]mountInfo, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []mountInfo
	for _, line := range strings.Split(string(data), "\n") {
		if m, ok := parseMountInfo(line); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

// parseMountInfo reads "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw".
func parseMountInfo(line string) (mountInfo, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	if !ok {
		return mountInfo{}, false
	}
	h, t := strings.Fields(head), strings.Fields(tail)
	if len(h) < 6 || len(t) < 2 {
		return mountInfo{}, false
	}
	_, number, _ := strings.Cut(h[2], ":")
	minor, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return mountInfo{}, false
	}
	return mountInfo{
		minor: uint32(minor), point: unescapeMount(h[4]), fsType: t[0], source: unescapeMount(t[1]),
	}, true
}

// unescapeMount undoes the \040 of blanks, tabs, newlines and backslashes.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// setReadAhead raises the kernel's read-ahead of the mount with this device
// number (the major is 0). No mount option does it, and it decides how many
// READs are in work for one reader.
func setReadAhead(minor uint32, kib int) error {
	path := fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", minor)
	return os.WriteFile(path, []byte(strconv.Itoa(kib)), 0)
}
