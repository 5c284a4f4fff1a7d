package link

import (
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quickBytes is up to how many bytes a system call on a socket is made without a word
// to Go's scheduler. A socket here never blocks: such a call takes a few microseconds.
// The word costs more in a process that was idle a moment ago: it wakes the scheduler's
// watcher thread (sysmon), which then looks around every 20 us, on processors that
// others wait for, until all is idle again.
const quickBytes = 64 << 10

// socketReader reads from a socket. It is used by one goroutine.
type socketReader struct {
	raw syscall.RawConn
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool // attempt, bound once so that a read makes no garbage
}

func newSocketReader(raw syscall.RawConn) *socketReader {
	r := &socketReader{raw: raw}
	r.try = r.attempt
	return r
}

// Read waits until there is something to read.
func (r *socketReader) Read(p []byte) (int, error) {
	r.p, r.n, r.err = p, 0, nil
	err := r.raw.Read(r.try)
	r.p = nil
	if err == nil {
		err = r.err
	}
	if err == nil && r.n == 0 {
		err = io.EOF
	}
	return r.n, err
}

// attempt returns false when the socket has to be waited for.
func (r *socketReader) attempt(fd uintptr) bool {
	for {
		var err error
		if len(r.p) > quickBytes {
			r.n, err = unix.Read(int(fd), r.p)
		} else {
			r.n, err = quick(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(r.p)), len(r.p))
		}
		switch err {
		case nil:
			return true
		case unix.EAGAIN:
			r.n = 0
			return false
		case unix.EINTR:
		default:
			r.n, r.err = 0, err
			return true
		}
	}
}

// nonblocking is one attempt to write to a socket.
type nonblocking struct {
	iov   [][]byte
	bytes int // in iov
	n     int
	err   error
	vec   []unix.Iovec
	try   func(fd uintptr) bool // attempt, bound once so that a write makes no garbage
}

// attempt returns true in any case: the socket is not to be waited for.
func (w *nonblocking) attempt(fd uintptr) bool {
	for {
		switch {
		case w.bytes > quickBytes:
			w.n, w.err = unix.Writev(int(fd), w.iov)
		case len(w.iov) == 1:
			w.n, w.err = quick(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(w.iov[0])), len(w.iov[0]))
		default:
			w.n, w.err = w.quickly(fd)
		}
		if w.err != unix.EINTR {
			return true
		}
	}
}

// quickly is attempt for a few bytes in several pieces.
func (w *nonblocking) quickly(fd uintptr) (int, error) {
	w.vec = w.vec[:0]
	for _, b := range w.iov {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.vec = append(w.vec, v)
	}
	defer clear(w.vec)
	return quick(unix.SYS_WRITEV, fd, unsafe.Pointer(unsafe.SliceData(w.vec)), len(w.vec))
}

// quick is a system call of which the scheduler does not know.
func quick(call, fd uintptr, p unsafe.Pointer, n int) (int, error) {
	r, _, errno := unix.RawSyscall(call, fd, uintptr(p), uintptr(n))
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
