package posix_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/rig"
)

// TestNames is everything about names and attributes on one mount.
func TestNames(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 2})
	mnt := c.Mount(t)
	for name, test := range map[string]func(*testing.T, string){
		"Btime":          testBtime,
		"Times":          testTimes,
		"Tmpfile":        testTmpfile,
		"RenameFlags":    testRenameFlags,
		"Special":        testSpecial,
		"LongNames":      testLongNames,
		"UnlinkedOpen":   testUnlinkedOpen,
		"Setgid":         testSetgid,
		"Umask":          testUmask,
		"KillSuid":       testKillSuid,
		"ACLCheck":       testACLCheck,
		"ACLDefault":     testACLDefault,
		"ACLChmod":       testACLChmod,
		"Xattr":          testXattr,
		"Capability":     testCapability,
		"SeekDir":        testSeekDir,
		"BigDir":         testBigDir,
		"Statfs":         testStatfs,
		"Ioctl":          testIoctl,
		"OpenCreateDirs": testOpenOnDirs,
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(mnt, name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
		})
	}
}

func statx(t *testing.T, path string) unix.Statx_t {
	t.Helper()
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &st))
	return st
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

func testBtime(t *testing.T, dir string) {
	before := time.Now().Add(-time.Second)
	name := filepath.Join(dir, "file")
	write(t, name, "x")
	st := statx(t, name)
	if st.Mask&unix.STATX_BTIME == 0 {
		t.Fatal("no time of birth")
	}
	born := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	if born.Before(before) || born.After(time.Now().Add(time.Second)) {
		t.Errorf("born at %v", born)
	}
	must(t, os.Chtimes(name, time.Unix(1, 2), time.Unix(3, 4)))
	again := statx(t, name)
	want(t, "btime after utimes", again.Btime, st.Btime)
	want(t, "size", again.Size, 1)
}

func testTimes(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "x")
	for _, sec := range []int64{0, -5, 1<<31 + 7, 4102444800} {
		ts := []unix.Timespec{{Sec: sec, Nsec: 123456789}, {Sec: sec + 1, Nsec: 999999999}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, 0))
		st := stat(t, name)
		want(t, "atime", st.Atim, ts[0])
		want(t, "mtime", st.Mtim, ts[1])
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}
	before := stat(t, name)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, 0))
	after := stat(t, name)
	want(t, "omitted atime", after.Atim, before.Atim)
	if d := time.Since(time.Unix(after.Mtim.Unix())); d < -time.Minute || d > time.Minute {
		t.Errorf("mtime of now is %v old", d)
	}
	// A write moves mtime and ctime, a chmod only ctime.
	must(t, os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)))
	before = stat(t, name)
	must(t, os.Chmod(name, 0o600))
	after = stat(t, name)
	want(t, "mtime after chmod", after.Mtim, before.Mtim)
	if after.Ctim == before.Ctim {
		t.Error("chmod does not move ctime")
	}
	f := open(t, name, os.O_WRONLY)
	_, err := f.WriteString("y")
	must(t, err)
	if stat(t, name).Mtim == before.Mtim {
		t.Error("write does not move mtime")
	}
}

func testTmpfile(t *testing.T, dir string) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	must(t, err)
	f := os.NewFile(uintptr(fd), "tmpfile")
	defer f.Close()
	_, err = f.WriteString("no name yet")
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	want(t, "links", st.Nlink, 0)
	name := filepath.Join(dir, "name")
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Fstat(fd, &st))
	want(t, "links", st.Nlink, 1)
	want(t, "inode", stat(t, name).Ino, st.Ino)
	f.Close()
	wantText(t, name, "no name yet")
	want(t, "mode", stat(t, name).Mode, unix.S_IFREG|0o640)

	// With O_EXCL it can never get a name.
	fd, err = unix.Open(dir, unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR, 0o600)
	must(t, err)
	defer unix.Close(fd)
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name+"2", unix.AT_SYMLINK_FOLLOW)
	want(t, "link of an O_EXCL tmpfile", err, error(unix.ENOENT))
}

