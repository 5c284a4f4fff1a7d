package image

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is read at once, and how many such pieces may be ahead of who takes them:
// the disk always has something to do, and what is read is looked at meanwhile.
const (
	readSize  = 1 << 20
	readAhead = 4
)

// aheadReader reads a file once, from its start to its end, past the page cache
// where that is possible.
type aheadReader struct {
	f     *os.File
	mem   []byte // of all pieces; memory of a mapping is aligned to pages
	full  chan readPiece
	empty chan []byte
	stop  chan struct{}
	wg    sync.WaitGroup
	got   readPiece // the one that is being taken
	rest  []byte    // of it
}

type readPiece struct {
	buf []byte
	n   int
	err error // behind the n bytes
}

// openAhead opens a file. Close closes it.
func openAhead(path string) (*aheadReader, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, readAhead*readSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("mmap", err)
	}
	r := &aheadReader{
		f: f, mem: mem, full: make(chan readPiece, readAhead), empty: make(chan []byte, readAhead), stop: make(chan struct{}),
	}
	for at := 0; at < len(mem); at += readSize {
		r.empty <- mem[at : at+readSize]
	}
	r.wg.Go(r.run)
	return r, nil
}

// run reads until the file ends, fails or is closed.
func (r *aheadReader) run() {
	for {
		var p readPiece
		select {
		case p.buf = <-r.empty:
		case <-r.stop:
			return
		}
		p.n, p.err = r.f.Read(p.buf)
		r.full <- p // there is room for all pieces
		if p.err != nil {
			return
		}
	}
}

// Read gives what is there of the next piece.
func (r *aheadReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.got.err != nil {
			return 0, r.got.err
		}
		if r.got.buf != nil {
			r.empty <- r.got.buf
		}
		r.got = <-r.full
		r.rest = r.got.buf[:r.got.n]
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close closes the file and gives its memory back.
func (r *aheadReader) Close() error {
	close(r.stop)
	r.wg.Wait()
	unix.Munmap(r.mem)
	return r.f.Close()
}
