// Package image keeps the metadata on disk: one file holds a whole state.State
// as it was behind one entry of the changelog. The format is in FORMAT.md.
//
// The master's loop freezes its state and hands the View to a goroutine that
// calls Save; at start the master calls Load and applies the changelog from
// Meta.Index on. The package owns the files image.* of its directory and
// nothing in memory. Only one Save may run in a directory at a time.
package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/master/state"
)

// Meta says which moment an image holds.
type Meta struct {
	Index uint64 // of the last entry of the changelog that is in it
	Term  uint64 // of that entry
	Time  int64  // when it was written, nanoseconds since 1970
}

// Fields encodes and decodes.
func (m *Meta) Fields(c *codec.Codec) {
	c.U64(&m.Index)
	c.U64(&m.Term)
	c.I64(&m.Time)
}

// What an image is made of; see FORMAT.md.
const (
	magic       = "VARVEIMG"
	version     = 1
	headerSize  = len(magic) + 4
	sectionMeta = "meta"
	sectionEnd  = "end"
	maxBlock    = 1 << 30 // bytes of one block's payload
	bufferSize  = 128 << 10
)

// DamageError says where an image is damaged.
type DamageError struct {
	Section string // of the damaged block, or the one before it
	Reason  string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the image is damaged in section %q: %s", e.Section, e.Reason)
}

// end is the last block.
type end struct {
	blocks uint64 // before it
	bytes  uint64 // before it, header included
}

// Fields encodes and decodes.
func (e *end) Fields(c *codec.Codec) {
	c.U64(&e.blocks)
	c.U64(&e.bytes)
}

// encoder writes blocks. Each checksum continues the one before, so that a block
// is right only in its place.
type encoder struct {
	w   *bufio.Writer
	sum uint32
	end end
	buf []byte
}

func (e *encoder) write(b []byte) error {
	e.end.bytes += uint64(len(b))
	_, err := e.w.Write(b)
	return err
}

func (e *encoder) block(section string, payload []byte) error {
	if len(payload) > maxBlock {
		return fmt.Errorf("section %q has a block of %d bytes", section, len(payload))
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf[:0], uint32(len(payload)))
	e.buf = append(e.buf, byte(len(section)))
	e.buf = append(e.buf, section...)
	e.sum = chunk.SumUpdate(chunk.SumUpdate(e.sum, e.buf), payload)
	e.end.blocks++
	runtime.Gosched() // whoever serves meanwhile shall not wait until the scheduler takes the processor away
	if err := e.write(e.buf); err != nil {
		return err
	}
	if err := e.write(payload); err != nil {
		return err
	}
	return e.write(binary.LittleEndian.AppendUint32(e.buf[:0], e.sum))
}

// Write writes an image. It reads v only, so that the state may go on.
func Write(w io.Writer, v *state.View, m Meta) error {
	e := &encoder{w: bufio.NewWriterSize(w, bufferSize)}
	head := binary.LittleEndian.AppendUint32([]byte(magic), version)
	e.sum = chunk.Sum(head)
	if err := e.write(head); err != nil {
		return err
	}
	if err := e.block(sectionMeta, codec.Append(nil, &m)); err != nil {
		return err
	}
	if err := v.Save(e.block); err != nil {
		return err
	}
	last := e.end
	if err := e.block(sectionEnd, codec.Append(nil, &last)); err != nil {
		return err
	}
	return e.w.Flush()
}

// decoder reads blocks.
type decoder struct {
	r       io.Reader
	sum     uint32
	end     end
	section string        // of the last block
	buf     []byte        // the last block
	room    func() []byte // gives the buffer for the next block; nil: the same again
}

func newDecoder(r io.Reader) *decoder {
	if _, ok := r.(*aheadReader); ok {
		return &decoder{r: r} // it has the bytes
	}
	return &decoder{r: bufio.NewReaderSize(r, bufferSize)}
}

func (d *decoder) damaged(format string, args ...any) error {
	return &DamageError{Section: d.section, Reason: fmt.Sprintf(format, args...)}
}

