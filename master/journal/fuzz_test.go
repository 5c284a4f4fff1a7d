package journal

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzScan feeds whole files to the reader that Open and Dump use.
func FuzzScan(f *testing.F) {
	whole := sampleFile()
	f.Add(whole)
	f.Add(whole[:2*page+10])
	f.Add([]byte{})
	f.Add(make([]byte, page))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := scanFile(b, 1)
		if s.end > int64(padded(len(b))) || s.headOK && s.end < page {
			t.Fatalf("the scan of %d bytes ended at %d", len(b), s.end)
		}
		for i := range s.frames {
			fr := &s.frames[i]
			_ = decodeRecords(&fr.frame, fr.records, func(r *record) error {
				_ = r.entry()
				return nil
			})
		}
	})
}

// FuzzRecords feeds records past the checksum, as if it had been right.
func FuzzRecords(f *testing.F) {
	whole := sampleFile()
	fr, err := parseFrame(whole[page:], page)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fr.Records, whole[page+frameHead:page+int(fr.Length)])
	f.Fuzz(func(t *testing.T, records uint32, b []byte) {
		n := uint32(0)
		fr := frame{Records: records}
		if err := decodeRecords(&fr, b, func(*record) error { n++; return nil }); err == nil && n != records {
			t.Fatalf("%d records of %d, and no error", n, records)
		}
	})
}

// sampleFile is a small file made by hand: it never changes by itself.
func sampleFile() []byte {
	h := header{
		Version: formatVersion, Number: 1, Size: 4 * page, Nonce: 0x1122334455667788, Node: 7, Created: 1_700_000_000_000_000_000,
		PrevNonce: 0x99, PrevEnd: 8192, PrevSum: 0xabcd, Before: position{Index: 41, Term: 3},
		Hard: hard{Term: 4, Vote: 7, Commit: 40}, Voters: []uint64{7, 8, 9},
	}
	b := encodeHeader(nil, &h)
	sum, off := h.sum, uint64(page)
	for _, records := range [][]record{
		{{Kind: recordEntry, Index: 42, Term: 4, PrevTerm: 3}, {Kind: recordEntry, Type: 1, Index: 43, Term: 4, PrevTerm: 4, Data: []byte("change")}},
		{{Kind: recordMark, Index: 99, Term: 5}},
		{},
	} {
		fr := frame{
			Records: uint32(len(records)), Number: 1, Nonce: h.Nonce, Offset: off, Durable: off, PrevSum: sum,
			Hard: hard{Term: 5, Vote: 8, Commit: 42},
		}
		fb := appendFrameHead(nil)
		for i := range records {
			fb = appendRecord(fb, &records[i])
		}
		sealFrame(fb, &fr)
		sum = fr.sum
		b = append(b, fb...)
		b = append(b, make([]byte, padded(len(fb))-len(fb))...)
		off += uint64(padded(len(fb)))
	}
	return b
}

// TestFormat holds the bytes still. When it fails, formatVersion must be raised
// and old files must still be read.
func TestFormat(t *testing.T) {
	b := sampleFile()
	var text strings.Builder
	for off := 0; off < len(b); off += page {
		part := strings.TrimRight(hex.EncodeToString(b[off:off+page]), "0")
		text.WriteString(part + "\n")
	}
	golden := filepath.Join("testdata", "format.hex")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text.String() {
		t.Fatalf("the bytes of the format have changed:\n%s", text.String())
	}
	s := scanFile(b, 1)
	if !s.headOK || s.head.Before.Index != 41 || len(s.head.Voters) != 3 || len(s.frames) != 3 || s.end != 4*page {
		t.Fatalf("the sample is read as %+v", s)
	}
}

func TestOtherVersion(t *testing.T) {
	b := sampleFile()
	b[8] = 9
	seal(b[:page], headerMagic)
	if _, err := decodeHeader(b); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Fatalf("a header of version 9: %v", err)
	}
}
