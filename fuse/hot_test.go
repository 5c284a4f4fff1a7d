package fuse

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// message is a request with its header.
func message(opcode uint32, fixed any, rest string) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, fixed)
	b.WriteString(rest)
	in := bytes.Clone(b.Bytes())
	h := header(in)
	h.Length, h.Opcode, h.Unique, h.NodeId = uint32(len(in)), opcode, 77, 5
	return in
}

// withoutClient is a file system in which nothing is open; whoever asks its client panics.
func withoutClient() *fileSystem {
	f := &fileSystem{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(), ctx: context.Background(),
		log: slog.New(slog.NewTextHandler(io.Discard, nil)), notify: NewNotifier(),
	}
	f.dirs, f.inodes = f.notify.dirs, f.notify.inodes
	f.turns.admit = func() {}
	f.meters = newMeters(nil, f.open.len)
	return f
}

var long = string(bytes.Repeat([]byte("x"), 300)) + "\x00"

// hotMessages are requests that are refused before the client is asked.
var hotMessages = map[string][]byte{
	"lookup": message(opcodeLookup, gofuse.InHeader{}, long),
	"mkdir":  message(opcodeMkdir, gofuse.MkdirIn{}, long),
	"unlink": message(opcodeUnlink, gofuse.InHeader{}, long),
	"rmdir":  message(opcodeRmdir, gofuse.InHeader{}, long),
	"rename": message(opcodeRename, struct {
		gofuse.InHeader
		D uint64
	}{}, "a\x00"+long),
	"create":  message(opcodeCreate, gofuse.CreateIn{}, long),
	"read":    message(opcodeRead, gofuse.ReadIn{Size: 100, Fh: 3}, ""),
	"write":   message(opcodeWrite, gofuse.WriteIn{Size: 4, Fh: 3}, "data"),
	"flush":   message(opcodeFlush, gofuse.FlushIn{Fh: 3}, ""),
	"release": message(opcodeRelease, gofuse.ReleaseIn{Fh: 3}, ""),
}

// TestHotAnswersLikeGoFuse has the same requests answered both ways.
func TestHotAnswersLikeGoFuse(t *testing.T) {
	f := withoutClient()
	o := DefaultOptions()
	server := gofuse.NewProtocolServer(f, protocol(&o, f.log))
	for name, in := range hotMessages {
		want, out := make([]byte, 8192), make([]byte, 8192)
		n, code := server.HandleRequest([][]byte{bytes.Clone(in)}, [][]byte{want})
		if code != gofuse.OK {
			t.Fatalf("%s: go-fuse says %v", name, code)
		}
		m, ok := f.answerHot(in, out)
		f.waits.over(77)
		// An error is the header alone; go-fuse puts zeroes behind some.
		if !ok || m < outHeaderSize || !bytes.Equal(out[4:outHeaderSize], want[4:outHeaderSize]) {
			t.Errorf("%s: answer %x (%v), go-fuse %x", name, out[:m], ok, want[:n])
		}
		if got := binary.NativeEndian.Uint32(out); int(got) != m {
			t.Errorf("%s: an answer of %d bytes says it has %d", name, m, got)
		}
	}
	if f.waits.some.Load() {
		t.Error("an answered request is still known")
	}
}

// TestNotHot sees that go-fuse gets what is unusual, and the log what is a bug.
func TestNotHot(t *testing.T) {
	f, out := withoutClient(), make([]byte, 8192)
	extended := message(opcodeLookup, gofuse.InHeader{}, "a\x00\x00\x00\x00\x00\x00\x00")
	header(extended).TotalExtlen = 1
	for name, in := range map[string][]byte{
		"short":       message(opcodeGetAttr, gofuse.InHeader{}, ""),
		"extended":    extended,
		"other":       message(opcodeFsync, gofuse.FsyncIn{}, ""),
		"unknown":     message(9999, gofuse.InHeader{}, ""),
		"long answer": message(opcodeRead, gofuse.ReadIn{Size: 1 << 20}, ""),
	} {
		if n, ok := f.answerHot(in, out); ok {
			t.Errorf("%s: answered with %x", name, out[:n])
		}
	}
	if f.waits.some.Load() {
		t.Error("a request that was not answered is still known")
	}
	n, ok := f.answerHot(message(opcodeGetAttr, gofuse.GetAttrIn{}, ""), out) // there is no client
	f.waits.over(77)
	if !ok || n != outHeaderSize || (*gofuse.OutHeader)(unsafe.Pointer(&out[0])).Status != -int32(unix.EIO) {
		t.Errorf("a panic is answered with %x, %v", out[:n], ok)
	}
}

// TestInterruptOfHot: an INTERRUPT of a request that go-fuse does not know counts, before its wait and during it.
func TestInterruptOfHot(t *testing.T) {
	for _, early := range []bool{true, false} {
		f := newWaits()
		f.set(7, killed)
		f.waits.hot(2)
		h := &gofuse.InHeader{Unique: 2}
		h.Pid = 7
		r := f.context(nil, h)
		if early && !f.waits.interruptHot(2) {
			t.Fatal("it is not known")
		}
		r.Waits()
		if !early && !f.waits.interruptHot(2) {
			t.Fatal("it is not known")
		}
		eventually(t, "it is given up", func() bool { return over(r) })
		if f.waits.over(2); f.waits.interruptHot(2) || f.waits.some.Load() {
			t.Error("it is still known when it is over")
		}
	}
}

// FuzzHot: whatever comes is answered with a whole answer, or left to go-fuse.
func FuzzHot(f *testing.F) {
	for _, in := range hotMessages {
		f.Add(in)
	}
	fs, out := withoutClient(), make([]byte, 8192)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < headerSize {
			return
		}
		in = append(make([]byte, 0, len(in)+8), in...) // aligned
		unique := header(in).Unique
		n, ok := fs.answerHot(in, out)
		fs.waits.over(unique)
		if !ok {
			return
		}
		h := (*gofuse.OutHeader)(unsafe.Pointer(&out[0]))
		if n < outHeaderSize || n > len(out) || h.Length != uint32(n) || h.Unique != unique {
			t.Errorf("answer of %d bytes: %+v", n, h)
		}
	})
}
