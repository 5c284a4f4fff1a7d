package chunkd

import (
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestWriteRead(t *testing.T) {
	s := start(t, newMaster(t))
	u := use(t, s)
	const id = chunk.ID(11)
	model := make([]byte, 4<<20)
	put := func(off int, b []byte) {
		u.write(wire.Write{Chunk: id, Create: true, Off: uint32(off)}, b)
		copy(model[off:], b)
	}
	put(0, data(100, 1))
	put(50, data(10000, 2))
	put(1<<20-77, data(1<<20, 3))
	put(3<<20+1, data(1, 4))
	put(4096, data(4096, 5))
	u.write(wire.Write{Chunk: id, What: wire.WriteZero, Off: 5000, Len: 3000}, nil)
	clear(model[5000:8000])
	u.want(id, 1, 0, model)
	u.want(id, 1, 4999, model[4999:8002])
	u.want(id, 1, 1<<20-80, model[1<<20-80:2<<20])
	u.write(wire.Write{Chunk: id, What: wire.WriteTrim, Off: 2<<20 - 100}, nil)
	clear(model[2<<20-100:])
	u.sync(id)
	u.want(id, 1, 0, model)

	var m wire.MapReply
	err := u.c.Call(bg, &wire.Map{Chunk: id, Min: 1, Version: 1, Token: sign(wire.Token{Chunk: id, Version: 1})}, nil, &m)
	if err != nil || m.Version != 1 {
		t.Fatal(m, err)
	}
	end := uint32(0)
	for _, r := range m.Ranges {
		if r.Off < end || r.Len == 0 {
			t.Fatalf("ranges %v", m.Ranges)
		}
		clear(model[r.Off : r.Off+r.Len])
		end = r.Off + r.Len
	}
	for i, b := range model {
		if b != 0 {
			t.Fatalf("byte %d holds data and is in none of %v", i, m.Ranges)
		}
	}
	st := s.Stats()
	if st.Writes != 7 || st.Reads == 0 || st.Disks[0].Chunks != 1 || len(st.Masters) != 1 || st.Cluster != "cluster-1" || st.Errors != 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, newMaster(t))
	u := use(t, s)
	b := data(5000, 1)
	u.write(wire.Write{Chunk: 5, Create: true, Off: 10}, b)
	good := func() wire.Write { return wire.Write{Chunk: 5, Off: 10} }
	for name, c := range map[string]struct {
		change func(*wire.Write)
		code   status.Code
	}{
		"no copy":         {func(m *wire.Write) { m.Chunk = 6 }, status.NoChunk},
		"older version":   {func(m *wire.Write) { m.Version = 1; m.Min = 0; m.Chunk = 7 }, status.NoChunk},
		"newer versions":  {func(m *wire.Write) { m.Min, m.Version = 2, 3 }, status.StaleVersion},
		"no token":        {func(m *wire.Write) { m.Token = []byte{} }, status.BadToken},
		"forged token":    {func(m *wire.Write) { m.Token = forge() }, status.BadToken},
		"expired token":   {func(m *wire.Write) { m.Token = sign(wire.Token{Write: true, Chunk: 5, Version: 1, Expiry: 1e9}) }, status.BadToken},
		"reader's token":  {func(m *wire.Write) { m.Token = sign(wire.Token{Chunk: 5, Version: 1}) }, status.BadToken},
		"other's token":   {func(m *wire.Write) { m.Token = sign(wire.Token{Write: true, Chunk: 6, Version: 1}) }, status.BadToken},
		"old lease token": {func(m *wire.Write) { m.Version = 2; m.Token = sign(wire.Token{Write: true, Chunk: 5, Version: 1}) }, status.BadToken},
		"wrong sums":      {func(m *wire.Write) { m.Sums = chunk.AppendSums(nil, 10, data(5000, 2)) }, status.Corrupt},
		"too few sums":    {func(m *wire.Write) { m.Sums = []uint32{1} }, status.BadMessage},
		"beyond the end":  {func(m *wire.Write) { m.Off = chunk.Size - 100 }, status.BadMessage},
		"unknown what":    {func(m *wire.Write) { m.What = 9 }, status.BadMessage},
		"chunk 0":         {func(m *wire.Write) { m.Chunk = 0 }, status.BadMessage},
		"data with zero":  {func(m *wire.Write) { m.What = wire.WriteZero; m.Len = 3 }, status.BadMessage},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			c.change(&m)
			_, err := u.send(m, b)
			wantCode(t, err, c.code)
		})
	}
	_, err := u.read(5, 2, 0, 10)
	wantCode(t, err, status.StaleVersion)
	_, err = u.read(6, 1, 0, 10)
	wantCode(t, err, status.NoChunk)
	r := wire.Read{Chunk: 5, Min: 1, Version: 1, Len: 10, Token: sign(wire.Token{Chunk: 6, Version: 1})}
	_, err = u.c.CallData(bg, &r, make([]byte, 10), nil)
	wantCode(t, err, status.BadToken)
	r = wire.Read{Chunk: 5, Min: 1, Version: 1, Off: chunk.Size - 5, Len: 10, Token: sign(wire.Token{Chunk: 5, Version: 1})}
	_, err = u.c.CallData(bg, &r, make([]byte, 10), nil)
	wantCode(t, err, status.BadMessage)
	wantCode(t, u.c.Call(bg, &wire.Sync{Chunks: []chunk.ID{5, 6}}, nil, nil), status.NoChunk)
	wantCode(t, u.c.Call(bg, &wire.Delete{}, nil, nil), status.Unsupported)
	u.want(5, 1, 10, b)
}