// full reads n bytes into the buffer behind what is there. The buffer grows with
// what the file really has, whatever length it claims.
func (d *decoder) full(n int) error {
	for n > 0 {
		at := len(d.buf)
		step := min(n, bufferSize)
		d.buf = append(d.buf, make([]byte, step)...)
		if _, err := io.ReadFull(d.r, d.buf[at:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return d.damaged("the file ends too early")
			}
			return err
		}
		n -= step
	}
	return nil
}

// block reads the next block; the payload is good while buf is.
func (d *decoder) block() (section string, payload []byte, err error) {
	if d.room != nil {
		d.buf = d.room()
	}
	d.buf = d.buf[:0]
	if err = d.full(5); err != nil {
		return "", nil, err
	}
	size, name := int(binary.LittleEndian.Uint32(d.buf)), int(d.buf[4])
	if size > maxBlock {
		return "", nil, d.damaged("a block claims %d bytes", size)
	}
	if err = d.full(name + size + 4); err != nil {
		return "", nil, err
	}
	body := d.buf[:5+name+size]
	d.sum = chunk.SumUpdate(d.sum, body)
	if got := binary.LittleEndian.Uint32(d.buf[len(body):]); got != d.sum {
		return "", nil, d.damaged("checksum %08x of the next block should be %08x", got, d.sum)
	}
	d.section = string(body[5 : 5+name])
	d.end.blocks++
	d.end.bytes += uint64(len(d.buf))
	return d.section, body[5+name:], nil
}

func (d *decoder) header() error {
	d.section = "header"
	if err := d.full(headerSize); err != nil {
		return err
	}
	if string(d.buf[:len(magic)]) != magic {
		return d.damaged("this is not an image")
	}
	if v := binary.LittleEndian.Uint32(d.buf[len(magic):]); v != version {
		return d.damaged("format version %d; this version of varve reads version %d", v, version)
	}
	d.sum = chunk.Sum(d.buf)
	d.end.bytes = uint64(len(d.buf))
	return nil
}

// Read reads an image and checks all of it. Damage is a *DamageError.
func Read(r io.Reader) (*state.State, Meta, error) {
	d := newDecoder(r)
	load := state.NewLoader()
	// The blocks are read and summed while those before them are taken apart.
	pipe := newPipe(load.Block)
	d.room = pipe.room
	m, err := d.walk(func(section string, payload []byte) error { return pipe.give(section, payload, d.buf) })
	if e := pipe.end(); e != nil {
		err = e
	}
	if err != nil {
		return nil, m, err
	}
	s, err := load.Done(together)
	if err != nil {
		return nil, m, d.damaged("%v", err)
	}
	return s, m, nil
}

// Verify checks that an image is whole, without making a state of it: that takes
// no memory. Damage is a *DamageError.
func Verify(r io.Reader) (Meta, error) {
	d := newDecoder(r)
	return d.walk(func(string, []byte) error { return nil })
}

// walk reads a whole image and gives all blocks of the state to visit.
func (d *decoder) walk(visit func(section string, payload []byte) error) (m Meta, err error) {
	if err := d.header(); err != nil {
		return m, err
	}
	section, payload, err := d.block()
	if err != nil {
		return m, err
	}
	if section != sectionMeta {
		return m, d.damaged("section %q is missing", sectionMeta)
	}
	if err := codec.Decode(payload, &m); err != nil {
		return m, d.damaged("%v", err)
	}
	for {
		before := d.end
		if section, payload, err = d.block(); err != nil {
			return m, err
		}
		if section == sectionEnd {
			return m, d.last(payload, before)
		}
		if err := visit(section, payload); err != nil {
			return m, d.damaged("%v", err)
		}
	}
}

// last checks the end of the file.
func (d *decoder) last(payload []byte, before end) error {
	var e end
	if err := codec.Decode(payload, &e); err != nil {
		return d.damaged("%v", err)
	}
	if e != before {
		return d.damaged("%d blocks in %d bytes were written, %d in %d are there", e.blocks, e.bytes, before.blocks, before.bytes)
	}
	switch _, err := io.ReadFull(d.r, make([]byte, 1)); {
	case err == nil:
		return d.damaged("bytes follow the end")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
