package chunkd

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func digestOf(t testing.TB, m *testMaster, s *Server, id chunk.ID) wire.DigestReply {
	t.Helper()
	var d wire.DigestReply
	if err := m.order(s, &wire.Digest{Epoch: 100, Chunk: id}, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func sameDigest(a, b wire.DigestReply) bool {
	return a.Version == b.Version && a.Length == b.Length && a.Writes == b.Writes && slices.Equal(a.Blocks, b.Blocks)
}

func TestChainOfThree(t *testing.T) {
	m := newMaster(t)
	a, b, c := start(t, m), start(t, m), start(t, m)
	u := use(t, a)
	const id = chunk.ID(21)
	chain := []wire.Replica{replica(b), replica(c)}
	model := make([]byte, 6<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	var wg sync.WaitGroup
	for i := range 40 {
		off, n := rng.IntN(5<<20), 1+rng.IntN(1<<20)
		d := data(n, uint64(i))
		copy(model[off:], d)
		w := wire.Write{Chunk: id, Create: true, Off: uint32(off), Sync: i%7 == 0, Chain: chain}
		u.fill(&w, d)
		wg.Add(1)
		u.c.Start(&w, d, func(r *link.Reply) { // all under way at once, in order
			defer wg.Done()
			var reply wire.WriteReply
			if err := r.Decode(&reply); err != nil || reply.Failed != 0 {
				t.Errorf("write %d: %v, %+v", i, err, reply)
			}
			r.Free()
		})
	}
	wg.Wait()
	for _, s := range []*Server{a, b, c} {
		v := use(t, s)
		for off := 0; off < len(model); off += 2 << 20 {
			v.want(id, 1, uint32(off), model[off:off+2<<20])
		}
	}
	da, db, dc := digestOf(t, m, a, id), digestOf(t, m, b, id), digestOf(t, m, c, id)
	if !sameDigest(da, db) || !sameDigest(da, dc) || da.Writes != 40 || len(da.Blocks) != int((da.Length+digestBlock-1)/digestBlock) {
		t.Fatalf("digests differ:\n%+v\n%+v\n%+v", da, db, dc)
	}
	// The master holds the writer for dead: it writes no more.
	_, err := u.send(wire.Write{Chunk: id}, data(10, 1))
	wantCode(t, err, status.NoLease)
	if err := m.order(a, &wire.SetVersion{Epoch: 100, Chunk: id, Min: 1, Max: 1, Version: 2}, nil); err != nil {
		t.Fatal(err)
	}
	u.epoch = 100
	u.write(wire.Write{Chunk: id, Min: 2, Version: 3}, data(10, 1))
}

func TestDeadHopIsNamed(t *testing.T) {
	m := newMaster(t)
	a, b, c := start(t, m), start(t, m), start(t, m)
	u := use(t, a)
	chain := []wire.Replica{replica(b), replica(c)}
	d := data(100000, 1)
	u.write(wire.Write{Chunk: 1, Create: true, Chain: chain}, d)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		begin := time.Now()
		reply, err := u.send(wire.Write{Chunk: 1, Off: 5, Chain: chain}, d)
		if err != nil || reply.Failed != c.ID() || reply.Code == 0 || reply.Detail == "" {
			t.Fatalf("%v, %+v", err, reply)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Fatalf("took %v", took)
		}
	}
	reply, err := u.send(wire.Write{Chunk: 1, Chain: chain[1:]}, d)
	if err != nil || reply.Failed != c.ID() {
		t.Fatalf("%v, %+v", err, reply)
	}
	u.write(wire.Write{Chunk: 1, Chain: chain[:1]}, d) // the others go on
	use(t, b).want(1, 1, 0, d)
}

// TestRefusingHop: what the next server answers comes back with its name.
func TestRefusingHop(t *testing.T) {
	m := newMaster(t)
	a, b := start(t, m), start(t, m)
	u := use(t, a)
	d := data(1000, 1)
	u.write(wire.Write{Chunk: 1, Create: true}, d)
	reply, err := u.send(wire.Write{Chunk: 1, Chain: []wire.Replica{replica(b)}}, d)
	if err != nil || reply.Failed != b.ID() || status.Code(reply.Code) != status.NoChunk {
		t.Fatalf("%v, %+v", err, reply)
	}
}

// TestSilentHops: a next server that does not shake hands, or does not answer,
// holds a write for a bounded time only.
func TestSilentHops(t *testing.T) {
	m := newMaster(t)
	cfg := testConfig(t, m)
	cfg.HopTimeout, cfg.DialTimeout = 150*time.Millisecond, 100*time.Millisecond
	s := startWith(t, cfg)
	ready(t, s)
	u := use(t, s)
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	lc := link.Config{Key: testKey, Role: wire.RoleChunkd, Log: testLog}
	mute, err := link.Listen("127.0.0.1:0", lc, link.Only(link.HandlerFunc(func(*link.Conn, *link.Request) {}), wire.RoleChunkd))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for i, addr := range []string{deaf.Addr().String(), mute.Addr().String()} {
		hop := wire.Replica{Server: chunk.Server(77 + i), Addr: addr}
		for range 2 {
			reply, err := u.send(wire.Write{Chunk: 1, Create: true, Chain: []wire.Replica{hop}}, data(100000, 1))
			if err != nil || reply.Failed != hop.Server || status.Code(reply.Code) != status.Timeout {
				t.Fatalf("%v, %+v", err, reply)
			}
		}
	}
	u.want(1, 1, 0, data(100000, 1))
}

// TestOwnFailureInChain: a server that cannot take the write itself says so, and
// the next one has it all the same.
func TestOwnFailureInChain(t *testing.T) {
	m := newMaster(t)
	a, b := start(t, m), start(t, m)
	d := data(1000, 1)
	use(t, b).write(wire.Write{Chunk: 1, Create: true}, d)
	_, err := use(t, a).send(wire.Write{Chunk: 1, Off: 10, Chain: []wire.Replica{replica(b)}}, d)
	wantCode(t, err, status.NoChunk)
	use(t, b).want(1, 1, 10, d)
}

// TestManyWriters: chains in all directions at once end, and leave equal copies.
func TestManyWriters(t *testing.T) {
	m := newMaster(t)
	servers := []*Server{start(t, m), start(t, m), start(t, m)}
	const writers, writes = 6, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			first, second, third := servers[w%3], servers[(w+1)%3], servers[(w+2)%3]
			chain := []wire.Replica{replica(second), replica(third)}
			u := use(t, first)
			rng := rand.New(rand.NewPCG(9, uint64(w)))
			var all sync.WaitGroup
			for i := range writes {
				d := data(1+rng.IntN(300<<10), uint64(w*1000+i))
				msg := wire.Write{Chunk: chunk.ID(100 + w), Create: true, Off: uint32(rng.IntN(2 << 20)), Chain: chain, Sync: rng.IntN(3) == 0}
				u.fill(&msg, d)
				all.Add(1)
				u.c.Start(&msg, d, func(r *link.Reply) {
					defer all.Done()
					var reply wire.WriteReply
					if err := r.Decode(&reply); err != nil || reply.Failed != 0 {
						t.Errorf("writer %d: %v, %+v", w, err, reply)
					}
					r.Free()
				})
			}
			all.Wait()
		}()
	}
	wg.Wait()
	for w := range writers {
		id := chunk.ID(100 + w)
		first := digestOf(t, m, servers[0], id)
		for _, s := range servers[1:] {
			if d := digestOf(t, m, s, id); !sameDigest(first, d) {
				t.Fatalf("chunk %v differs between servers:\n%+v\n%+v", id, first, d)
			}
		}
		if first.Writes != writes {
			t.Fatalf("%d of %d writes counted", first.Writes, writes)
		}
	}
	for _, s := range servers {
		eventually(t, "no request is under way", func() bool { return s.Stats().Queue == 0 })
	}
}
