// Package codec turns structs into bytes and back with one method per struct.
//
// A struct lists its fields once, in order, in a method Fields(*Codec); the
// same method encodes and decodes, so that the two can never differ. Integers
// are little-endian and of fixed size; strings, bytes and lists carry a uint32
// length that is checked against a limit and against the bytes that are left
// before anything is allocated. Used by wire (messages), master/state (log
// entries) and master/image; it owns no state.
package codec

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Fields is what a struct offers to be encoded and decoded.
type Fields interface{ Fields(*Codec) }

// Codec is an encoder or a decoder over one buffer.
type Codec struct {
	buf      []byte
	off      int
	decoding bool
	err      error
}

// Append encodes f behind dst.
func Append(dst []byte, f Fields) []byte {
	c := codecs.Get().(*Codec)
	c.buf = dst
	f.Fields(c)
	dst = c.buf
	c.recycle()
	return dst
}

// codecs are used again and again: one would go to the heap for each message, since
// nobody can say what a Fields method does with it. None keeps it.
var codecs = sync.Pool{New: func() any { return new(Codec) }}

func (c *Codec) recycle() {
	*c = Codec{}
	codecs.Put(c)
}

// Decode fills f from b. All of b must be used.
func Decode(b []byte, f Fields) error {
	c := codecs.Get().(*Codec)
	defer c.recycle()
	c.buf, c.decoding = b, true
	f.Fields(c)
	if c.err == nil && c.off != len(b) {
		c.err = fmt.Errorf("%d bytes too many behind %T", len(b)-c.off, f)
	}
	if c.err != nil {
		return fmt.Errorf("decode %T: %w", f, c.err)
	}
	return nil
}

// DecodePrefix fills f from the start of b and returns what is left of b.
func DecodePrefix(b []byte, f Fields) ([]byte, error) {
	c := codecs.Get().(*Codec)
	defer c.recycle()
	c.buf, c.decoding = b, true
	f.Fields(c)
	if c.err != nil {
		return nil, fmt.Errorf("decode %T: %w", f, c.err)
	}
	return b[c.off:], nil
}

// Decoding tells a Fields method which way it runs.
func (c *Codec) Decoding() bool { return c.decoding }

// Fail makes the decoding fail with err, unless it already has.
func (c *Codec) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// take returns the next n bytes to decode, or nil when they are not there.
func (c *Codec) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.buf)-c.off {
		c.err = fmt.Errorf("%d bytes wanted at %d, %d are left", n, c.off, len(c.buf)-c.off)
		return nil
	}
	b := c.buf[c.off : c.off+n]
	c.off += n
	return b
}

// U8 is one byte.
func (c *Codec) U8(v *uint8) {
	if !c.decoding {
		c.buf = append(c.buf, *v)
	} else if b := c.take(1); b != nil {
		*v = b[0]
	}
}

// U16 is two bytes.
func (c *Codec) U16(v *uint16) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint16(c.buf, *v)
	} else if b := c.take(2); b != nil {
		*v = binary.LittleEndian.Uint16(b)
	}
}

// U32 is four bytes.
func (c *Codec) U32(v *uint32) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *v)
	} else if b := c.take(4); b != nil {
		*v = binary.LittleEndian.Uint32(b)
	}
}

// U64 is eight bytes.
func (c *Codec) U64(v *uint64) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *v)
	} else if b := c.take(8); b != nil {
		*v = binary.LittleEndian.Uint64(b)
	}
}

// I64 is eight bytes, two's complement.
func (c *Codec) I64(v *int64) {
	u := uint64(*v)
	if c.U64(&u); c.decoding {
		*v = int64(u)
	}
}

// Bool is one byte, 0 or 1; anything else fails.
func (c *Codec) Bool(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	if c.U8(&b); !c.decoding {
		return
	}
	if b > 1 {
		c.Fail(fmt.Errorf("bool is %d", b))
	}
	*v = b == 1
}

// Str is a string of at most limit bytes.
func (c *Codec) Str(v *string, limit int) {
	n := c.Len(len(*v), limit, 1)
	if !c.decoding {
		c.buf = append(c.buf, *v...)
	} else {
		*v = string(c.take(n))
	}
}

// Bytes is a byte slice of at most limit bytes. Decoded slices are copies.
func (c *Codec) Bytes(v *[]byte, limit int) {
	n := c.Len(len(*v), limit, 1)
	if !c.decoding {
		c.buf = append(c.buf, *v...)
	} else if b := c.take(n); len(b) > 0 {
		*v = append([]byte(nil), b...)
	} else {
		*v = nil
	}
}

// Len is the length of a list: at most limit, and, when decoding, not more
// elements of at least size bytes than there are bytes left.
func (c *Codec) Len(n, limit, size int) int {
	if !c.decoding && n > limit {
		panic(fmt.Sprintf("BUG: list of %d elements where %d are allowed", n, limit))
	}
	u := uint32(n)
	c.U32(&u)
	if !c.decoding {
		return n
	}
	if c.err != nil {
		return 0
	}
	if int64(u) > int64(limit) || int64(u)*int64(size) > int64(len(c.buf)-c.off) {
		c.Fail(fmt.Errorf("length %d at %d: the limit is %d, %d bytes are left", u, c.off-4, limit, len(c.buf)-c.off))
		return 0
	}
	return int(u)
}

// List is a slice of at most limit elements of at least size encoded bytes each.
func List[T any](c *Codec, v *[]T, limit, size int, each func(*Codec, *T)) {
	n := c.Len(len(*v), limit, size)
	if c.decoding {
		*v = nil
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		each(c, &(*v)[i])
		if c.err != nil {
			return
		}
	}
}

// U32s is a list of uint32, without a call per element.
func (c *Codec) U32s(v *[]uint32, limit int) {
	n := c.Len(len(*v), limit, 4)
	if !c.decoding {
		for _, x := range *v {
			c.buf = binary.LittleEndian.AppendUint32(c.buf, x)
		}
		return
	}
	b := c.take(n * 4)
	*v = (*v)[:0]
	for i := 0; i+4 <= len(b); i += 4 {
		*v = append(*v, binary.LittleEndian.Uint32(b[i:]))
	}
}

// Uint encodes any unsigned type as eight bytes.
func Uint[T ~uint64 | ~uint32 | ~uint16 | ~uint8](c *Codec, v *T) {
	u := uint64(*v)
	if c.U64(&u); !c.decoding {
		return
	}
	*v = T(u)
	if uint64(*v) != u {
		c.Fail(fmt.Errorf("%d does not fit in %T", u, *v))
	}
}
