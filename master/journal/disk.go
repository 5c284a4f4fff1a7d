package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names in the directory. Files are numbered from 1 on, in hexadecimal.
const (
	suffix    = ".wal"
	lockName  = "LOCK"
	spareName = "spare"   // a file that Compact gave up, to be used again
	newName   = "new.tmp" // a file that is being filled with zeros
)

func fileName(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

// listFiles returns the numbers of the log files in dir, ascending.
func listFiles(dir string) ([]uint64, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range names {
		base, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || len(base) != 16 {
			continue
		}
		if n, err := strconv.ParseUint(base, 16, 64); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}

// file is the log file that is being written. Offsets, lengths and buffers are
// multiples of page. All bytes have been written before, so that no write
// changes the file's length or blocks.
type file interface {
	// Write overwrites bytes; they are durable after WriteSync or a later Sync.
	Write(b []byte, off int64) error
	WriteSync(b []byte, off int64) error
	Sync() error
	Close() error
}

// osFile is a file of the host. With direct, a durable write is one
// pwritev2(RWF_DSYNC) past the page cache, which a disk with FUA takes as one
// command; without, data stays in the page cache until Sync.
type osFile struct {
	f    *os.File
	fd   int
	name string
}

// openFile opens path for writing. direct asks for O_DIRECT and is dropped where
// the file system has none (tmpfs): RWF_DSYNC alone is as safe.
func openFile(path string, direct bool) (file, error) {
	flags := os.O_RDWR
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if direct && errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, fd: int(f.Fd()), name: path}, nil
}

func (o *osFile) write(b []byte, off int64, flags int) error {
	for {
		n, err := unix.Pwritev2(o.fd, [][]byte{b}, off, flags)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n != len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("%s: write of %d bytes at %d: %w", o.name, len(b), off, err)
		}
		return nil
	}
}

func (o *osFile) Write(b []byte, off int64) error     { return o.write(b, off, 0) }
func (o *osFile) WriteSync(b []byte, off int64) error { return o.write(b, off, unix.RWF_DSYNC) }

func (o *osFile) Sync() error {
	for {
		if err := unix.Fdatasync(o.fd); err == nil {
			return nil
		} else if err != unix.EINTR {
			return fmt.Errorf("%s: fdatasync: %w", o.name, err)
		}
	}
}

func (o *osFile) Close() error { return o.f.Close() }

// prepareFile makes log file number in dir with size bytes that have all been
// written and synced: from the spare if there is one, else by writing zeros.
// What a spare still holds cannot be mistaken: its frames have another number.
func prepareFile(dir string, number uint64, size int64) error {
	path := filepath.Join(dir, fileName(number))
	spare := filepath.Join(dir, spareName)
	if st, err := os.Stat(spare); err == nil && st.Size() == size {
		if err := os.Rename(spare, path); err != nil {
			return err
		}
		return syncDir(dir)
	}
	tmp := filepath.Join(dir, newName)
	if err := zeroFile(tmp, size); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// zeroFile writes size zero bytes to path, durably. Preallocation alone would
// not do: the first write to an unwritten extent costs a journal commit of the
// host's file system with every sync.
func zeroFile(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && err != unix.EOPNOTSUPP {
		return fmt.Errorf("%s: reserve %d bytes: %w", path, size, err)
	}
	zeros := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// syncDir makes names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// lockDir takes the directory for this process: two masters that write one log
// would destroy it. The kernel drops the lock when the process dies.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: in use by another master (process %s)", dir, strings.TrimSpace(string(holder[:n])))
		}
		return nil, fmt.Errorf("%s: lock: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only for the sentence above
	}
	return f, nil
}
