package placement

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// Slots are what ten million chunks are made of.
const _ uint = 16 - uint(unsafe.Sizeof(slot{}))

// alike says the same of all chunks below a number.
type alike chunk.ID

func (a alike) Chunk(id chunk.ID) (Want, bool) {
	return Want{Version: 1, Min: 1, Goal: 2}, id > 0 && id < chunk.ID(a)
}
func (a alike) Allocated(id chunk.ID) bool { return id < chunk.ID(a) }

// big makes a placement of n chunks with goal 2 on ten servers.
func big(n int) *Placement {
	p := New(Config{}, alike(n+1))
	const servers = 10
	for s := range servers {
		p.ServerUp(0, ServerInfo{ID: chunk.Server(s + 1), Total: 1 << 40, Free: 1 << 39})
	}
	batch := make([]Copy, 0, 1000)
	for s := range servers {
		for id := 1; id <= n; id++ {
			if id%servers == s || (id+1+id/servers%(servers-1))%servers == s {
				batch = append(batch, Copy{Chunk: chunk.ID(id), Version: 1})
			}
			if len(batch) == cap(batch) {
				p.Report(0, chunk.Server(s+1), batch, false)
				batch = batch[:0]
			}
		}
		p.Report(0, chunk.Server(s+1), batch, true)
		batch = batch[:0]
	}
	for p.sweeping() || p.Stats().Queued > 0 {
		p.Next(1)
	}
	return p
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestScale(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	before := heapBytes()
	p := big(n)
	// Beside the chunks there are the servers and pages that are not full yet.
	const each, fixed = 24, 256 << 10
	bytes := heapBytes() - before + uint64(p.Memory())
	t.Logf("%d chunks: %.1f bytes each", n, float64(bytes)/float64(n))
	if most := uint64(each*n + fixed); bytes > most {
		t.Errorf("%d chunks take %d bytes, more than %d", n, bytes, most)
	}
	if st := p.Stats(); st.Chunks != uint64(n) || st.Copies != uint64(2*n) || st.UnderGoal+st.OverGoal+st.Missing+st.Queued > 0 {
		t.Fatalf("%+v", st)
	}

	// A server goes: a fifth of all chunks have to be looked at, in slices.
	had := p.Servers()[2].Copies
	p.ServerDown(second, 3)
	now, longest, orders := second, time.Duration(0), 0
	for p.sweeping() || now < 4*second {
		now += second / 20
		begun := time.Now()
		out := p.Next(now)
		longest = max(longest, time.Since(begun))
		for _, o := range out {
			orders++
			p.Done(now, o.ID, status.OK)
		}
	}
	t.Logf("after the loss: %d copies made, longest Next %v", orders, longest)
	if orders == 0 {
		t.Error("nothing was repaired")
	}
	if st := p.Stats(); st.Endangered+uint64(orders) != had {
		t.Errorf("%d orders and still %+v", orders, st)
	}
	runtime.KeepAlive(p)
}

func TestTableAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var tab table
	want := map[chunk.ID]uint32{}
	for range 200_000 {
		id := chunk.ID(1 + rnd.Uint64N(20_000))
		ref, ok := tab.find(id)
		if was, there := want[id]; ok != there || ok && was != ref {
			t.Fatalf("chunk %d: found %v at %d, want %v at %d", id, ok, ref, there, was)
		}
		switch {
		case !ok:
			want[id] = tab.add(id)
		case rnd.IntN(3) == 0:
			tab.remove(ref)
			delete(want, id)
		default:
			s := tab.at(ref)
			if s.n > 0 && rnd.IntN(3) == 0 {
				tab.drop(s, rnd.IntN(int(s.n)))
			} else {
				tab.push(s, newRef(uint16(id%maxSeats), Valid))
			}
			for i := range int(s.n) {
				if got := tab.copyAt(s, i).seat(); got != uint16(id%maxSeats) {
					t.Fatalf("chunk %d has a copy of seat %d", id, got)
				}
			}
		}
	}
	if tab.live != len(want) {
		t.Fatalf("%d slots live, want %d", tab.live, len(want))
	}
}

func TestHeap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var h heap
	for range 1000 {
		h.push(late{due: rnd.Int64N(100)})
	}
	for last := int64(-1); len(h) > 0; {
		e := h.pop()
		if e.due < last {
			t.Fatalf("%d comes after %d", e.due, last)
		}
		last = e.due
	}
}

// One Next with nothing to do, as most are.
func BenchmarkNextIdle(b *testing.B) {
	p := big(200_000)
	b.ResetTimer()
	for i := range b.N {
		p.Next(second + int64(i))
	}
}

func BenchmarkReport(b *testing.B) {
	p := big(200_000)
	list := make([]Copy, 1000)
	b.ResetTimer()
	for i := range b.N {
		for k := range list {
			list[k] = Copy{Chunk: chunk.ID(1 + (i*1000+k)%200_000), Version: 1}
		}
		p.Report(second, chunk.Server(1+i%10), list, false)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/copy")
}

func BenchmarkPlace(b *testing.B) {
	p := big(1000)
	b.ResetTimer()
	for range b.N {
		p.Place(second, 2, nil)
	}
}
