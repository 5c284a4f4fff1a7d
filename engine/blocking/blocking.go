// Package blocking makes the system calls of which it is known that they wait for a disk.
//
// Go's scheduler takes every system call for a short one: it keeps the processor (P) for it,
// and its watcher (sysmon) looks again and again whether it is over, every 20 us at first. A
// synced write takes hundreds: of the processor time of one fsync the watchers of
// the processes that took part in it used a fifth, and they woke twenty times. Here the
// processor is given back before the call, as the runtime does around its own long waits.
//
// Packages engine/host and master/journal/files call it. There is no state.
package blocking

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// syscall6 is [syscall.Syscall6] for a call that sleeps, in the same terms: the caller
// keeps alive what the arguments point to.
//
//go:nosplit
//go:norace
func syscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, errno syscall.Errno) {
	entersyscallblock()
	r1, r2, errno = syscall.RawSyscall6(trap, a1, a2, a3, a4, a5, a6)
	exitsyscall()
	return r1, r2, errno
}

// WriteSync writes buf at off and returns when it, and what is needed to read it back, is
// on stable storage: pwritev2(2) with RWF_DSYNC. It returns the bytes written, which may be
// fewer, or an error number. It does not allocate.
func WriteSync(fd int, buf []byte, off int64) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(buf)}
	iov.SetLen(len(buf))
	n, _, errno := syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32), unix.RWF_DSYNC)
	runtime.KeepAlive(buf)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Datasync is fdatasync(2).
func Datasync(fd int) error {
	if _, _, errno := syscall6(unix.SYS_FDATASYNC, uintptr(fd), 0, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
