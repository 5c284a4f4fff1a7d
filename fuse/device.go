package fuse

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mountDevice mounts on dir (absolute, checked) and returns a descriptor of
// /dev/fuse from which the kernel's requests can be read. The caller owns it.
func mountDevice(dir string, o *Options, maxRead int) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, deviceError(err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRead)
	if o.AllowOther {
		data += ",allow_other"
	}
	err = unix.Mount(o.FSName, dir, fsType, o.mountFlags(), data)
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EPERM) {
		return helperMount(dir, o, maxRead)
	}
	return -1, fmt.Errorf("mount %s: %w", dir, err)
}

// deviceError says why /dev/fuse cannot be opened.
func deviceError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open /dev/fuse: %w; load the kernel module with modprobe fuse (in a container: --device /dev/fuse)", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("open /dev/fuse: %w; mount as root (in a container: --device /dev/fuse --cap-add SYS_ADMIN)", err)
	}
	return fmt.Errorf("open /dev/fuse: %w", err)
}

// helperMount lets the setuid program fusermount3 mount for a user without
// CAP_SYS_ADMIN; it sends the descriptor back over a socket.
func helperMount(dir string, o *Options, maxRead int) (int, error) {
	bin, err := helper()
	if err != nil {
		return -1, fmt.Errorf("mount %s: only root may mount without fusermount3; run as root or install the package fuse3", dir)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: socketpair: %w", dir, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount"), os.NewFile(uintptr(pair[1]), "fusermount")
	defer ours.Close()
	defer theirs.Close()

	words := append(o.helperWords(), "fsname="+o.FSName, "subtype=varve", "default_permissions",
		fmt.Sprintf("max_read=%d", maxRead))
	if o.AllowOther {
		words = append(words, "allow_other")
	}
	cmd := exec.Command(bin, "-o", strings.Join(words, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err != nil {
		return -1, fmt.Errorf("mount %s: %s: %w", dir, strings.TrimSpace(string(out)), err)
	}
	fd, err := receiveDescriptor(ours)
	if err != nil {
		return -1, fmt.Errorf("mount %s: descriptor from fusermount3: %w", dir, err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// receiveDescriptor takes the one descriptor that is sent over a unix socket.
func receiveDescriptor(sock *os.File) (int, error) {
	conn, err := net.FileConn(sock)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return -1, fmt.Errorf("%T is not a unix socket", conn)
	}
	data, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unixConn.ReadMsgUnix(data, control)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	if len(msgs) != 1 {
		return -1, fmt.Errorf("%d control messages instead of 1", len(msgs))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors instead of 1", len(fds))
	}
	return fds[0], nil
}

// helperUnmount unmounts for a user without CAP_SYS_ADMIN.
func helperUnmount(dir string, lazy bool) error {
	bin, err := helper()
	if err != nil {
		return unix.EPERM
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.Command(bin, append(args, "--", dir)...).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "busy"):
		return unix.EBUSY
	}
	return fmt.Errorf("%s: %w", strings.TrimSpace(string(out)), err)
}

func helper() (string, error) {
	if bin, err := exec.LookPath("fusermount3"); err == nil {
		return bin, nil
	}
	return exec.LookPath("fusermount")
}
