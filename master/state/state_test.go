package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// must applies an op that has to succeed.
func must(t testing.TB, s *State, session uint64, op Op) Result {
	t.Helper()
	r := s.Apply(&Entry{Time: s.Time() + 1000, Session: session, Op: op})
	if r.Code != status.OK {
		t.Fatalf("%s: %v", op, r.Code)
	}
	return r
}

func checked(t testing.TB, s *State) {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestNumbersOfTheProtocol keeps the constants equal to those of the messages,
// which the master copies from one to the other.
func TestNumbersOfTheProtocol(t *testing.T) {
	for _, c := range [][2]int{
		{SetMode, wire.SetMode}, {SetUid, wire.SetUid}, {SetGid, wire.SetGid}, {SetSize, wire.SetSize},
		{SetAtime, wire.SetAtime}, {SetMtime, wire.SetMtime}, {SetAtimeNow, wire.SetAtimeNow}, {SetMtimeNow, wire.SetMtimeNow},
		{SetCtime, wire.SetCtime}, {SetKill, wire.SetKill}, {SetGoal, wire.SetGoal}, {SetTrash, wire.SetTrash},
		{RenameNoReplace, wire.RenameNoReplace}, {RenameExchange, wire.RenameExchange}, {RenameWhiteout, wire.RenameWhiteout},
		{XattrCreate, wire.XattrCreate}, {XattrReplace, wire.XattrReplace},
	} {
		if c[0] != c[1] {
			t.Errorf("constant is %#x here and %#x in a message", c[0], c[1])
		}
	}
}

// TestLargeDirectory fills a directory and empties it in several orders: cookies
// walk all of it, and nothing remains of what was removed.
func TestLargeDirectory(t *testing.T) {
	const n = 20000
	for _, order := range []string{"up", "down", "spread"} {
		s := New(0)
		dir := must(t, s, 0, &Make{Parent: inode.Root, Name: "dir", What: inode.Dir}).Ino
		for i := range n {
			must(t, s, 0, &Make{Parent: dir, Name: benchName(i), What: inode.File})
		}
		seen, cookie := 0, uint64(0)
		for {
			before := seen
			s.ReadDir(dir, cookie, 777, func(name string, c uint64, _ inode.Ino) bool {
				if name != benchName(n-1-seen) {
					t.Fatalf("name %d is %q", seen, name)
				}
				seen++
				cookie = c
				return true
			})
			if seen == before {
				break
			}
		}
		if seen != n {
			t.Fatalf("%d of %d names", seen, n)
		}
		for i := range n {
			k := i
			switch order {
			case "down":
				k = n - 1 - i
			case "spread":
				k = i * 7919 % n
			}
			must(t, s, 0, &Remove{Parent: dir, Name: benchName(k)})
		}
		checked(t, s)
		if s.nodes.live() != 0 || s.edges.live() != 1 || s.inodes.live() != 2 || s.tallies.live() != 1 {
			t.Fatalf("%s: %d nodes, %d edges, %d inodes, %d tallies are left", order, s.nodes.live(), s.edges.live(), s.inodes.live(), s.tallies.live())
		}
	}
}

// TestLargeFile has chunks far apart and truncates them away.
func TestLargeFile(t *testing.T) {
	s := New(0)
	ses := must(t, s, 0, &SessionOpen{}).Session
	ino := must(t, s, 0, &Make{Parent: inode.Root, Name: "f", What: inode.File}).Ino
	var ended []LeaseEnd
	for _, first := range []uint32{0, 15, 255, 4096, 1 << 20, maxIndex - 3} {
		for _, c := range must(t, s, ses, &Lease{Ino: ino, First: first, Count: 4}).Chunks {
			if !slices.ContainsFunc(ended, func(e LeaseEnd) bool { return e.Index == c.Index }) {
				ended = append(ended, LeaseEnd{c.Index, c.ID, c.Version, true})
			}
		}
	}
	r := must(t, s, ses, &Commit{Files: []CommitFile{{Ino: ino, Size: inode.SizeMax, Mtime: 1, Ended: ended}}})
	if r.Codes != nil {
		t.Fatal(r.Codes)
	}
	checked(t, s)
	a, _ := s.Attr(ino)
	if want := uint64(len(ended)) * chunk.Size / 512; a.Blocks != want {
		t.Fatalf("%d blocks, not %d", a.Blocks, want)
	}
	for _, keep := range []uint64{1 << 21, 5000, 257, 16, 1, 0} {
		must(t, s, ses, &SetAttr{Ino: ino, Valid: SetSize, Size: keep * chunk.Size})
		checked(t, s)
		s.FileChunks(ino, 0, 1<<31, func(c ChunkSlot) bool {
			if uint64(c.Index) >= keep {
				t.Fatalf("chunk %d is left of %d", c.Index, keep)
			}
			return true
		})
	}
	if s.nodes.live() != 0 || s.trees.live() != 0 || s.chunks.live() != 0 {
		t.Fatal("nodes, trees or chunks are left")
	}
}

// TestRepliesAreBounded: a session that never says Done makes the state forget,
// not grow, and what is forgotten is never executed again.
func TestRepliesAreBounded(t *testing.T) {
	s := New(0)
	ses := must(t, s, 0, &SessionOpen{}).Session
	for seq := uint64(1); seq <= maxReplies+10; seq++ {
		s.Apply(&Entry{Session: ses, Seq: seq, Op: &Nop{}})
	}
	if n := len(s.sessions[0].replies); n > maxReplies {
		t.Fatalf("%d replies", n)
	}
	if _, ok := s.Replied(ses, 10); ok {
		t.Fatal("reply 10 is still there")
	}
	if _, ok := s.Replied(ses, maxReplies+10); !ok {
		t.Fatal("the last reply is forgotten")
	}
	if r := s.Apply(&Entry{Session: ses, Seq: 10, Op: &Make{Parent: inode.Root, Name: "x", What: inode.File}}); r.Code != status.Stale {
		t.Fatalf("%v", r.Code)
	}
	// Done drops what was remembered at once.
	s.Apply(&Entry{Session: ses, Seq: maxReplies + 11, Done: maxReplies + 10, Op: &Nop{}})
	if n := len(s.sessions[0].replies); n != 1 {
		t.Fatalf("%d replies behind Done", n)
	}
}

// TestWornSlots: a slot whose uses are counted to the end is not used again, so
// that no number ever comes back.
func TestWornSlots(t *testing.T) {
	s := New(0)
	ses := must(t, s, 0, &SessionOpen{}).Session
	mk := &Make{Parent: inode.Root, Name: "x", What: inode.File, Lease: true}
	first := must(t, s, ses, mk)
	must(t, s, 0, &Remove{Parent: inode.Root, Name: "x"})
	s.inodes.mut(uint32(first.Ino)).uses = maxUses
	s.chunks.mut(uint32(first.Chunks[0].ID)).uses = maxUses
	last := must(t, s, ses, mk)
	if uint64(last.Ino)>>32 != maxUses || uint64(last.Chunks[0].ID)>>32 != maxUses {
		t.Fatalf("inode %x, chunk %s", uint64(last.Ino), last.Chunks[0].ID)
	}
	must(t, s, 0, &Remove{Parent: inode.Root, Name: "x"})
	next := must(t, s, ses, mk)
	if uint32(next.Ino) == uint32(last.Ino) || uint32(next.Chunks[0].ID) == uint32(last.Chunks[0].ID) {
		t.Fatal("a worn slot was used again")
	}
	if _, ok := s.Attr(last.Ino); ok {
		t.Fatal("the inode of a worn slot is still there")
	}
	checked(t, s)
	checked(t, loaded(t, saved(t, s)))
}

// TestGeneration: Attr.Gen goes on behind 32 bits.
func TestGeneration(t *testing.T) {
	s := New(0)
	s.inodes.mut(1).change = 1<<32 - 1
	must(t, s, 0, &SetAttr{Ino: inode.Root, Valid: SetMode, Mode: 0o700})
	if a, _ := s.Attr(inode.Root); a.Gen != 1<<32 {
		t.Fatalf("generation is %x", a.Gen)
	}
}

// TestXattrListLimit: the list of names stays within what listxattr(2) can give.
func TestXattrListLimit(t *testing.T) {
	s := New(0)
	n := 0
	for ; ; n++ {
		name := fmt.Sprintf("user.%s%04d", strings.Repeat("x", 240), n)
		r := s.Apply(&Entry{Op: &SetXattr{Ino: inode.Root, Name: name, Value: []byte("v")}})
		if r.Code == status.NoSpace {
			break
		}
		if r.Code != status.OK {
			t.Fatal(r.Code)
		}
	}
	if got := len(s.Xattrs(inode.Root)); got > 64<<10 || got < 63<<10 {
		t.Fatalf("%d names in %d bytes", n, got)
	}
	checked(t, s)
}

// TestFailedOpsChangeNothing applies each kind of op that fails and compares images.
func TestFailedOpsChangeNothing(t *testing.T) {
	s := New(0)
	ses := must(t, s, 0, &SessionOpen{}).Session
	f := must(t, s, ses, &Make{Parent: inode.Root, Name: "f", What: inode.File, Lease: true})
	d := must(t, s, 0, &Make{Parent: inode.Root, Name: "d", What: inode.Dir}).Ino
	must(t, s, 0, &Make{Parent: d, Name: "x", What: inode.File})
	before := saved(t, s)
	for _, op := range []Op{
		&Make{Parent: inode.Root, Name: "f", What: inode.File, Lease: true},
		&Make{Parent: inode.Root, Name: "new", What: inode.File, Lease: true}, // no session
		&Remove{Parent: inode.Root, Name: "d", Dir: true},
		&Rename{Parent: inode.Root, Name: "f", NewParent: inode.Root, NewName: "d"},
		&Rename{Parent: inode.Root, Name: "d", NewParent: d, NewName: "y"},
		&Link{Ino: d, Parent: inode.Root, Name: "y"},
		&SetAttr{Ino: f.Ino, Valid: SetMode | SetGoal, Goal: 77},
		&SetAttr{Ino: f.Ino, Valid: SetMode | SetSize, Size: 1 << 60},
		&SetAttr{Ino: f.Ino, Valid: 1 << 31},
		&SetMany{Inos: []inode.Ino{f.Ino}, Valid: SetGoal, Goal: 77},
		&SetXattr{Ino: f.Ino, Name: XattrAccess, Value: []byte("rubbish"), Kill: true},
		&SetXattr{Ino: f.Ino, Name: "user.x", Flags: XattrReplace},
		&RemoveXattr{Ino: f.Ino, Name: "user.x"},
		&Lease{Ino: f.Ino, Count: 1},
		&LeaseFail{Ino: f.Ino, Chunk: f.Chunks[0].ID, Version: 9},
		&LeaseDrop{Chunk: f.Chunks[0].ID + 1, Version: 9},
		&SessionClose{ID: 99},
		&ServerForget{ID: 1},
		&SetCluster{},
	} {
		r := s.Apply(&Entry{Time: s.Time(), Op: op})
		if r.Code == status.OK {
			t.Errorf("%s succeeded", op)
		}
		if r.Ino != 0 || r.Effects.Freed != nil || r.Chunks != nil {
			t.Errorf("%s failed with %+v", op, r)
		}
		if !slices.EqualFunc(before, saved(t, s), sameBlock) {
			t.Fatalf("%s failed and changed the state", op)
		}
	}
}

// TestViews takes views, saves them in other goroutines while the state goes on,
// and compares with what was saved at rest.
func TestViews(t *testing.T) {
	s := New(0)
	ses := must(t, s, 0, &SessionOpen{}).Session
	n := 0
	churn := func(rounds int) {
		for range rounds {
			n++
			r := must(t, s, ses, &Make{Parent: inode.Root, Name: benchName(n), What: inode.File, Lease: true})
			must(t, s, ses, &SetXattr{Ino: r.Ino, Name: "user.x", Value: []byte("value")})
			must(t, s, ses, &Commit{Files: []CommitFile{{Ino: r.Ino, Size: 9, Mtime: 9, Ended: []LeaseEnd{{0, r.Chunks[0].ID, 1, true}}}}})
			if n > 400 {
				must(t, s, ses, &Remove{Parent: inode.Root, Name: benchName(n - 400), Hold: []uint64{ses}})
			}
			if n%3 == 0 {
				must(t, s, ses, &Rename{Parent: inode.Root, Name: benchName(n), NewParent: inode.Root, NewName: benchName(n - 1)})
				must(t, s, ses, &Link{Ino: r.Ino, Parent: inode.Root, Name: benchName(n)})
			}
			if n > 800 {
				must(t, s, ses, &ReleaseHold{Inos: []inode.Ino{inode.Ino(n % 300)}})
			}
		}
	}
	churn(450)
	must(t, s, 0, &Leap{Epoch: 1001})
	churn(450)
	type outcome struct {
		got []savedBlock
		err error
	}
	var want [][]savedBlock
	var results []chan outcome
	for range 8 {
		want = append(want, saved(t, s))
		v, done := s.Freeze(), make(chan outcome, 1)
		results = append(results, done)
		go func() {
			defer v.Release()
			var o outcome
			o.err = v.Save(func(section string, b []byte) error {
				o.got = append(o.got, savedBlock{section, slices.Clone(b)})
				return nil
			})
			done <- o
		}()
		churn(150)
	}
	for i, done := range results {
		o := <-done
		if o.err != nil || !slices.EqualFunc(o.got, want[i], sameBlock) {
			t.Fatalf("view %d is not the state as it was (%v)", i, o.err)
		}
	}
	checked(t, s)
}

// TestEmitFails: an error of the writer ends Save.
func TestEmitFails(t *testing.T) {
	s := New(0)
	must(t, s, 0, &SessionOpen{})
	must(t, s, 0, &ServerSeen{ID: 1})
	blocks := len(saved(t, s))
	for i := range blocks {
		v, k := s.Freeze(), 0
		err := v.Save(func(string, []byte) error {
			if k++; k > i {
				return status.NoSpace
			}
			return nil
		})
		v.Release()
		if err != status.NoSpace {
			t.Fatalf("block %d: %v", i, err)
		}
	}
}
