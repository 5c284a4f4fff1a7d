package link

import (
	"sync/atomic"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxDetail bounds the text of an error reply, in bytes; wire allows 4096.
const maxDetail = 2048

// Request is a call or a notice of the other side. It is answered once, by
// Reply or Fail, from any goroutine; a notice is not answered.
type Request struct {
	Kind   wire.Kind
	Notice bool
	// Data has the bulk bytes. From 4096 bytes on it begins at a multiple of
	// 4096 and its capacity reaches up to one. It is the handler's until Free.
	Data []byte
	// Room is Config.HeadRoom bytes and then Data, when Data has 32 KiB or more and
	// there is a HeadRoom; else nil. It begins at a multiple of 4096.
	Room []byte
	// Lazy leaves the answer to the write goroutine, for those who answer from a
	// place that must not spend a system call, or many requests in a row.
	Lazy bool

	body     []byte
	conn     *Conn
	id       uint64
	answered atomic.Bool
}

// makeRoom makes room for n bytes of data.
func (r *Request) makeRoom(head, n int) {
	if head == 0 || n < bulkData {
		r.Data = buffer.Get(n)
		return
	}
	r.Room = buffer.Get(head + n)
	r.Data = r.Room[head:]
}

// Conn is the connection that the request came on.
func (r *Request) Conn() *Conn { return r.conn }

// Decode fills m from the request; status.BadMessage when it is of another kind
// or malformed. It works until Free.
func (r *Request) Decode(m wire.Message) error { return wire.DecodeBody(r.Kind, r.body, m) }

// Reply answers with a message (nil: wire.Empty) and optional data. It does not
// block. The data is not copied: it must not change until release (may be nil)
// is called, which happens exactly once, when the data has left or never will.
func (r *Request) Reply(m wire.Message, data []byte, release func()) {
	if m == nil {
		m = &wire.Empty{}
	}
	if !r.answer() {
		if release != nil {
			release()
		}
		return
	}
	h := wire.Header{Flags: wire.FlagReply, Kind: m.Kind(), ID: r.id}
	head := encode(h, m, len(data))
	if len(head)-wire.HeaderSize > wire.MaxBody || len(data) > wire.MaxData {
		buffer.Put(head)
		head, data = r.failure(status.Errorf(status.BadMessage,
			"reply %T of %d+%d bytes, the limits are %d+%d", m, len(head)-wire.HeaderSize, len(data), wire.MaxBody, wire.MaxData)), nil
	}
	r.conn.send(frame{head: head, data: data, release: release, reply: true, lazy: r.Lazy})
}

// Fail answers with the status code and the detail of err.
func (r *Request) Fail(err error) {
	if r.answer() {
		r.conn.send(frame{head: r.failure(err), reply: true, lazy: r.Lazy})
	}
}

func (r *Request) failure(err error) []byte {
	code := status.CodeOf(err)
	if code == status.OK {
		panic("BUG: a request fails without an error")
	}
	text := status.DetailOf(err)
	h := wire.Header{Flags: wire.FlagReply, Kind: wire.KindEmpty, Status: code, ID: r.id}
	return encode(h, &wire.Detail{Text: text[:min(len(text), maxDetail)]}, 0)
}

// answer notes that the request is answered; false: it wants no answer.
func (r *Request) answer() bool {
	if r.Notice {
		return false
	}
	if r.answered.Swap(true) {
		panic("BUG: a request is answered twice")
	}
	return true
}

// Free gives the request's buffers back; Data and Decode must not be used any
// more. Replying is still possible.
func (r *Request) Free() {
	if r.Room != nil {
		buffer.Put(r.Room)
	} else {
		buffer.Put(r.Data)
	}
	buffer.Put(r.body)
	r.Data, r.Room, r.body = nil, nil, nil
}
