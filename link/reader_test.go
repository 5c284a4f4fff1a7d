package link

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/varvefs/varve/wire"
)

// dribble gives at most n bytes a read.
type dribble struct {
	r io.Reader
	n int
}

func (d dribble) Read(p []byte) (int, error) { return d.r.Read(p[:min(len(p), d.n)]) }

func TestReaderCuts(t *testing.T) {
	var stream []byte
	type want struct{ body, data int }
	var wants []want
	for i, w := range []want{{10, 0}, {0, 0}, {100, 5000}, {70000, 0}, {3, 200000}, {200000, 70000}, {1, 1}, {65536 - 32, 10}, {5000, 40000}} {
		m := &wire.AdminReply{JSON: pattern(w.body, 1)}
		stream = wire.AppendFrame(stream, wire.Header{Kind: m.Kind(), ID: uint64(i)}, m, w.data)
		stream = append(stream, pattern(w.data, 2)...)
		wants = append(wants, w)
	}
	for _, src := range []io.Reader{
		bytes.NewReader(stream), iotest.HalfReader(bytes.NewReader(stream)),
		dribble{bytes.NewReader(stream), 1000}, dribble{bytes.NewReader(stream), 7},
		iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		rd := newReader(src)
		for i, w := range wants {
			h, body, err := rd.next()
			if err != nil || h.ID != uint64(i) {
				t.Fatalf("frame %d: %+v %v", i, h, err)
			}
			var m wire.AdminReply
			if err := wire.DecodeBody(h.Kind, body, &m); err != nil || !bytes.Equal(m.JSON, pattern(w.body, 1)) {
				t.Fatalf("frame %d: body is wrong: %v", i, err)
			}
			data := make([]byte, h.Data)
			if err := rd.full(data); err != nil || !bytes.Equal(data, pattern(w.data, 2)) {
				t.Fatalf("frame %d: data is wrong: %v", i, err)
			}
		}
		if _, _, err := rd.next(); err != io.EOF {
			t.Fatalf("behind the last frame: %v", err)
		}
	}
	for cut := 1; cut < 200; cut++ {
		rd := newReader(bytes.NewReader(stream[:cut]))
		var err error
		for err == nil {
			var h wire.Header
			if h, _, err = rd.next(); err == nil {
				err = rd.skip(int(h.Data))
			}
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

// FuzzReader: no stream makes the reader panic, and each frame that it lets
// through is one that AppendFrame makes.
func FuzzReader(f *testing.F) {
	one := wire.AppendFrame(nil, wire.Header{Kind: wire.KindRead, ID: 1}, &wire.Read{Len: 9}, 3)
	f.Add(append(one, 'a', 'b', 'c'), uint8(5))
	f.Add(append(append(one, 1, 2, 3), one...), uint8(200))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		rd := newReader(dribble{bytes.NewReader(stream), int(step) + 1})
		for {
			h, body, err := rd.next()
			if err != nil {
				return
			}
			if len(body) != int(h.Body) || h.Body > wire.MaxBody || h.Data > wire.MaxData {
				t.Fatalf("frame out of limits: %+v", h)
			}
			if err := rd.skip(int(h.Data)); err != nil {
				return
			}
		}
	})
}
