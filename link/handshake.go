package link

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxHello bounds the body of a frame of the handshake: nothing larger is
// allocated for a peer that has not proved the key.
const maxHello = 8 << 10

// proof is what an end must know the key for: side is "varve server" or
// "varve client".
func proof(key []byte, side string, hello *wire.Hello, server *[32]byte) (p [32]byte) {
	m := hmac.New(sha256.New, key)
	io.WriteString(m, side)
	m.Write(hello.Nonce[:])
	m.Write(server[:])
	m.Write([]byte{byte(hello.Role), byte(hello.Want)})
	copy(p[:], m.Sum(nil))
	return p
}

// greeter speaks the handshake's frames on a fresh socket.
type greeter struct {
	nc net.Conn
	rd *reader
}

func newGreeter(nc net.Conn) *greeter {
	g := &greeter{nc: nc, rd: newReader(nc)}
	g.rd.maxBody = maxHello
	return g
}

func (g *greeter) put(code status.Code, k wire.Kind, m wire.Message) error {
	b := encode(wire.Header{Kind: k, Status: code}, m, 0)
	defer buffer.Put(b)
	_, err := g.nc.Write(b)
	return err
}

// refuse tells the other side why and returns err.
func (g *greeter) refuse(err error) error {
	text := status.DetailOf(err)
	// The other side may be gone already; err is what counts.
	_ = g.put(status.CodeOf(err), wire.KindWelcome, &wire.Detail{Text: text[:min(len(text), maxDetail)]})
	return err
}

func (g *greeter) get(m wire.Message) error {
	// A stranger's words may be shorter than a header: do not wait for more.
	b, err := g.rd.peek(2)
	if err != nil {
		return err
	}
	if magic := binary.LittleEndian.Uint16(b); magic != wire.Magic {
		return status.Errorf(status.BadMessage, "it says %q, which is not our protocol", b)
	}
	h, body, err := g.rd.next()
	if err != nil {
		return err
	}
	if h.Status != status.OK {
		return failure(h, body)
	}
	if h.Data != 0 {
		return status.Errorf(status.BadMessage, "data in the handshake")
	}
	return wire.DecodeBody(h.Kind, body, m)
}

// greetServer is the calling side's handshake.
func (g *greeter) greetServer(cfg *Config) error {
	hello := wire.Hello{Role: cfg.Role, Want: cfg.Want, Client: cfg.Client[:min(len(cfg.Client), 256)]}
	rand.Read(hello.Nonce[:])
	if err := g.put(status.OK, wire.KindHello, &hello); err != nil {
		return err
	}
	var ch wire.Challenge
	if err := g.get(&ch); err != nil {
		return err
	}
	want := proof(cfg.Key, "varve server", &hello, &ch.Nonce)
	if !hmac.Equal(want[:], ch.Proof[:]) {
		return g.refuse(status.Errorf(status.BadKey, "the called side's proof is wrong"))
	}
	p := wire.Proof{Proof: proof(cfg.Key, "varve client", &hello, &ch.Nonce)}
	if err := g.put(status.OK, wire.KindProof, &p); err != nil {
		return err
	}
	return g.get(&wire.Welcome{})
}

// greetClient is the called side's handshake. accept is asked before Welcome.
func (g *greeter) greetClient(cfg *Config, accept func(wire.Role) (Handler, error)) (*wire.Hello, Handler, error) {
	var hello wire.Hello
	if err := g.get(&hello); err != nil {
		if status.CodeOf(err) == status.BadVersion {
			err = g.refuse(err)
		}
		return nil, nil, err
	}
	if hello.Want != cfg.Role {
		return nil, nil, g.refuse(status.Errorf(status.BadMessage, "this is the port of a %v, not of a %v", cfg.Role, hello.Want))
	}
	var ch wire.Challenge
	rand.Read(ch.Nonce[:])
	ch.Proof = proof(cfg.Key, "varve server", &hello, &ch.Nonce)
	if err := g.put(status.OK, wire.KindChallenge, &ch); err != nil {
		return nil, nil, err
	}
	var p wire.Proof
	if err := g.get(&p); err != nil {
		return nil, nil, err
	}
	want := proof(cfg.Key, "varve client", &hello, &ch.Nonce)
	if !hmac.Equal(want[:], p.Proof[:]) {
		return nil, nil, g.refuse(status.Errorf(status.BadKey, "the calling side's proof is wrong"))
	}
	h, err := accept(hello.Role)
	if err != nil {
		return nil, nil, g.refuse(err)
	}
	return &hello, h, g.put(status.OK, wire.KindWelcome, &wire.Welcome{})
}

// handshakeError names the peer and keeps the status code.
func handshakeError(addr string, err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return status.Errorf(status.Timeout, "handshake with %s", addr)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return status.Errorf(status.Closed, "handshake with %s: it hung up", addr)
	case status.CodeOf(err) == status.Unknown:
		return status.Errorf(status.Closed, "handshake with %s: %v", addr, err)
	}
	return fmt.Errorf("handshake with %s: %w", addr, err)
}

// linger lets the other side read a refusal: closing with unread input would
// reset the connection and throw the refusal away.
func linger(nc net.Conn) {
	if t, ok := nc.(interface{ CloseWrite() error }); ok && t.CloseWrite() == nil {
		nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		io.CopyN(io.Discard, nc, 64<<10)
	}
	nc.Close()
}
