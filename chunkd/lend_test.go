package chunkd

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/handover"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func (u *user) places(id chunk.ID, off, n uint32) (reply wire.PlacesReply, err error) {
	m := wire.Places{Chunk: id, Min: 1, Version: 1, Off: off, Len: n, Token: sign(wire.Token{Chunk: id, Version: 1})}
	return reply, u.c.Call(bg, &m, nil, &reply)
}

// TestLend: who asks where the bytes of a chunk lie and takes the files finds them there.
func TestLend(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	const id = chunk.ID(5)
	model := make([]byte, 1<<20)
	for i, w := range []struct{ off, n int }{{0, 300000}, {1000, 5000}, {4096, 4096}, {500000, 70000}, {700001, 13}} {
		b := data(w.n, uint64(i))
		copy(model[w.off:], b)
		u.write(wire.Write{Chunk: id, Create: true, Sync: true, Off: uint32(w.off)}, b)
	}
	reply, err := u.places(id, 0, uint32(len(model)))
	if err != nil || len(reply.Places) < 5 {
		t.Fatalf("places %+v, %v", reply, err)
	}
	files := u.take(reply.Places)
	got := make([]byte, len(model))
	for _, p := range reply.Places {
		stored := int(p.Pre) + int(p.Len) + int(p.Post)
		block := p.At &^ (engine.Align - 1)
		b := engine.Alloc(int(p.At-block) + stored)
		if _, err := unix.Pread(files[p.File], b, int64(block)); err != nil {
			t.Fatal(err)
		}
		b = b[p.At-block:][:stored]
		k := chunk.Pieces(p.Off-uint32(p.Pre), uint32(stored))
		if bad := chunk.Verify(reply.Sums[:k], p.Off-uint32(p.Pre), b); bad >= 0 {
			t.Fatalf("piece %d of %+v does not match its sum", bad, p)
		}
		reply.Sums = reply.Sums[k:]
		copy(got[p.Off:], b[p.Pre:][:p.Len])
	}
	if !bytes.Equal(got, model) {
		t.Fatal("the bytes in those places are others")
	}
	if len(reply.Sums) != 0 {
		t.Errorf("%d sums too many", len(reply.Sums))
	}
}

// take takes the files of places.
func (u *user) take(places []wire.Place) map[uint32]int {
	u.t.Helper()
	var numbers []uint32
	for _, p := range places {
		if !slices.Contains(numbers, p.File) {
			numbers = append(numbers, p.File)
		}
	}
	var reply wire.LendReply
	if err := u.c.Call(bg, &wire.Lend{Files: numbers}, nil, &reply); err != nil {
		u.t.Fatal(err)
	}
	fds, err := handover.Take(bg, handover.Promise{Socket: reply.Socket, Ticket: reply.Ticket, Proof: reply.Proof}, len(numbers))
	if err != nil {
		u.t.Fatal(err)
	}
	files := make(map[uint32]int)
	for i, n := range numbers {
		files[n] = fds[i]
		u.t.Cleanup(func() { unix.Close(fds[i]) })
	}
	return files
}

// TestLendRefusals: nobody learns of a chunk's places without a token for it, nobody but a
// mount gets files, and none that are not there; and a server may be told not to lend.
func TestLendRefusals(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	u.write(wire.Write{Chunk: 1, Create: true, Sync: true}, data(5000, 1))
	_, err := u.places(2, 0, 4096)
	wantCode(t, err, status.NoChunk)
	_, err = u.places(1, 0, 0)
	wantCode(t, err, status.BadMessage)
	_, err = u.places(1, chunk.Size-10, 11)
	wantCode(t, err, status.BadMessage)
	for _, token := range [][]byte{nil, sign(wire.Token{Chunk: 2, Version: 1})} {
		err := u.c.Call(bg, &wire.Places{Chunk: 1, Min: 1, Version: 1, Len: 4096, Token: token}, nil, &wire.PlacesReply{})
		wantCode(t, err, status.BadToken)
	}
	err = u.c.Call(bg, &wire.Places{Chunk: 1, Min: 2, Version: 2, Len: 4096, Token: sign(wire.Token{Chunk: 1, Version: 2})}, nil, &wire.PlacesReply{})
	wantCode(t, err, status.StaleVersion)
	wantCode(t, u.c.Call(bg, &wire.Lend{Files: []uint32{1 << 30}}, nil, &wire.LendReply{}), status.NotFound)
	wantCode(t, u.c.Call(bg, &wire.Lend{}, nil, &wire.LendReply{}), status.BadMessage)
	peer, err := link.Dial(bg, "tcp", s.Addr().String(), link.Config{Key: testKey, Role: wire.RoleChunkd, Want: wire.RoleChunkd, Log: testLog}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	wantCode(t, peer.Call(bg, &wire.Lend{Files: []uint32{0}}, nil, &wire.LendReply{}), status.Unsupported)

	cfg := testConfig(t, m)
	cfg.NoLending = true
	no := startWith(t, cfg)
	ready(t, no)
	v := use(t, no)
	v.write(wire.Write{Chunk: 1, Create: true, Sync: true}, data(5000, 1))
	_, err = v.places(1, 0, 4096)
	wantCode(t, err, status.Unsupported)
	wantCode(t, v.c.Call(bg, &wire.Lend{Files: []uint32{0}}, nil, &wire.LendReply{}), status.Unsupported)
}
