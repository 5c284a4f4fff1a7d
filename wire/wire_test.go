package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const golden = "testdata/messages.txt"

// TestGolden holds the bytes of every message: they may change only together
// with Version.
func TestGolden(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Every message of protocol version %d, its fields filled with 1, 2, 3, ...,\n# as a frame with id 7 and no data. Made by: go test ./wire -run TestGolden -rewrite\n", Version)
	for _, m := range messages() {
		h := Header{Kind: m.Kind(), ID: 7}
		if _, isError := m.(*Detail); isError {
			h.Flags, h.Status = FlagReply, status.NoChunk
		}
		frame := AppendFrame(nil, h, counted(m), 0)
		fmt.Fprintf(&b, "\n%04x %T\n", uint16(m.Kind()), m)
		text := hex.EncodeToString(frame)
		for len(text) > 0 {
			n := min(64, len(text))
			fmt.Fprintf(&b, "  %s\n", text[:n])
			text = text[n:]
		}
	}
	if *rewrite {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("%s line %d: bytes on the wire have changed without -rewrite:\nhave %s\nwant %s", golden, i+1, g[i], w[i])
			}
		}
		t.Fatalf("%s has %d lines, the messages make %d", golden, len(w), len(g))
	}
}

// TestEveryKind: the test's list knows all kinds.
func TestEveryKind(t *testing.T) {
	seen := map[Kind]bool{}
	for _, m := range messages() {
		seen[m.Kind()] = true
	}
	for _, r := range []struct{ from, to Kind }{
		{KindHello, KindWelcome}, {KindSessionOpen, KindRecallReply}, {KindRegister, KindDigestReply}, {KindWrite, KindLendReply},
	} {
		for k := r.from; k <= r.to; k++ {
			if !seen[k] {
				t.Errorf("no message of kind %#x is tested", uint16(k))
			}
		}
	}
}

// TestRoundTrip: every field of every message survives, and no other bytes decode.
func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		for _, m := range messages() {
			random(m, rng)
			b := codec.Append(nil, m)
			got := blank(m)
			if err := codec.Decode(b, got); err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			if !reflect.DeepEqual(m, got) {
				t.Fatalf("%T changed on its way:\nsent %+v\ncame %+v", m, m, got)
			}
			if codec.Decode(append(b, 0), blank(m)) == nil {
				t.Fatalf("%T: a byte too many went unnoticed", m)
			}
			if len(b) > 0 && codec.Decode(b[:rng.IntN(len(b))], blank(m)) == nil {
				t.Fatalf("%T: missing bytes went unnoticed", m)
			}
		}
	}
}

// TestZero: a message with nothing set survives, too.
func TestZero(t *testing.T) {
	for _, m := range messages() {
		got := counted(blank(m))
		if e, ok := got.(*EntryReply); ok {
			*e = EntryReply{} // attributes that are absent are not touched
		}
		if err := codec.Decode(codec.Append(nil, m), got); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if !bytes.Equal(codec.Append(nil, got), codec.Append(nil, m)) {
			t.Fatalf("%T: zero became %+v", m, got)
		}
	}
}

// TestListBombs: a length that the bytes cannot hold is refused before anything
// is allocated for it.
func TestListBombs(t *testing.T) {
	for _, m := range messages() {
		b := codec.Append(nil, random(m, rand.New(rand.NewPCG(1, 1))))
		for i := 0; i+4 <= len(b); i++ {
			bomb := bytes.Clone(b)
			copy(bomb[i:], "\xff\xff\xff\x7f")
			allocs := testing.AllocsPerRun(1, func() { _ = codec.Decode(bomb, blank(m)) })
			if allocs > 500 {
				t.Fatalf("%T: %v allocations for %d bytes with a length at %d", m, allocs, len(b), i)
			}
		}
	}
}

