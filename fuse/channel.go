package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Notifications are replies that nobody asked for: a header with unique 0 and
// the notification's number where replies carry their error. See fuse_dev_do_write
// and struct fuse_out_header in the kernel.
const (
	notifyInode = 2 // FUSE_NOTIFY_INVAL_INODE
	notifyEntry = 3 // FUSE_NOTIFY_INVAL_ENTRY

	// expireOnly ends an entry's TTL and leaves the rest alone: without it the
	// kernel drops the whole tree below, evicts inodes with their pages, takes
	// the working directory from under processes and detaches mounts below.
	expireOnly = 1

	outHeaderSize = 16
)

// wholeFile as the length of a data notification means "to the end".
const wholeFile = 0

// channel is the descriptor on which notifications go to the kernel. Its
// methods may be called by several goroutines at once.
type channel struct {
	file *os.File
	conn syscall.RawConn
}

// newChannel duplicates a descriptor of /dev/fuse.
func newChannel(fd int) (*channel, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate /dev/fuse: %w", err)
	}
	file := os.NewFile(uintptr(dup), "/dev/fuse")
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("duplicate /dev/fuse: %w", err)
	}
	return &channel{file: file, conn: conn}, nil
}

func (c *channel) close() { c.file.Close() }

// send writes one notification. It may block while the kernel holds what the
// notification is about. The kernel's not knowing the inode or the name is no error.
func (c *channel) send(b []byte) error {
	var err error
	// Control holds a reference, so that close cannot free the descriptor's
	// number while a blocked notification still uses it.
	ctlErr := c.conn.Control(func(fd uintptr) {
		for {
			if _, err = unix.Write(int(fd), b); err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case ctlErr != nil:
		return ctlErr
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	return err
}

// appendHeader appends a fuse_out_header for a notification whose body has n bytes.
func appendHeader(b []byte, code int32, n int) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(outHeaderSize+n))
	b = binary.NativeEndian.AppendUint32(b, uint32(code))
	return binary.NativeEndian.AppendUint64(b, 0)
}

// encodeInode makes a notification that a node's attributes and, unless off is
// negative, its cached pages in off..off+length-1 are no longer valid.
func encodeInode(node uint64, off, length int64) []byte {
	const body = 24
	b := appendHeader(make([]byte, 0, outHeaderSize+body), notifyInode, body)
	b = binary.NativeEndian.AppendUint64(b, node)
	b = binary.NativeEndian.AppendUint64(b, uint64(off))
	return binary.NativeEndian.AppendUint64(b, uint64(length))
}

// encodeEntry makes a notification that a name in a directory must be looked up again.
func encodeEntry(parent uint64, name string, flags uint32) []byte {
	body := 16 + len(name) + 1
	b := appendHeader(make([]byte, 0, outHeaderSize+body), notifyEntry, body)
	b = binary.NativeEndian.AppendUint64(b, parent)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(name)))
	b = binary.NativeEndian.AppendUint32(b, flags)
	b = append(b, name...)
	return append(b, 0)
}