func testRenameFlags(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	}
	write(t, a, "A")
	write(t, b, "B")
	want(t, "NOREPLACE", rename(a, b, unix.RENAME_NOREPLACE), error(unix.EEXIST))
	must(t, rename(a, b, unix.RENAME_EXCHANGE))
	wantText(t, a, "B")
	wantText(t, b, "A")
	want(t, "EXCHANGE with nothing", rename(a, b+"x", unix.RENAME_EXCHANGE), error(unix.ENOENT))
	must(t, rename(a, b, 0))
	wantText(t, b, "B")
	must(t, rename(b, a, unix.RENAME_NOREPLACE))

	// A directory and a file change places.
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	write(t, filepath.Join(sub, "in"), "I")
	must(t, rename(a, sub, unix.RENAME_EXCHANGE))
	wantText(t, filepath.Join(a, "in"), "I")
	wantText(t, sub, "B")
	want(t, "into itself", rename(a, filepath.Join(a, "x"), 0), error(unix.EINVAL))
	want(t, "file over dir", rename(sub, a, 0), error(unix.EISDIR))
	want(t, "dir over file", rename(a, sub, 0), error(unix.ENOTDIR))
}

func testSpecial(t *testing.T, dir string) {
	for _, n := range []struct {
		name string
		mode uint32
		dev  uint64
	}{
		{"fifo", unix.S_IFIFO | 0o600, 0},
		{"sock", unix.S_IFSOCK | 0o600, 0},
		{"char", unix.S_IFCHR | 0o600, unix.Mkdev(1, 3)},
		{"block", unix.S_IFBLK | 0o600, unix.Mkdev(259, 70000)},
		{"file", unix.S_IFREG | 0o600, 0},
	} {
		path := filepath.Join(dir, n.name)
		must(t, unix.Mknod(path, n.mode, int(n.dev)))
		st := stat(t, path)
		want(t, n.name+" mode", st.Mode, n.mode)
		want(t, n.name+" device", st.Rdev, n.dev)
		if x := statx(t, path); x.Rdev_major != unix.Major(n.dev) || x.Rdev_minor != unix.Minor(n.dev) {
			t.Errorf("%s: statx says device %d:%d", n.name, x.Rdev_major, x.Rdev_minor)
		}
	}
}

func testLongNames(t *testing.T, dir string) {
	longest := strings.Repeat("n", 255)
	write(t, filepath.Join(dir, longest), "x")
	wantText(t, filepath.Join(dir, longest), "x")
	tooLong := filepath.Join(dir, longest+"n")
	for what, err := range map[string]error{
		"stat":    func() error { _, err := os.Stat(tooLong); return err }(),
		"create":  os.WriteFile(tooLong, nil, 0o644),
		"mkdir":   os.Mkdir(tooLong, 0o755),
		"symlink": os.Symlink("x", tooLong),
		"rename":  os.Rename(filepath.Join(dir, longest), tooLong),
		"remove":  unix.Unlink(tooLong),
	} {
		if !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%s: %v", what, err)
		}
	}
	target := strings.Repeat("t", 4095)
	must(t, os.Symlink(target, filepath.Join(dir, "link")))
	got, err := os.Readlink(filepath.Join(dir, "link"))
	must(t, err)
	want(t, "target", got, target)
}

func testUnlinkedOpen(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE)
	must(t, os.Remove(name))
	_, err := f.WriteString("still mine")
	must(t, err)
	must(t, f.Chmod(0o600))
	must(t, f.Truncate(5))
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	want(t, "bytes", string(b[:n]), "still")
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	want(t, "links", st.Nlink, 0)
	// Another file takes the name meanwhile.
	write(t, name, "new")
	wantText(t, name, "new")
	n, _ = f.ReadAt(b, 0)
	want(t, "bytes", string(b[:n]), "still")
}

func testSetgid(t *testing.T, dir string) {
	must(t, os.Chown(dir, 0, 1234))
	must(t, unix.Chmod(dir, 0o2775))
	sub, file := filepath.Join(dir, "sub"), filepath.Join(dir, "file")
	must(t, os.Mkdir(sub, 0o755))
	write(t, file, "")
	want(t, "group of a file", stat(t, file).Gid, 1234)
	want(t, "group of a directory", stat(t, sub).Gid, 1234)
	want(t, "mode of a directory", stat(t, sub).Mode&0o7777, 0o2755)
}

