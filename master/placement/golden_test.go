package placement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// files is what the changelog says, for tests.
type files struct {
	chunks map[chunk.ID]Want
	next   chunk.ID // numbers below were given
}

func (f *files) Chunk(id chunk.ID) (Want, bool) { w, ok := f.chunks[id]; return w, ok }
func (f *files) Allocated(id chunk.ID) bool     { return id < f.next }

// script runs one text file.
type script struct {
	f   *files
	p   *Placement
	now int64
}

// TestGolden plays conversations between a master and its chunkservers:
//
//	new [delay=10s] ...       start afresh
//	up SERVER free=GB total=GB
//	file CHUNK goal=N [version=V] [min=V] [leased]   what the changelog says from now on
//	report SERVER CHUNK:VERSION ... [last]
//	at SECONDS                time goes on; prints the orders that go out
//	done ORDER [CODE]
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := &strings.Builder{}
			s.run(t, d, out)
			if out.Len() == 0 {
				return "ok\n"
			}
			return out.String()
		})
	})
}

// words are the arguments without a value.
func words(d *datadriven.TestData) []string {
	var out []string
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			out = append(out, a.Key)
		}
	}
	return out
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise float64) float64 {
	t.Helper()
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) == 1 {
			v, err := strconv.ParseFloat(a.Vals[0], 64)
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return v
		}
	}
	return otherwise
}

func ids[T ~uint64](t *testing.T, d *datadriven.TestData, list []string) []T {
	t.Helper()
	var out []T
	for _, w := range list {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		out = append(out, T(n))
	}
	return out
}

func (s *script) run(t *testing.T, d *datadriven.TestData, out *strings.Builder) {
	w := words(d)
	switch d.Cmd {
	case "new":
		s.now = 0
		s.f = &files{chunks: map[chunk.ID]Want{}, next: 1}
		s.p = New(Config{
			Incoming: int(number(t, d, "incoming", 2)), Outgoing: int(number(t, d, "outgoing", 2)),
			DeleteBatch: int(number(t, d, "batch", 100)),
		}, s.f)
	case "start":
		s.p.Start(s.now, ids[chunk.Server](t, d, w))
	case "up", "beat":
		info := ServerInfo{
			ID:    ids[chunk.Server](t, d, w)[0],
			Total: uint64(number(t, d, "total", 100) * (1 << 30)), Free: uint64(number(t, d, "free", 50) * (1 << 30)),
		}
		if d.Cmd == "up" {
			s.p.ServerUp(s.now, info)
		} else {
			s.p.Beat(s.now, info)
		}
	case "down":
		s.p.ServerDown(s.now, ids[chunk.Server](t, d, w)[0])
	case "forget":
		s.p.Forget(ids[chunk.Server](t, d, w)[0])
	case "report":
		s.report(t, d, w)
	case "at":
		s.at(t, d, w[0], out)
	case "done":
		code := status.OK
		if len(w) > 1 {
			for code = 0; code.String() != w[1]; code++ {
			}
		}
		s.p.Done(s.now, ids[uint64](t, d, w[:1])[0], code)
	case "place":
		n := int(number(t, d, "n", 1))
		fmt.Fprintln(out, sorted(s.p.Place(s.now, n, ids[chunk.Server](t, d, w))))
	case "servers":
		for _, v := range s.p.Servers() {
			fmt.Fprintf(out, "%d up=%v ready=%v copies=%d in=%d out=%d deleting=%d\n", v.ID, v.Up, v.Ready, v.Copies, v.Incoming, v.Outgoing, v.Deleting)
		}
	case "stats":
		fmt.Fprintf(out, "%+v\n", s.p.Stats())
	default:
		s.chunk(t, d, w, out)
	}
	check(t, s.p)
}

