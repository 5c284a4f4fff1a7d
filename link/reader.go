package link

import (
	"io"
	"sync/atomic"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	readBuffer = 64 << 10
	bulkData   = 32 << 10 // from here on data is bulk
	bulkFill   = 4 << 10  // what is read ahead after bulk, so that little is copied
)

// reader cuts the byte stream into frames. It is used by one goroutine;
// progress and waiting are read by the connection's timer.
type reader struct {
	src      io.Reader
	buf      []byte
	r, w     int
	maxBody  uint32
	bulk     bool          // the last frame had bulk data
	progress atomic.Uint64 // reads that brought bytes
	waiting  atomic.Bool   // inside src.Read
}

func newReader(src io.Reader) *reader {
	return &reader{src: src, buf: make([]byte, readBuffer), maxBody: wire.MaxBody}
}

func (d *reader) read(p []byte) (int, error) {
	d.waiting.Store(true)
	n, err := d.src.Read(p)
	d.waiting.Store(false)
	if n > 0 {
		d.progress.Add(1)
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// peek returns the next n bytes, n <= len(buf), without consuming them. They
// are valid until the next peek.
func (d *reader) peek(n int) ([]byte, error) {
	for d.w-d.r < n {
		if d.r > 0 && (d.r == d.w || d.r+n > len(d.buf)) {
			d.w = copy(d.buf, d.buf[d.r:d.w])
			d.r = 0
		}
		end := len(d.buf)
		if d.bulk {
			end = min(end, max(d.w+bulkFill, d.r+n))
		}
		m, err := d.read(d.buf[d.w:end])
		if err != nil {
			if err == io.EOF && d.w > d.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		d.w += m
	}
	return d.buf[d.r : d.r+n], nil
}

// full fills p from the buffer and then straight from the source.
func (d *reader) full(p []byte) error {
	n := copy(p, d.buf[d.r:d.w])
	d.r += n
	for n < len(p) {
		m, err := d.read(p[n:])
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n += m
	}
	return nil
}

// skip drops n bytes.
func (d *reader) skip(n int) error {
	b := buffer.Get(min(n, readBuffer))
	defer buffer.Put(b)
	for n > 0 {
		p := b[:min(n, len(b))]
		if err := d.full(p); err != nil {
			return err
		}
		n -= len(p)
	}
	return nil
}

// next returns the header and the checked body of the next frame. The body is
// valid until the following call; its data has yet to be read by full or skip.
func (d *reader) next() (wire.Header, []byte, error) {
	b, err := d.peek(wire.HeaderSize)
	if err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.DecodeHeader(b)
	if err != nil {
		return wire.Header{}, nil, err
	}
	if h.Body > d.maxBody {
		return wire.Header{}, nil, status.Errorf(status.BadMessage, "body of %d bytes where %d are allowed", h.Body, d.maxBody)
	}
	d.bulk = h.Data >= bulkData
	var body []byte
	n := wire.HeaderSize + int(h.Body)
	if n <= len(d.buf) {
		if b, err = d.peek(n); err != nil {
			return wire.Header{}, nil, unexpected(err)
		}
		d.r += n
		b, body = b[:wire.HeaderSize], b[wire.HeaderSize:]
	} else {
		b = append(make([]byte, 0, wire.HeaderSize), b...)
		d.r += wire.HeaderSize
		body = make([]byte, h.Body)
		if err := d.full(body); err != nil {
			return wire.Header{}, nil, err
		}
	}
	if err := wire.CheckBody(b, body); err != nil {
		return wire.Header{}, nil, err
	}
	return h, body, nil
}

// holds says whether the whole of another frame, but for its data, is in the buffer.
func (d *reader) holds() bool {
	if d.w-d.r < wire.HeaderSize {
		return false
	}
	h, err := wire.DecodeHeader(d.buf[d.r:d.w])
	return err == nil && d.w-d.r >= wire.HeaderSize+int(h.Body)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