func testUmask(t *testing.T, dir string) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_RDWR, 0o666)
	must(t, err)
	unix.Close(fd)
	must(t, unix.Mkdir(filepath.Join(dir, "sub"), 0o777))
	must(t, unix.Mknod(filepath.Join(dir, "fifo"), unix.S_IFIFO|0o666, 0))
	want(t, "file", stat(t, filepath.Join(dir, "file")).Mode&0o7777, 0o640)
	want(t, "dir", stat(t, filepath.Join(dir, "sub")).Mode&0o7777, 0o750)
	want(t, "fifo", stat(t, filepath.Join(dir, "fifo")).Mode&0o7777, 0o640)
}

// as runs do on a thread of its own with the identity of uid and gid.
func as(uid, gid int, do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), uintptr(gid), ^uintptr(0))
		_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if e1 != 0 || e2 != 0 || e3 != 0 {
			result <- fmt.Errorf("become %d:%d: %v %v %v", uid, gid, e1, e2, e3)
			return
		}
		result <- do()
	}()
	return <-result
}

// appendText writes to the end of a file, with more flags for open(2).
func appendText(path, text string, flags int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func testKillSuid(t *testing.T, dir string) {
	must(t, os.Chmod(dir, 0o777))
	name := filepath.Join(dir, "file")
	set := func() {
		write(t, name, "some text")
		must(t, os.Chown(name, 1000, 1000))
		must(t, unix.Chmod(name, 0o6777))
	}
	mode := func(what string, mode uint32) {
		t.Helper()
		want(t, what, stat(t, name).Mode&0o7777, mode)
	}
	// Root writes without losing the bits, others do not.
	set()
	write(t, name, "root was here")
	mode("after root", 0o6777)
	must(t, as(1000, 1000, func() error { return appendText(name, "x", 0) }))
	mode("after a write", 0o777)
	set()
	must(t, as(1000, 1000, func() error { return os.Truncate(name, 3) }))
	mode("after truncate", 0o777)
	set()
	must(t, as(1000, 1000, func() error { return appendText(name, "", os.O_TRUNC) }))
	mode("after O_TRUNC", 0o777)
	set()
	must(t, os.Chown(name, 1001, 1001))
	mode("after chown", 0o777)
}

// acl makes the value of a POSIX ACL attribute, see acl_ea.h of the kernel.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
	aclNone     = 0xffffffff
)

func testACLCheck(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "secret")
	must(t, os.Chmod(name, 0o600))
	must(t, os.Chmod(dir, 0o755))
	read := func(uid int) error {
		return as(uid, uid, func() error {
			_, err := os.ReadFile(name)
			return err
		})
	}
	if err := read(1000); !errors.Is(err, unix.EACCES) {
		t.Errorf("without ACL: %v", err)
	}
	must(t, unix.Setxattr(name, "system.posix_acl_access", acl(
		[3]uint32{aclUserObj, 6, aclNone}, [3]uint32{aclUser, 4, 1000}, [3]uint32{aclGroupObj, 0, aclNone},
		[3]uint32{aclMask, 4, aclNone}, [3]uint32{aclOther, 0, aclNone}), 0))
	if err := read(1000); err != nil {
		t.Errorf("with ACL: %v", err)
	}
	if err := read(1001); !errors.Is(err, unix.EACCES) {
		t.Errorf("another user: %v", err)
	}
	want(t, "mode shows the mask", stat(t, name).Mode&0o777, 0o640)
	must(t, unix.Removexattr(name, "system.posix_acl_access"))
	if err := read(1000); !errors.Is(err, unix.EACCES) {
		t.Errorf("after removal: %v", err)
	}
}

