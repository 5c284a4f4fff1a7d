package fuse

import (
	"bytes"
	"log/slog"
	"runtime/debug"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// The requests that programs make by the thousand are taken apart here, all others by
// go-fuse. It makes an object of 900 bytes and a channel for each, which was half of all
// memory that the mount took to create files; on a large heap, where it is fresh memory,
// the page faults alone were a fifth of the time of a create.

// hotOp answers one kind of request: in is all of it, out room for what comes behind the
// header of the answer. It returns how long that is. Not ok: in is not as it should be or
// the answer does not fit, which is go-fuse's to tell.
type hotOp func(f *fileSystem, in, out []byte) (n int, code gofuse.Status, ok bool)

// hotOps are the kinds, by opcode. The layouts are those of linux/fuse.h.
var hotOps = [...]hotOp{
	opcodeLookup: fixed(func(f *fileSystem, in *gofuse.InHeader, rest []byte, out *gofuse.EntryOut) gofuse.Status {
		return f.Lookup(nil, in, firstName(rest), out)
	}),
	opcodeGetAttr: fixed(func(f *fileSystem, in *gofuse.GetAttrIn, _ []byte, out *gofuse.AttrOut) gofuse.Status {
		return f.GetAttr(nil, in, out)
	}),
	opcodeSetAttr: fixed(func(f *fileSystem, in *gofuse.SetAttrIn, _ []byte, out *gofuse.AttrOut) gofuse.Status {
		return f.SetAttr(nil, in, out)
	}),
	opcodeMkdir: fixed(func(f *fileSystem, in *gofuse.MkdirIn, rest []byte, out *gofuse.EntryOut) gofuse.Status {
		return f.Mkdir(nil, in, firstName(rest), out)
	}),
	opcodeUnlink: fixed(func(f *fileSystem, in *gofuse.InHeader, rest []byte, _ *struct{}) gofuse.Status {
		return f.Unlink(nil, in, firstName(rest))
	}),
	opcodeRmdir: fixed(func(f *fileSystem, in *gofuse.InHeader, rest []byte, _ *struct{}) gofuse.Status {
		return f.Rmdir(nil, in, firstName(rest))
	}),
	opcodeRename: fixed(func(f *fileSystem, in *plainRename, rest []byte, _ *struct{}) gofuse.Status {
		from := firstName(rest)
		return f.Rename(nil, &gofuse.RenameIn{InHeader: in.InHeader, Newdir: in.newDir}, from, firstName(rest[min(len(from)+1, len(rest)):]))
	}),
	opcodeOpen: fixed(func(f *fileSystem, in *gofuse.OpenIn, _ []byte, out *gofuse.OpenOut) gofuse.Status {
		return f.Open(nil, in, out)
	}),
	opcodeRead: hotRead,
	opcodeWrite: fixed(func(f *fileSystem, in *gofuse.WriteIn, data []byte, out *gofuse.WriteOut) (code gofuse.Status) {
		out.Size, code = f.Writev(nil, in, [][]byte{data})
		return code
	}),
	opcodeRelease: fixed(func(f *fileSystem, in *gofuse.ReleaseIn, _ []byte, _ *struct{}) gofuse.Status {
		f.Release(nil, in)
		return gofuse.OK
	}),
	opcodeFlush: fixed(func(f *fileSystem, in *gofuse.FlushIn, _ []byte, _ *struct{}) gofuse.Status {
		return f.Flush(nil, in)
	}),
	opcodeCreate: fixed(func(f *fileSystem, in *gofuse.CreateIn, rest []byte, out *gofuse.CreateOut) gofuse.Status {
		return f.Create(nil, in, firstName(rest), out)
	}),
}

// plainRename is a RENAME; gofuse.RenameIn is a RENAME2, which has flags.
type plainRename struct {
	gofuse.InHeader
	newDir uint64
}

// fixed is for a request that begins with an In and an answer that is an Out.
func fixed[In, Out any](do func(f *fileSystem, in *In, rest []byte, out *Out) gofuse.Status) hotOp {
	inSize, outSize := int(unsafe.Sizeof(*new(In))), int(unsafe.Sizeof(*new(Out)))
	return func(f *fileSystem, in, out []byte) (int, gofuse.Status, bool) {
		if len(in) < inSize || len(out) <= outSize {
			return 0, 0, false
		}
		clear(out[:outSize])
		code := do(f, (*In)(unsafe.Pointer(&in[0])), in[inSize:], (*Out)(unsafe.Pointer(&out[0])))
		return outSize, code, true
	}
}

// hotRead is a READ, whose answer are the bytes.
func hotRead(f *fileSystem, in, out []byte) (n int, code gofuse.Status, ok bool) {
	if len(in) < int(unsafe.Sizeof(gofuse.ReadIn{})) {
		return 0, 0, false
	}
	q := (*gofuse.ReadIn)(unsafe.Pointer(&in[0]))
	if uint64(len(out)) < uint64(q.Size) {
		return 0, 0, false
	}
	n, code = f.read(q, out[:q.Size])
	return n, code, true
}

// firstName is a name that ends with a zero byte.
func firstName(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// answerHot carries out a request, if it is one of hotOps, and writes the answer to out.
// It returns the length of the answer. in and out begin at multiples of eight.
func (f *fileSystem) answerHot(in, out []byte) (n int, ok bool) {
	h := header(in)
	if h.Opcode >= uint32(len(hotOps)) || hotOps[h.Opcode] == nil || h.TotalExtlen != 0 {
		return 0, false
	}
	unique := h.Unique
	f.waits.hot(unique)
	n, code, ok := f.carryOut(hotOps[h.Opcode], in, out[outHeaderSize:])
	if !ok {
		f.waits.over(unique)
		return 0, false
	}
	if code != gofuse.OK {
		n = 0
	}
	n += outHeaderSize
	*(*gofuse.OutHeader)(unsafe.Pointer(&out[0])) = gofuse.OutHeader{Length: uint32(n), Status: -int32(code), Unique: unique}
	return n, true
}

// carryOut is op, or EIO when it panics.
func (f *fileSystem) carryOut(op hotOp, in, out []byte) (n int, code gofuse.Status, ok bool) {
	defer func() {
		if reason := recover(); reason != nil {
			n, code, ok = 0, panicked(f.log, reason), true
		}
	}()
	return op(f, in, out)
}

// panicked is the answer to a request whose handler has panicked.
func panicked(log *slog.Logger, reason any) gofuse.Status {
	log.Error("BUG: panic while answering the kernel", "reason", reason, "stack", string(debug.Stack()))
	return gofuse.EIO
}
