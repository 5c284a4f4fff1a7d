package codec

import (
	"bytes"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// sample has a field of every kind.
type sample struct {
	A uint8
	B uint16
	C uint32
	D uint64
	E int64
	F bool
	G string
	H []byte
	I []uint32
	J []string
	K uint16
}

func (s *sample) Fields(c *Codec) {
	c.U8(&s.A)
	c.U16(&s.B)
	c.U32(&s.C)
	c.U64(&s.D)
	c.I64(&s.E)
	c.Bool(&s.F)
	c.Str(&s.G, 16)
	c.Bytes(&s.H, 16)
	c.U32s(&s.I, 8)
	List(c, &s.J, 4, 4, func(c *Codec, v *string) { c.Str(v, 16) })
	Uint(c, &s.K)
}

var full = sample{1, 2, 3, 4, -5, true, "six", []byte{7}, []uint32{8, 9}, []string{"ten", ""}, 65535}

func TestRoundTrip(t *testing.T) {
	for _, in := range []sample{{}, full} {
		b := Append([]byte("before"), &in)
		var out sample
		if err := Decode(b[6:], &out); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) && (len(out.I) > 0 || len(in.I) > 0) {
			t.Errorf("got %+v, want %+v", out, in)
		}
	}
}

// Encoding only reads: a value may be encoded by several goroutines at once. The
// race detector says when it is not so.
func TestEncodeReadsOnly(t *testing.T) {
	shared, want := full, Append(nil, &full)
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			if got := Append(nil, &shared); !bytes.Equal(got, want) {
				t.Errorf("% x instead of % x", got, want)
			}
		})
	}
	done.Wait()
}

// TestDamaged decodes every prefix, and bytes that lie about lengths.
func TestDamaged(t *testing.T) {
	b := Append(nil, &full)
	for n := range b {
		if err := Decode(b[:n], new(sample)); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(b))
		}
	}
	for change, want := range map[int]string{
		23: "bool is",      // F
		24: "the limit is", // length of G
	} {
		bad := append([]byte(nil), b...)
		bad[change] = 0xff
		if err := Decode(bad, new(sample)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("byte %d: %v, want ...%s...", change, err, want)
		}
	}
	if err := Decode(append(b, 0), new(sample)); err == nil || !strings.Contains(err.Error(), "1 bytes too many") {
		t.Errorf("a byte too many: %v", err)
	}
	if rest, err := DecodePrefix(append(b, 1, 2), new(sample)); err != nil || len(rest) != 2 {
		t.Errorf("prefix: %v, %v", rest, err)
	}
	var narrow struct{ sample }
	wide := Append(nil, &sample{})
	wide[len(wide)-6] = 1 // K does not fit in 16 bits
	if err := Decode(wide, &narrow.sample); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("too large a number: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, &full))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again sample
		if Decode(b, &s) != nil {
			return
		}
		if err := Decode(Append(nil, &s), &again); err != nil {
			t.Fatal(err)
		}
	})
}