func testACLDefault(t *testing.T, dir string) {
	def := acl([3]uint32{aclUserObj, 7, aclNone}, [3]uint32{aclUser, 6, 1000}, [3]uint32{aclGroupObj, 5, aclNone},
		[3]uint32{aclMask, 7, aclNone}, [3]uint32{aclOther, 0, aclNone})
	must(t, unix.Setxattr(dir, "system.posix_acl_default", def, 0))
	old := unix.Umask(0o077) // has no say where there is a default ACL
	defer unix.Umask(old)
	sub, file := filepath.Join(dir, "sub"), filepath.Join(dir, "file")
	must(t, unix.Mkdir(sub, 0o777))
	fd, err := unix.Open(file, unix.O_CREAT|unix.O_RDWR, 0o666)
	must(t, err)
	unix.Close(fd)
	b := make([]byte, 200)
	n, err := unix.Getxattr(sub, "system.posix_acl_default", b)
	must(t, err)
	want(t, "default of a directory", string(b[:n]), string(def))
	n, err = unix.Getxattr(file, "system.posix_acl_access", b)
	must(t, err)
	want(t, "access of a file", string(b[:n]), string(acl([3]uint32{aclUserObj, 6, aclNone}, [3]uint32{aclUser, 6, 1000},
		[3]uint32{aclGroupObj, 5, aclNone}, [3]uint32{aclMask, 6, aclNone}, [3]uint32{aclOther, 0, aclNone})))
	want(t, "mode of a file", stat(t, file).Mode&0o777, 0o660)
	want(t, "mode of a directory", stat(t, sub).Mode&0o777, 0o770)
	if err := unix.Setxattr(file, "system.posix_acl_default", def, 0); err != unix.EACCES {
		t.Errorf("default ACL of a file: %v", err)
	}
}

func testACLChmod(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "")
	must(t, unix.Setxattr(name, "system.posix_acl_access", acl(
		[3]uint32{aclUserObj, 6, aclNone}, [3]uint32{aclUser, 7, 1000}, [3]uint32{aclGroupObj, 7, aclNone},
		[3]uint32{aclMask, 7, aclNone}, [3]uint32{aclOther, 4, aclNone}), 0))
	must(t, os.Chmod(name, 0o640))
	b := make([]byte, 200)
	n, err := unix.Getxattr(name, "system.posix_acl_access", b)
	must(t, err)
	want(t, "chmod changes the mask", string(b[:n]), string(acl([3]uint32{aclUserObj, 6, aclNone}, [3]uint32{aclUser, 7, 1000},
		[3]uint32{aclGroupObj, 7, aclNone}, [3]uint32{aclMask, 4, aclNone}, [3]uint32{aclOther, 0, aclNone})))
}

func testXattr(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "")
	b := make([]byte, 70000)
	_, err := unix.Getxattr(name, "user.none", b)
	want(t, "none", err, error(unix.ENODATA))
	n, err := unix.Listxattr(name, nil)
	must(t, err)
	want(t, "empty list", n, 0)
	big := strings.Repeat("v", 64<<10)
	must(t, unix.Setxattr(name, "user.big", []byte(big), unix.XATTR_CREATE))
	want(t, "create twice", unix.Setxattr(name, "user.big", nil, unix.XATTR_CREATE), error(unix.EEXIST))
	want(t, "replace nothing", unix.Setxattr(name, "user.x", nil, unix.XATTR_REPLACE), error(unix.ENODATA))
	must(t, unix.Setxattr(name, "user.empty", nil, 0))
	n, err = unix.Getxattr(name, "user.big", b)
	must(t, err)
	want(t, "big value", string(b[:n]), big)
	n, err = unix.Getxattr(name, "user.big", nil)
	must(t, err)
	want(t, "size of a value", n, len(big))
	_, err = unix.Getxattr(name, "user.big", b[:10])
	want(t, "short buffer", err, error(unix.ERANGE))
	n, err = unix.Getxattr(name, "user.empty", b)
	must(t, err)
	want(t, "empty value", n, 0)
	n, err = unix.Listxattr(name, b)
	must(t, err)
	names := strings.Split(strings.TrimRight(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	want(t, "list", strings.Join(names, " "), "user.big user.empty")
	must(t, unix.Removexattr(name, "user.big"))
	want(t, "remove twice", unix.Removexattr(name, "user.big"), error(unix.ENODATA))
	want(t, "foreign name", unix.Setxattr(name, "system.other", nil, 0), error(unix.EOPNOTSUPP))
}

// A write by anybody takes the file's capabilities away.
func testCapability(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "#!")
	must(t, os.Chmod(name, 0o777))
	// struct vfs_cap_data revision 2 with CAP_NET_RAW permitted and effective.
	value := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(name, "security.capability", value, 0))
	b := make([]byte, 100)
	n, err := unix.Getxattr(name, "security.capability", b)
	must(t, err)
	want(t, "value", string(b[:n]), string(value))
	must(t, os.Chmod(dir, 0o777))
	must(t, as(1000, 1000, func() error { return appendText(name, "x", os.O_APPEND) }))
	_, err = unix.Getxattr(name, "security.capability", b)
	want(t, "after a write", err, error(unix.ENODATA))
}