// chunk runs the commands about one chunk, which is the first word.
func (s *script) chunk(t *testing.T, d *datadriven.TestData, w []string, out *strings.Builder) {
	id := ids[chunk.ID](t, d, w[:1])[0]
	servers := func() []chunk.Server { return ids[chunk.Server](t, d, w[1:]) }
	switch d.Cmd {
	case "file":
		v := chunk.Version(number(t, d, "version", 1))
		s.f.chunks[id] = Want{
			Version: v, Min: chunk.Version(number(t, d, "min", float64(v))),
			Goal: uint8(number(t, d, "goal", 2)), Leased: slices.Contains(w, "leased"),
		}
		s.f.next = max(s.f.next, id+1)
	case "load":
		s.p.Load(id)
	case "created":
		s.p.Created(id, servers())
	case "changed":
		s.p.Changed(id)
	case "lease":
		fmt.Fprintln(out, sorted(s.p.Lease(id)))
	case "lease-fail":
		s.p.LeaseFail(id, servers())
	case "lease-end":
		s.p.LeaseEnd(id, slices.Contains(w, "written"))
	case "settle":
		s.p.Settle(id, servers())
	case "freed":
		v := s.f.chunks[id].Version
		delete(s.f.chunks, id)
		s.p.Freed(id, v)
	case "usable":
		fmt.Fprintln(out, sorted(s.p.Usable(id)))
	case "lost":
		s.p.Lost(ids[chunk.Server](t, d, w[1:2])[0], []chunk.ID{id})
	case "damaged":
		s.p.Damaged(ids[chunk.Server](t, d, w[1:2])[0], []chunk.ID{id})
	case "copies":
		for _, c := range s.p.Copies(id) {
			fmt.Fprintf(out, "%d %v%s%s%s\n", c.Server, c.State, word(!c.Up, " away"), word(c.InLease, " in-lease"), word(c.Deleting, " deleting"))
		}
		if out.Len() == 0 {
			fmt.Fprintln(out, "none")
		}
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
}

func word(yes bool, s string) string {
	if yes {
		return s
	}
	return ""
}

func sorted(list []chunk.Server) string {
	list = slices.Clone(list)
	slices.Sort(list)
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%d", uint64(s)))
	}
	return "[" + strings.Join(out, " ") + "]"
}

func (s *script) report(t *testing.T, d *datadriven.TestData, w []string) {
	var copies []Copy
	for _, c := range w[1:] {
		if c == "last" {
			continue
		}
		id, v, _ := strings.Cut(c, ":")
		pair := ids[uint64](t, d, []string{id, v})
		copies = append(copies, Copy{Chunk: chunk.ID(pair[0]), Version: chunk.Version(pair[1])})
	}
	s.p.Report(s.now, ids[chunk.Server](t, d, w[:1])[0], copies, slices.Contains(w, "last"))
}

func (s *script) at(t *testing.T, d *datadriven.TestData, when string, out *strings.Builder) {
	v, err := strconv.ParseFloat(when, 64)
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	s.now = int64(v * float64(second))
	for _, o := range s.p.Next(s.now) {
		fmt.Fprintf(out, "%d: server %d ", o.ID, uint64(o.Server))
		switch o.Kind {
		case Replicate:
			fmt.Fprintf(out, "replicate %d version %d from %s\n", uint64(o.Chunk), o.Version, sorted(o.From))
		case Verify:
			fmt.Fprintf(out, "verify %d version %d\n", uint64(o.Chunk), o.Version)
		case Delete:
			fmt.Fprintf(out, "delete")
			for _, c := range o.Deletes {
				fmt.Fprintf(out, " %d<=%d", uint64(c.Chunk), c.Version)
			}
			fmt.Fprintln(out)
		}
	}
	if out.Len() == 0 {
		fmt.Fprintln(out, "nothing to do")
	}
}

// check compares all counts with what they count.
func check(t testing.TB, p *Placement) {
	t.Helper()
	var m Matrix
	var leased, orphans, riddles uint64
	live := 0
	copies := make([]uint64, len(p.seats))
	refs := slices.Collect(maps.Values(p.table.where))
	for ref := range p.table.used {
		refs = append(refs, ref)
	}
	for _, ref := range refs {
		s := p.table.at(ref)
		if !s.live() {
			continue
		}
		live++
		if got, ok := p.table.find(p.table.id(ref)); !ok || got != ref {
			t.Fatalf("chunk %d is not found where it is", p.table.id(ref))
		}
		valid := 0
		for i := range int(s.n) {
			c := *p.table.copyAt(s, i)
			copies[c.seat()]++
			if p.counts(s, c) {
				valid++
			}
		}
		if !p.sweeping() && s.flags&slotOrphan == 0 && valid != int(s.valid()) {
			t.Fatalf("chunk %d has %d valid copies, counted as %d", p.table.id(ref), valid, s.valid())
		}
		if s.flags&slotCounted != 0 {
			m[s.goal()][min(s.valid(), 10)]++
		}
		if s.flags&slotLeased != 0 {
			leased++
		}
		if s.flags&slotRiddle != 0 {
			riddles++
		} else if s.flags&slotOrphan != 0 {
			orphans++
		}
	}
	if m != p.matrix || leased != p.leased || orphans != p.orphans || riddles != p.riddles || live != p.table.live {
		t.Fatalf("counts are wrong:\nmatrix %v\n is in fact %v\nleased %d/%d orphans %d/%d riddles %d/%d live %d/%d",
			p.matrix, m, p.leased, leased, p.orphans, orphans, p.riddles, riddles, p.table.live, live)
	}
	for n := range p.seats {
		if copies[n] != p.seats[n].copies {
			t.Fatalf("seat %d has %d copies, counted as %d", n, copies[n], p.seats[n].copies)
		}
	}
}
