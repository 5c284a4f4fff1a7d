// Package files is the directory in which the changelog lives: names, and bytes
// behind them that are durable when it says so. Package journal knows what is in
// the files; this package knows how they get onto a disk. [Host] is a directory of
// the host; a simulation brings its own [Dir], which loses what was not synced.
//
// Nothing here has state but the open files; their owner is package journal.
package files

import "io"

// Dir is a directory. Names are without a path. Errors about a name that is not
// there are fs.ErrNotExist.
type Dir interface {
	// Path is what people are told where name is.
	Path(name string) string
	// List returns all names in ascending order.
	List() ([]string, error)
	// Size is the length of a file in bytes.
	Size(name string) (int64, error)
	// Read returns all bytes of a file.
	Read(name string) ([]byte, error)
	// Reader opens a file to read here and there.
	Reader(name string) (Reader, error)
	// Replace makes b all that name holds, at once: after a crash it has the old
	// bytes or, when Replace has returned, the new ones.
	Replace(name string, b []byte) error
	// Fill makes name a file of size zeros that have all been written and are durable.
	Fill(name string, size int64) error
	// Rename and Remove change names, durably after Sync and in order.
	Rename(from, to string) error
	Remove(name string) error
	Sync() error
	// Open opens a file for writing; direct asks for writes past the page cache.
	Open(name string, direct bool) (File, error)
	// Lock takes the directory for this process until the returned is closed.
	Lock() (io.Closer, error)
}

// Reader is a file that is being read.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// File is a log file that is being written. Offsets, lengths and buffers are
// multiples of 4096. All bytes have been written before, so that no write changes
// the file's length or blocks.
type File interface {
	// Write overwrites bytes; they are durable after WriteSync or a later Sync.
	Write(b []byte, off int64) error
	WriteSync(b []byte, off int64) error
	Sync() error
	Close() error
}
