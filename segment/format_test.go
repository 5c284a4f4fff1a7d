package segment

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares bytes with a file of testdata. The files are the format: they change
// only together with the format's number.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	b = bytes.TrimRight(b, "\x00")
	text := []byte(hex.Dump(b))
	if *update {
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("%s is encoded as\n%s, the golden file says\n%s", name, text, want)
	}
}

// sampleFrame is a header block with one entry of each kind.
func sampleFrame() (header, []byte, []entry) {
	b := make([]byte, headerSize)
	h := header{head: headClean, inline: 4000, size: headerSize + 8192, disk: 0x1122334455667788, seg: 9, off: 1 << 20, incarnation: 77, seq: 12,
		lsn: 1000, previous: 0xabcdef01, time: 1700000000123456789, repeated: 2}
	for i := range h.durable {
		h.durable[i] = mark{uint64(10 + i), uint32(20 + i), uint32(i+1) << 12}
	}
	entries := []entry{
		{kind: kindData, chunk: 5, lsn: 1000, version: 3, writes: 4, off: 8192, len: 5000, pos: 4096},
		{kind: kindData, chunk: 6, lsn: 1001, imp: 999, version: 1, off: 100, len: 20, pos: 4016, pre: 10, post: 5, flags: flagMoved},
		{kind: kindZero, chunk: 5, lsn: 1002, version: 3, writes: 5, off: 0, len: chunk.Size},
		{kind: kindState, chunk: 6, lsn: 1003, version: 8, hide: 900, base: 1 << 40},
		{kind: kindDelete, chunk: 7, lsn: 1010},
	}
	at := b[:fixedSize]
	for i := range entries {
		e := &entries[i]
		sums := make([]uint32, e.pieces())
		for k := range sums {
			sums[k] = uint32(0x5000 + k)
		}
		at = e.append(at, h.lsn, sums)
	}
	h.used, h.entries = uint32(len(at)), uint32(len(entries))
	putNames(b, []uint32{nameOf(1), nameOf(2)})
	h.put(b)
	return h, b, entries
}