func TestFrame(t *testing.T) {
	m := &Read{Chunk: 5, Min: 1, Version: 2, Off: 3, Len: 4, Token: []byte("t")}
	h := Header{Flags: FlagReply, Kind: m.Kind(), Status: status.Stale, ID: 1 << 60}
	b := AppendFrame([]byte("before"), h, m, 77)[6:]
	got, err := DecodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	h.Body, h.Data = uint32(len(b)-HeaderSize), 77
	if got != h {
		t.Fatalf("sent %+v, came %+v", h, got)
	}
	if err := CheckBody(b[:HeaderSize], b[HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeHeader(bad); err == nil && CheckBody(bad[:HeaderSize], bad[HeaderSize:]) == nil {
			t.Fatalf("bit %d flipped unnoticed", bit)
		}
	}
	for what, change := range map[string]func(b []byte){
		"magic":   func(b []byte) { b[0] = 'G' },
		"body":    func(b []byte) { b[18] = 0x41 },
		"data":    func(b []byte) { b[23] = 1 },
		"version": func(b []byte) { b[2]++ },
	} {
		bad := bytes.Clone(b)
		change(bad)
		_, err := DecodeHeader(bad)
		want := status.BadMessage
		if what == "version" {
			want = status.BadVersion
		}
		if !errors.Is(err, want) {
			t.Errorf("wrong %s: %v", what, err)
		}
	}
	if _, err := DecodeHeader(b[:31]); !errors.Is(err, status.BadMessage) {
		t.Errorf("short header: %v", err)
	}
}

func TestToken(t *testing.T) {
	key := []byte("key")
	tok := Token{Write: true, Chunk: 7, Min: 3, Version: 4, Epoch: 5, Expiry: time.Now().Unix()}
	b := tok.Sign(key)
	if len(b) > maxToken {
		t.Fatalf("a token has %d bytes, messages carry %d", len(b), maxToken)
	}
	got, err := OpenToken(key, b)
	if err != nil || got != tok {
		t.Fatal(got, err)
	}
	if _, err := OpenToken([]byte("kez"), b); !errors.Is(err, status.BadToken) {
		t.Fatalf("another key: %v", err)
	}
	for bit := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := OpenToken(key, bad); !errors.Is(err, status.BadToken) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	}
	for n := range len(b) {
		if _, err := OpenToken(key, b[:n]); !errors.Is(err, status.BadToken) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// TestPiecesFit: the checksums of the largest data fit into a message.
func TestPiecesFit(t *testing.T) {
	for off := range uint32(chunk.Block) {
		if n := chunk.Pieces(off, MaxData); n > maxPieces {
			t.Fatalf("%d pieces at offset %d, messages carry %d", n, off, maxPieces)
		}
	}
}

// FuzzDecode: no bytes make a message's decoder panic; what decodes encodes to
// bytes that decode to the same.
func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i, m := range messages() {
		f.Add(uint8(i), codec.Append(nil, random(m, rng)))
		f.Add(uint8(i), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		all := messages()
		m := all[int(which)%len(all)]
		if codec.Decode(b, m) != nil {
			return
		}
		again := blank(m)
		if err := codec.Decode(codec.Append(nil, m), again); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%T: %+v became %+v", m, m, again)
		}
	})
}

// FuzzHeader: no bytes make the header's decoder panic or exceed the limits.
func FuzzHeader(f *testing.F) {
	f.Add(AppendFrame(nil, Header{Kind: KindRead, ID: 3}, &Read{}, 10))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err == nil && (h.Body > MaxBody || h.Data > MaxData) {
			t.Fatalf("%+v", h)
		}
		if len(b) >= HeaderSize {
			_ = CheckBody(b[:HeaderSize], b[HeaderSize:])
		}
	})
}

// FuzzToken: no bytes make the token's decoder panic, none but signed ones open.
func FuzzToken(f *testing.F) {
	key := []byte("0123456789abcdef0123456789abcdef")
	good := (&Token{Chunk: 3, Version: 1}).Sign(key)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenToken(key, b); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("%x opens", b)
		}
	})
}
