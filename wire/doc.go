// Package wire is the language between the processes of a cluster: every
// message as a struct, its bytes, and the frame around them. It knows no
// sockets (package link does) and owns no state.
//
// A frame is a header of HeaderSize bytes, a body (the message's fields, see
// package codec) and, for bulk, data. All integers are little-endian:
//
//	 0  u16 magic    "VV"
//	 2  u8  version  Version; another version is refused at the handshake
//	 3  u8  flags    FlagReply, FlagNotice
//	 4  u16 kind     the message in the body
//	 6  u16 status   of a reply: a status.Code; body is the detail when not 0
//	 8  u64 id       chosen by the caller, repeated in the reply
//	16  u32 body     bytes of the body, at most MaxBody
//	20  u32 data     bytes of the data, at most MaxData
//	24  u32 pieces   reserved, 0
//	28  u32 crc      CRC32C of header bytes 0..27 and of the body
//
// Data is covered by the checksums that the message in the body carries, one
// for each piece of a chunk (chunk.AppendSums), so it is never summed twice.
package wire

import (
	"encoding/binary"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/status"
)

// Limits and constants of a frame.
const (
	Magic      = 0x5656
	Version    = 1
	HeaderSize = 32
	MaxBody    = 4 << 20
	MaxData    = 4 << 20
)

// Flags of a frame.
const (
	FlagReply  = 1 << iota // answers the call with the same id
	FlagNotice             // no reply is expected
)

// Kind names a message. The numbers are on the wire: append only.
type Kind uint16

// Message is a struct that can travel.
type Message interface {
	codec.Fields
	Kind() Kind
}

// Header is the decoded head of a frame.
type Header struct {
	Flags  uint8
	Kind   Kind
	Status status.Code
	ID     uint64
	Body   uint32
	Data   uint32
}

// AppendFrame appends a header and the body made of m (which may be nil: an
// empty body) behind dst. dataLen bytes of data must follow on the connection.
func AppendFrame(dst []byte, h Header, m codec.Fields, dataLen int) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	if m != nil {
		dst = codec.Append(dst, m)
	}
	b := dst[start:]
	binary.LittleEndian.PutUint16(b[0:], Magic)
	b[2], b[3] = Version, h.Flags
	binary.LittleEndian.PutUint16(b[4:], uint16(h.Kind))
	binary.LittleEndian.PutUint16(b[6:], uint16(h.Status))
	binary.LittleEndian.PutUint64(b[8:], h.ID)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(b)-HeaderSize))
	binary.LittleEndian.PutUint32(b[20:], uint32(dataLen))
	binary.LittleEndian.PutUint32(b[28:], frameSum(b))
	return dst
}

// frameSum covers a whole header and body but for the checksum itself.
func frameSum(b []byte) uint32 {
	return chunk.SumUpdate(chunk.Sum(b[:28]), b[HeaderSize:])
}

// DecodeHeader checks the first HeaderSize bytes of a frame. The checksum is
// checked by CheckBody, when the body has arrived.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, status.Errorf(status.BadMessage, "frame header of %d bytes", len(b))
	}
	if m := binary.LittleEndian.Uint16(b); m != Magic {
		return Header{}, status.Errorf(status.BadMessage, "frame begins with %#04x, not %#04x", m, Magic)
	}
	if b[2] != Version {
		return Header{}, status.Errorf(status.BadVersion, "frame of protocol version %d, this side speaks %d", b[2], Version)
	}
	h := Header{
		Flags:  b[3],
		Kind:   Kind(binary.LittleEndian.Uint16(b[4:])),
		Status: status.Code(binary.LittleEndian.Uint16(b[6:])),
		ID:     binary.LittleEndian.Uint64(b[8:]),
		Body:   binary.LittleEndian.Uint32(b[16:]),
		Data:   binary.LittleEndian.Uint32(b[20:]),
	}
	if h.Body > MaxBody || h.Data > MaxData {
		return Header{}, status.Errorf(status.BadMessage, "frame of %d+%d bytes, the limits are %d+%d", h.Body, h.Data, MaxBody, MaxData)
	}
	return h, nil
}

// CheckBody verifies the checksum of a frame's header and body.
func CheckBody(header, body []byte) error {
	if chunk.SumUpdate(chunk.Sum(header[:28]), body) != binary.LittleEndian.Uint32(header[28:]) {
		return status.Errorf(status.BadMessage, "frame checksum does not match")
	}
	return nil
}

// DecodeBody fills m from the body of a frame of kind k; status.BadMessage when
// it is another message or malformed.
func DecodeBody(k Kind, body []byte, m Message) error {
	if k != m.Kind() {
		return status.Errorf(status.BadMessage, "message of kind %#x where %T (%#x) is expected", uint16(k), m, uint16(m.Kind()))
	}
	if err := codec.Decode(body, m); err != nil {
		return status.Errorf(status.BadMessage, "%v", err)
	}
	return nil
}