func TestFrameFormat(t *testing.T) {
	h, b, entries := sampleFrame()
	golden(t, "frame", b)
	got, err := decodeHeader(b)
	if err != nil || got != h {
		t.Fatalf("decoded %+v, %v; encoded %+v", got, err, h)
	}
	i := 0
	err = decodeEntries(b, &got, func(e *entry, sums []uint32) error {
		if *e != entries[i] || len(sums) != e.pieces() {
			t.Errorf("entry %d is decoded as %+v with %d sums, encoded %+v", i, *e, len(sums), entries[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(entries) {
		t.Fatalf("%d entries of %d, %v", i, len(entries), err)
	}
	for bit := 0; bit < headerSize*8; bit += 13 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHeader(b); err == nil {
			t.Fatalf("bit %d is flipped and nobody notices", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// sampleSeal is a seal with one header.
func sampleSeal() (trailer, []byte, []byte) {
	h, b, _ := sampleFrame()
	body := append(le.AppendUint32(nil, h.used), b[:h.used]...)
	tr := trailer{head: headClean, disk: h.disk, seg: 9, end: 2 << 20, incarnation: 77, first: 12, last: 12, lsn: 1000, frames: 1,
		body: 3 << 20, bodySize: uint32(len(body)), bodySum: chunk.Sum(body), next: 10, time: 1700000000123456790}
	block := make([]byte, blockSize)
	tr.put(block)
	return tr, block, body
}

func TestSealFormat(t *testing.T) {
	tr, block, body := sampleSeal()
	golden(t, "trailer", block)
	got, err := decodeTrailer(block, 4<<20)
	if err != nil || got != tr {
		t.Fatalf("decoded %+v, %v; encoded %+v", got, err, tr)
	}
	n := 0
	err = decodeBody(body, &got, func(h *header, used []byte) error {
		n++
		return decodeEntries(used, h, func(*entry, []uint32) error { return nil })
	})
	if err != nil || n != 1 {
		t.Fatalf("%d headers, %v", n, err)
	}
	body[100] ^= 4
	if err := decodeBody(body, &got, func(*header, []byte) error { return nil }); err == nil {
		t.Fatal("a damaged body is accepted")
	}
}

func TestFreeFormat(t *testing.T) {
	b := make([]byte, blockSize)
	m := free{disk: 0x1122334455667788, seg: 3, lsn: 500}
	m.put(b)
	golden(t, "free", b)
	if got, err := decodeFree(b); err != nil || got != m {
		t.Fatalf("decoded %+v, %v", got, err)
	}
	if _, err := decodeFree(make([]byte, blockSize)); err != errBlank {
		t.Fatalf("a blank block: %v", err)
	}
}

func sampleSuper() super {
	return super{generation: 5, id: Identity{Disk: 0x1122334455667788, Server: 42, Cluster: "home"}, epoch: 6, lsn: 1 << 41,
		segment: 64 << 20, perFile: 16, containers: 3, created: 1700000000123456789}
}

func TestSuperFormat(t *testing.T) {
	b := make([]byte, blockSize)
	s := sampleSuper()
	s.put(b, 2)
	golden(t, "superblock", b)
	if got, err := decodeSuper(b, 2); err != nil || got != s {
		t.Fatalf("decoded %+v, %v", got, err)
	}
	if _, err := decodeSuper(b, 3); err == nil {
		t.Fatal("a copy in the wrong place is accepted")
	}
	le.PutUint32(b[12:], formatVersion+1)
	clear(b[8:12])
	le.PutUint32(b[8:], chunk.Sum(b))
	if _, err := decodeSuper(b, 2); !errors.Is(err, errFormat) {
		t.Fatalf("another format: %v", err)
	}
}

// fixSum makes the sum of a fuzzed block right, so that what lies behind it is reached.
func fixSum(b []byte) []byte {
	block := make([]byte, blockSize)
	copy(block, b)
	clear(block[8:12])
	le.PutUint32(block[8:], chunk.Sum(block))
	return block
}

func FuzzFrame(f *testing.F) {
	_, b, _ := sampleFrame()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixSum(b)} {
			h, err := decodeHeader(b)
			if err != nil {
				continue
			}
			h.names(b)
			buf := make([]byte, min(h.size, 1<<20))
			err = decodeEntries(b, &h, func(e *entry, sums []uint32) error {
				if e.kind == kindData && int(h.size) == len(buf) {
					_ = buf[e.pos-uint32(e.pre) : e.pos+e.len+uint32(e.post)]
				}
				x := newIndex(func(uint32, int64) {})
				var body body
				switch e.kind {
				case kindData:
					x.put(&body, extent{off: e.off, len: e.len, pos: e.pos, edge: uint32(e.pre) | uint32(e.post)<<12}, sums)
				case kindZero:
					x.zero(&body, e.off, e.off+e.len, 0, 0)
				}
				return nil
			})
			if err != nil && len(err.Error()) == 0 {
				t.Fatal("error without a sentence")
			}
		}
	})
}

func FuzzSeal(f *testing.F) {
	_, block, body := sampleSeal()
	f.Add(block, body)
	f.Fuzz(func(t *testing.T, block, body []byte) {
		for _, b := range [][]byte{block, fixSum(block)} {
			tr, err := decodeTrailer(b, 4<<20)
			if err != nil {
				continue
			}
			tr.bodySum = chunk.Sum(body)
			_ = decodeBody(body, &tr, func(h *header, used []byte) error {
				return decodeEntries(used, h, func(*entry, []uint32) error { return nil })
			})
		}
	})
}

func FuzzSuper(f *testing.F) {
	b := make([]byte, blockSize)
	s := sampleSuper()
	s.put(b, 0)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixSum(b)} {
			s, err := decodeSuper(b, 0)
			if err != nil {
				continue
			}
			again := make([]byte, blockSize)
			s.put(again, 0)
			if got, err := decodeSuper(again, 0); err != nil || got != s {
				t.Fatalf("%+v is encoded and decoded as %+v, %v", s, got, err)
			}
		}
	})
}

// TestSuperCopies: whatever happens to the copies that a change writes, the state before
// it or after it is there.
func TestSuperCopies(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		f, err := d.Create(superName, superFile)
		if err != nil {
			t.Fatal(err)
		}
		s := sampleSuper()
		for range 4 {
			before := s
			s.generation++
			s.epoch++
			if err := s.write(f, nil); err != nil {
				t.Fatal(err)
			}
			if got, err := readSuper(f); err != nil || got != s {
				t.Fatalf("read %+v, %v", got, err)
			}
			first := int64(s.generation%2) * 2
			junk := engine.Alloc(blockSize)
			for i := range junk {
				junk[i] = 0x77
			}
			keep := engine.Alloc(blockSize)
			for i := range int64(2) {
				if err := engine.Do(f, engine.WriteSync, junk, (first+i)*superStride); err != nil {
					t.Fatal(err)
				}
				want := s
				if i == 1 {
					want = before
				}
				got, err := readSuper(f)
				if s.generation == sampleSuper().generation+1 && i == 1 {
					continue // there is no state before the first
				}
				if err != nil || got != want {
					t.Fatalf("with %d copies destroyed: read %+v, %v", i+1, got, err)
				}
			}
			for i := range int64(2) {
				s.put(keep, int(first+i))
				if err := engine.Do(f, engine.WriteSync, keep, (first+i)*superStride); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
