// Package engine submits and completes disk operations. It knows files of fixed
// size in one directory, aligned buffers and whole transfers; it knows nothing of
// chunks, segments or frames.
//
// Package segment and the master's journal call it. Three backends stand behind
// the same interfaces: engine/uring (io_uring), engine/posix (pread and pwrite by
// a pool of workers) and engine/sim (a disk in memory that tears, forgets, lies and
// crashes on demand). engine/open picks a backend for a directory; the suite in
// engine/enginetest holds what all of them must do.
//
// State is owned by the backends: a [Disk] owns its [File]s and its threads, an
// [Op] belongs to the backend from Submit until its Done is called, a buffer belongs
// to whoever holds the slice. The package has no lock of its own.
package engine

import (
	"errors"
	"fmt"
	"sync"

	"github.com/varvefs/varve/buffer"
)

// Align is the unit, in bytes, of every offset, length and buffer address given to
// Read, Write and WriteSync. It suits direct I/O on every device with logical
// sectors of 512 or 4096 bytes.
const Align = buffer.Align

// Kind says what an [Op] does.
type Kind uint8

// The operations.
const (
	Read      Kind = iota // read the whole of Buf at Off
	Write                 // write Buf at Off; durable only after a later Sync
	WriteSync             // write Buf at Off with RWF_DSYNC: Buf, and only Buf, is durable when it is done
	Sync                  // fdatasync: every write that was done before the Sync was submitted is durable
)

func (k Kind) String() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case WriteSync:
		return "write-sync"
	case Sync:
		return "sync"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Errors of the engine itself. Errors of the operating system come as
// syscall.Errno inside an [*IOError]; a transfer that stops early is
// io.ErrUnexpectedEOF (reads) or io.ErrShortWrite (writes).
var (
	ErrClosed     = errors.New("file or disk is closed")
	ErrMisaligned = errors.New("offset, length or buffer is not a multiple of 4096 bytes")
	ErrRange      = errors.New("operation reaches beyond the end of the file")
)

// Op is one asynchronous operation. The caller fills Kind, Buf, Off and Done, keeps
// Buf unchanged (for a Read: untouched) until Done is called, and may reuse the Op
// from within Done on.
//
// Done runs once, on a goroutine of the engine and never from within Submit (a simulated
// disk that steps by hand runs it in the stepping goroutine), after Err is set; calls for
// different ops may run at the same time and in any order. It must be short, must not
// block and must not close the File or the Disk; it may Submit.
type Op struct {
	Kind Kind
	Buf  []byte
	Off  int64
	Done func(*Op)
	Err  error // result, valid from Done on; nil means that all of Buf was transferred

	next   *Op // link in a backend's queue
	target any // the backend's file while the op is queued
}

// File is a file of fixed size. All methods may be called from several goroutines.
type File interface {
	// Name is the name given to Create or Open.
	Name() string

	// Size is the length in bytes, a multiple of Align.
	Size() int64

	// ReadAt fills buf from off in the calling goroutine. It does not wait behind
	// submitted ops. Bytes that were never written read as zero.
	ReadAt(buf []byte, off int64) error

	// Submit starts ops and returns without waiting for them. There is no order
	// among ops, submitted together or apart. It never fails: a bad op is done
	// with its error. The slice is not kept; a caller that submits often keeps it
	// itself, since Submit(op) makes a new one each time.
	Submit(ops ...*Op)

	// Zero writes zeros over [off, off+n) and waits. They are durable only after a
	// Sync. On the host's file systems it turns preallocated blocks into written
	// ones, on which a later WriteSync needs no journal commit and costs half.
	Zero(off, n int64) error

	// Close waits for the submitted ops and the reads under way, then closes. A
	// second Close returns ErrClosed. It does not make anything durable.
	Close() error
}

// Lender is a [File] that another process of this host may read without us.
type Lender interface {
	// Lend opens what the file lies in once more, for reading only, and with direct I/O
	// if the file is used so. The file's first byte is at base there. The caller closes
	// the descriptor; it stays good when the File or the Disk is closed.
	Lend() (fd int, base int64, err error)
}

// Disk is a set of files on one device. All methods may be called from several
// goroutines.
type Disk interface {
	// Backend names the implementation: "uring", "posix" or "sim".
	Backend() string

	// Create makes a file of size bytes (a multiple of Align) with all its space
	// reserved; file and directory entry are durable when it returns. An existing
	// name fails with fs.ErrExist, a full file system with syscall.ENOSPC; a failed
	// Create leaves nothing behind.
	Create(name string, size int64) (File, error)

	// Open opens an existing file, or fails with fs.ErrNotExist.
	Open(name string) (File, error)

	// List returns the names of all files, sorted.
	List() ([]string, error)

	// Remove deletes a file; that is durable when it returns. A file that is open
	// stays usable until it is closed.
	Remove(name string) error

	// Space is the size of the file system that holds the disk and what is free for
	// us in it, in bytes.
	Space() (total, free uint64, err error)

	// Close closes the files that are still open and then the disk.
	Close() error
}

// IOError tells which operation failed on which file.
type IOError struct {
	Kind Kind
	Name string // of the file
	Off  int64  // bytes
	Len  int    // bytes
	Err  error
}

func (e *IOError) Error() string {
	if e.Kind == Sync {
		return fmt.Sprintf("sync %s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s %s, %d bytes at %d: %v", e.Kind, e.Name, e.Len, e.Off, e.Err)
}

func (e *IOError) Unwrap() error { return e.Err }

// Do submits one operation to f and waits for it in the calling goroutine.
func Do(f File, kind Kind, buf []byte, off int64) error {
	c := calls.Get().(*call)
	c.op.Kind, c.op.Buf, c.op.Off = kind, buf, off
	f.Submit(c.ops[:]...)
	<-c.done
	err := c.op.Err
	c.op.Buf, c.op.Err = nil, nil
	calls.Put(c)
	return err
}

// call is what Do needs, kept together so that Do makes no garbage.
type call struct {
	op   Op
	ops  [1]*Op // the op, as Submit wants it
	done chan struct{}
}

var calls = sync.Pool{New: func() any {
	c := &call{done: make(chan struct{}, 1)}
	c.op.Done = func(*Op) { c.done <- struct{}{} }
	c.ops[0] = &c.op
	return c
}}