func forge() []byte {
	tok := wire.Token{Write: true, Chunk: 5, Version: 1, Expiry: time.Now().Add(time.Hour).Unix()}
	return tok.Sign([]byte("not the key of this cluster"))
}

// TestVersions: a lease raises the version with its first write; afterwards the
// old lease is worth nothing.
func TestVersions(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	b := data(100, 1)
	u.write(wire.Write{Chunk: 5, Create: true}, b)
	u.want(5, 1, 0, b)
	u.write(wire.Write{Chunk: 5, Min: 1, Version: 2, Off: 50}, b)
	u.write(wire.Write{Chunk: 5, Min: 1, Version: 2, Off: 60}, b)
	_, err := u.send(wire.Write{Chunk: 5, Version: 1}, b)
	wantCode(t, err, status.StaleVersion)
	_, err = u.read(5, 1, 0, 10)
	wantCode(t, err, status.StaleVersion)

	// The master raises it, as when another copy was dropped.
	order := wire.SetVersion{Epoch: 7, Chunk: 5, Min: 1, Max: 2, Version: 3}
	for range 2 { // a repeated order is no error
		if err := m.order(s, &order, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err = u.send(wire.Write{Chunk: 5, Min: 1, Version: 2}, b)
	wantCode(t, err, status.StaleVersion)
	u.write(wire.Write{Chunk: 5, Min: 2, Version: 3, Off: 70}, b)
	order.Version = 4
	wantCode(t, m.order(s, &order, nil), status.StaleVersion)
	order.Chunk = 6
	wantCode(t, m.order(s, &order, nil), status.NoChunk)
	u.want(5, 3, 70, b)
}

// TestEpochs: a deposed master gives no orders and its grants begin nothing, but
// what is under way goes on; the highest epoch survives a restart.
func TestEpochs(t *testing.T) {
	m := newMaster(t)
	dir := t.TempDir()
	s := start(t, m, dir)
	u := use(t, s)
	b := data(100, 1)
	u.write(wire.Write{Chunk: 5, Create: true}, b)
	if err := m.order(s, &wire.SetVersion{Epoch: 9, Chunk: 5, Min: 1, Max: 1, Version: 2}, nil); err != nil {
		t.Fatal(err)
	}
	for _, old := range []wire.Message{
		&wire.SetVersion{Epoch: 8, Chunk: 5, Min: 2, Max: 2, Version: 3},
		&wire.Delete{Epoch: 8, Copies: []wire.Copy{{Chunk: 5, Version: 2}}},
		&wire.Digest{Epoch: 8, Chunk: 5},
		&wire.Replicate{Epoch: 8, Loc: wire.ChunkLoc{Chunk: 5}, Version: 3},
	} {
		wantCode(t, m.order(s, old, nil), status.OldEpoch)
	}
	u.write(wire.Write{Chunk: 5, Version: 2, Epoch: 8}, b) // under way
	_, err := u.send(wire.Write{Chunk: 5, Min: 2, Version: 3, Epoch: 8}, b)
	wantCode(t, err, status.OldEpoch)
	_, err = u.send(wire.Write{Chunk: 6, Create: true, Epoch: 8}, b)
	wantCode(t, err, status.OldEpoch)
	u.epoch = 12 // a new master's grant arrives before its orders
	u.write(wire.Write{Chunk: 6, Create: true}, b)
	wantCode(t, m.order(s, &wire.Digest{Epoch: 11, Chunk: 5}, nil), status.OldEpoch)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, m, dir)
	if e := s.Stats().Epoch; e != 12 {
		t.Fatalf("epoch %d after the restart", e)
	}
	wantCode(t, m.order(s, &wire.Digest{Epoch: 11, Chunk: 5}, nil), status.OldEpoch)
}

// TestForgedEpoch: the epoch in a write counts only as far as a master signed it.
func TestForgedEpoch(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	tok := sign(wire.Token{Write: true, Chunk: 5, Min: 1, Version: 1, Epoch: 7})
	u.write(wire.Write{Chunk: 5, Create: true, Epoch: 1 << 60, Token: tok}, data(10, 1))
	if e := s.Stats().Epoch; e != 7 {
		t.Fatalf("a mount raised the epoch to %d", e)
	}
}