// testSeekDir goes back to places in a directory while names come and go.
func testSeekDir(t *testing.T, dir string) {
	for i := range 300 {
		write(t, filepath.Join(dir, fmt.Sprintf("name-%03d", i)), "")
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	type place struct {
		off  int64
		rest string
	}
	names := func(off int64) (list []string) {
		_, err := unix.Seek(fd, off, 0)
		must(t, err)
		buf := make([]byte, 2000)
		for {
			n, err := unix.ReadDirent(fd, buf)
			must(t, err)
			if n == 0 {
				return list
			}
			_, _, list = unix.ParseDirent(buf[:n], -1, list)
		}
	}
	all := names(0)
	want(t, "names", len(all), 300)
	var places []place
	_, err = unix.Seek(fd, 0, 0)
	must(t, err)
	for seen := 0; seen < len(all); {
		buf := make([]byte, 1000)
		n, err := unix.ReadDirent(fd, buf)
		must(t, err)
		_, got, _ := unix.ParseDirent(buf[:n], -1, nil)
		seen += got
		off, err := unix.Seek(fd, 0, 1)
		must(t, err)
		places = append(places, place{off, strings.Join(all[seen:], " ")})
	}
	write(t, filepath.Join(dir, "a-new-one"), "")
	must(t, os.Remove(filepath.Join(dir, all[0])))
	for _, p := range places {
		var rest []string
		for _, name := range names(p.off) {
			if name != "a-new-one" {
				rest = append(rest, name)
			}
		}
		if got := strings.Join(rest, " "); got != p.rest && got != strings.TrimPrefix(p.rest, all[0]+" ") {
			t.Errorf("behind %d: got %.200s, want %.200s", p.off, got, p.rest)
		}
	}
}

func testBigDir(t *testing.T, dir string) {
	n := 3000
	if testing.Short() {
		n = 500
	}
	for i := range n {
		must(t, os.Symlink("t", filepath.Join(dir, fmt.Sprintf("link-%d", i))))
	}
	for range 2 { // from the master and from what was kept
		entries, err := os.ReadDir(dir)
		must(t, err)
		want(t, "entries", len(entries), n)
	}
	must(t, os.RemoveAll(dir))
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("removed directory: %v", err)
	}
}

func testStatfs(t *testing.T, dir string) {
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Blocks == 0 || st.Bfree == 0 || st.Bfree > st.Blocks || st.Ffree == 0 || st.Namelen != 255 {
		t.Errorf("statfs says %+v", st)
	}
}

func testIoctl(t *testing.T, dir string) {
	f := open(t, filepath.Join(dir, "file"), os.O_CREATE|os.O_RDWR)
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != unix.ENOTTY {
		t.Errorf("a file is a terminal: %v", err)
	}
}

func testOpenOnDirs(t *testing.T, dir string) {
	_, err := unix.Open(dir, unix.O_RDWR, 0)
	want(t, "write a directory", err, error(unix.EISDIR))
	name := filepath.Join(dir, "file")
	write(t, name, "")
	_, err = unix.Open(name, unix.O_DIRECTORY, 0)
	want(t, "O_DIRECTORY of a file", err, error(unix.ENOTDIR))
	_, err = unix.Open(name, unix.O_CREAT|unix.O_EXCL, 0o600)
	want(t, "O_EXCL of a file", err, error(unix.EEXIST))
	must(t, os.Symlink(name, name+"-link"))
	_, err = unix.Open(name+"-link", unix.O_NOFOLLOW, 0)
	want(t, "O_NOFOLLOW of a link", err, error(unix.ELOOP))
	want(t, "rmdir of a file", unix.Rmdir(name), error(unix.ENOTDIR))
	want(t, "unlink of a directory", unix.Unlink(dir), error(unix.EISDIR))
	want(t, "rmdir of a full directory", unix.Rmdir(dir), error(unix.ENOTEMPTY))
}
