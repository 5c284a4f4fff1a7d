package state

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// machine applies random ops to a state and to the model.
type machine struct {
	s       *State
	m       *model
	inos    []inode.Ino // ever made
	ids     []chunk.ID  // ever made
	lastSes uint64
	seqs    map[uint64]uint64
	log     []Entry
	big     bool // many names and chunks
}

func newMachine() *machine {
	return &machine{s: New(0), m: newModel(), inos: []inode.Ino{inode.Root}, seqs: map[uint64]uint64{}}
}

var someNames = []string{"a", "b", "c", "d", "e", "file with a longer name.txt", strings.Repeat("x", 255)}

func (x *machine) name(t *rapid.T) string {
	switch k := rapid.IntRange(0, 30).Draw(t, "name"); {
	case k == 0:
		return rapid.SampledFrom([]string{"", ".", "..", "a/b", "\x00", strings.Repeat("x", 256)}).Draw(t, "odd")
	case x.big:
		return "n" + string(rune('a'+rapid.IntRange(0, 700).Draw(t, "many")))
	default:
		return rapid.SampledFrom(someNames).Draw(t, "which")
	}
}

// nameIn is mostly a name that a directory has.
func (x *machine) nameIn(t *rapid.T, dir inode.Ino) string {
	n := x.m.nodes[dir]
	if n == nil || len(n.names) == 0 || rapid.IntRange(0, 3).Draw(t, "other") == 0 {
		return x.name(t)
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(n.names))).Draw(t, "existing")
}

func (x *machine) ino(t *rapid.T) inode.Ino {
	if rapid.IntRange(0, 5).Draw(t, "any") > 0 {
		return rapid.SampledFrom(slices.Sorted(maps.Keys(x.m.nodes))).Draw(t, "ino")
	}
	return rapid.SampledFrom(x.inos).Draw(t, "ino")
}

func (x *machine) dir(t *rapid.T) inode.Ino {
	var dirs []inode.Ino
	for ino, n := range x.m.nodes {
		if n.attr.Kind == inode.Dir {
			dirs = append(dirs, ino)
		}
	}
	slices.Sort(dirs)
	if rapid.IntRange(0, 20).Draw(t, "nodir") == 0 {
		return x.ino(t)
	}
	return rapid.SampledFrom(dirs).Draw(t, "dir")
}

func (x *machine) file(t *rapid.T) inode.Ino {
	var files []inode.Ino
	for ino, n := range x.m.nodes {
		if n.attr.Kind == inode.File {
			files = append(files, ino)
		}
	}
	slices.Sort(files)
	if len(files) == 0 || rapid.IntRange(0, 20).Draw(t, "nofile") == 0 {
		return x.ino(t)
	}
	return rapid.SampledFrom(files).Draw(t, "file")
}

func (x *machine) session(t *rapid.T) uint64 {
	return rapid.Uint64Range(0, x.lastSes).Draw(t, "session")
}

func (x *machine) holds(t *rapid.T) []uint64 {
	return rapid.SliceOfN(rapid.Uint64Range(1, x.lastSes+1), 0, 2).Draw(t, "hold")
}

func (x *machine) index(t *rapid.T) uint32 {
	if x.big {
		return rapid.Uint32Range(0, 300).Draw(t, "index")
	}
	return rapid.SampledFrom([]uint32{0, 0, 1, 2, 17, 1 << 20}).Draw(t, "index")
}

func (x *machine) size(t *rapid.T) uint64 {
	odd := rapid.SampledFrom([]uint64{0, 0, 1, 4096, chunk.Size - 1}).Draw(t, "rest")
	return uint64(x.index(t))*chunk.Size + odd
}

// apply applies op with a new request number and checks that a repetition only
// gives the remembered answer.
func (x *machine) apply(t *rapid.T, session uint64, op Op) Result {
	x.m.now += 1000
	x.m.freed, x.m.goals = map[chunk.ID]chunk.Version{}, map[chunk.ID]bool{}
	e := Entry{Time: x.m.now, Session: session, Op: op}
	if x.m.sessions[session] && rapid.Bool().Draw(t, "once") {
		x.seqs[session]++
		e.Seq = x.seqs[session]
		e.Done = e.Seq - min(e.Seq, rapid.Uint64Range(1, 4).Draw(t, "done"))
	}
	x.log = append(x.log, e)
	r := x.s.Apply(&e)
	if r.Ino != 0 && !slices.Contains(x.inos, r.Ino) {
		x.inos = append(x.inos, r.Ino)
	}
	for _, c := range r.Chunks {
		if c.Fresh && !slices.Contains(x.ids, c.ID) {
			x.ids = append(x.ids, c.ID)
		}
	}
	if e.Seq != 0 && x.s.session(session) != nil {
		again := x.s.Apply(&e)
		got, ok := x.s.Replied(session, e.Seq)
		if !again.Repeat || again.Code != r.Code || again.Ino != r.Ino || again.Gone != r.Gone || again.Orphan != r.Orphan ||
			!ok || got.Code != r.Code {
			t.Fatalf("%s gave %+v, again %+v, remembered %+v", e.String(), r, again, got)
		}
		x.log = append(x.log, e)
	}
	return r
}

// agree compares the outcome and the effects with the model's.
func (x *machine) agree(t *rapid.T, op Op, r *Result, want any) {
	if r.Code != want {
		t.Fatalf("%s: %v, model %v", op, r.Code, want)
	}
	freed := map[chunk.ID]chunk.Version{}
	for _, f := range r.Effects.Freed {
		freed[f.ID] = f.Version
	}
	if !maps.Equal(freed, x.m.freed) || len(freed) != len(r.Effects.Freed) {
		t.Fatalf("%s: freed %v, model %v", op, r.Effects.Freed, x.m.freed)
	}
	goals := map[chunk.ID]bool{}
	for _, id := range r.Effects.Goal {
		goals[id] = true
	}
	if !maps.Equal(goals, x.m.goals) {
		t.Fatalf("%s: goals of %v, model %v", op, goals, x.m.goals)
	}
	for _, f := range freed {
		if f == 0 {
			t.Fatalf("%s: freed version 0", op)
		}
	}
}

func (x *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":            x.check,
		"make":        x.make,
		"make2":       x.make,
		"remove":      x.remove,
		"rename":      x.rename,
		"rename2":     x.rename,
		"link":        x.link,
		"setattr":     x.setAttr,
		"setmany":     x.setMany,
		"setxattr":    x.setXattr,
		"removexattr": x.removeXattr,
		"lease":       x.lease,
		"leasefail":   x.leaseFail,
		"leasedrop":   x.leaseDrop,
		"commit":      x.commit,
		"commit2":     x.commit,
		"open":        x.open,
		"close":       x.close,
		"release":     x.release,
		"reload":      x.reload,
	}
}

func (x *machine) check(t *rapid.T) {
	if x.big && len(x.log)%50 != 0 {
		return
	}
	if err := x.s.Check(); err != nil {
		t.Fatal(err)
	}
	x.m.same(t, x.s)
}

func (x *machine) make(t *rapid.T) {
	o := &Make{
		Parent: x.dir(t), Name: x.name(t), What: rapid.SampledFrom([]inode.Kind{1, 1, 1, 2, 2, 3, 4, 5, 6, 7}).Draw(t, "what"),
		Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"), Umask: rapid.SampledFrom([]uint32{0, 0o22, 0o77}).Draw(t, "umask"),
		Uid: 1, Gid: 2, Rdev: 77, Hold: rapid.Bool().Draw(t, "hold"), Lease: rapid.Bool().Draw(t, "lease"),
	}
	if (o.What == inode.Symlink) != (rapid.IntRange(0, 20).Draw(t, "strange") == 0) {
		o.Target = strings.Repeat("t", rapid.SampledFrom([]int{1, 20, 256, 257, 4095}).Draw(t, "target"))
	}
	ses := x.session(t)
	r := x.apply(t, ses, o)
	x.agree(t, o, &r, x.m.mk(o, ses, &r))
}

func (x *machine) remove(t *rapid.T) {
	dir := x.dir(t)
	o := &Remove{Parent: dir, Name: x.nameIn(t, dir), Dir: rapid.Bool().Draw(t, "dir"), Hold: x.holds(t)}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.remove(o, &r))
}

func (x *machine) rename(t *rapid.T) {
	from, to := x.dir(t), x.dir(t)
	o := &Rename{
		Parent: from, Name: x.nameIn(t, from), NewParent: to, NewName: x.name(t),
		Flags: rapid.SampledFrom([]uint32{0, 0, 0, 1, 2, 2, 3, 4}).Draw(t, "flags"), Hold: x.holds(t),
	}
	if rapid.Bool().Draw(t, "over") {
		o.NewName = x.nameIn(t, to)
	}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.rename(o, &r))
}

func (x *machine) link(t *rapid.T) {
	o := &Link{Ino: x.ino(t), Parent: x.dir(t), Name: x.name(t)}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.link(o))
}

func (x *machine) setAttr(t *rapid.T) {
	o := &SetAttr{
		Ino: x.ino(t), Valid: rapid.Uint32Range(0, allSets).Draw(t, "valid"), Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
		Uid: 7, Gid: 8, Size: x.size(t), Atime: 3, Mtime: 4, Goal: rapid.Uint8Range(0, 10).Draw(t, "goal"), Trash: 99,
	}
	if rapid.Bool().Draw(t, "truncate") {
		o.Ino, o.Valid = x.file(t), SetSize
	}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.setAttr(o))
}

func (x *machine) setMany(t *rapid.T) {
	o := &SetMany{Inos: []inode.Ino{x.ino(t), x.ino(t), x.ino(t)}, Valid: SetGoal, Goal: rapid.Uint8Range(1, 9).Draw(t, "goal"), Trash: 5}
	if rapid.Bool().Draw(t, "trash") {
		o.Valid |= SetTrash
	}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.setMany(o, &r))
}

func xattrName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"user.a", "user.b", "trusted.c", XattrCaps}).Draw(t, "xattr")
}

func (x *machine) setXattr(t *rapid.T) {
	n := rapid.SampledFrom([]int{0, 1, 30, 256, 257, 5000, 65536, 65537}).Draw(t, "bytes")
	o := &SetXattr{
		Ino: x.ino(t), Name: xattrName(t), Value: []byte(strings.Repeat("v", n)), Flags: rapid.SampledFrom([]uint32{0, 0, 1, 2}).Draw(t, "flags"),
	}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.setXattr(o))
}

func (x *machine) removeXattr(t *rapid.T) {
	o := &RemoveXattr{Ino: x.ino(t), Name: xattrName(t)}
	r := x.apply(t, x.session(t), o)
	x.agree(t, o, &r, x.m.removeXattr(o))
}

func (x *machine) lease(t *rapid.T) {
	o := &Lease{Ino: x.file(t), First: x.index(t), Count: rapid.Uint32Range(0, 4).Draw(t, "count")}
	ses := x.session(t)
	r := x.apply(t, ses, o)
	x.agree(t, o, &r, x.m.lease(o, ses, &r))
}

// leased draws a chunk, mostly one under a lease, and its session.
func (x *machine) leased(t *rapid.T) *mChunk {
	var list []chunk.ID
	for id, c := range x.m.chunks {
		if c.Lease != 0 {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	if len(list) == 0 || rapid.IntRange(0, 5).Draw(t, "dead") == 0 {
		list = x.ids
	}
	if len(list) == 0 {
		t.Skip("no chunk yet")
	}
	id := rapid.SampledFrom(list).Draw(t, "chunk")
	if c := x.m.chunks[id]; c != nil {
		return c
	}
	return &mChunk{ChunkSlot: ChunkSlot{ID: id}}
}

func (x *machine) leaseFail(t *rapid.T) {
	c := x.leased(t)
	o := &LeaseFail{Ino: c.ino, Index: c.Index, Chunk: c.ID, Version: c.Version + chunk.Version(rapid.IntRange(0, 2).Draw(t, "up"))}
	ses := c.Lease
	if rapid.IntRange(0, 5).Draw(t, "foreign") == 0 {
		ses = x.session(t)
	}
	r := x.apply(t, ses, o)
	x.agree(t, o, &r, x.m.leaseFail(o, ses))
}

func (x *machine) leaseDrop(t *rapid.T) {
	c := x.leased(t)
	o := &LeaseDrop{Chunk: c.ID, Version: c.Version + chunk.Version(rapid.IntRange(0, 2).Draw(t, "up"))}
	if rapid.IntRange(0, 3).Draw(t, "never") == 0 {
		o.Version = 0
	}
	r := x.apply(t, 0, o)
	x.agree(t, o, &r, x.m.leaseDrop(o))
}

func (x *machine) commit(t *rapid.T) {
	ses := x.session(t)
	o := &Commit{}
	for range rapid.IntRange(1, 2).Draw(t, "files") {
		f := CommitFile{Ino: x.file(t), Size: x.size(t), Mtime: x.m.now + 5, Kill: rapid.Bool().Draw(t, "kill")}
		if n := x.m.nodes[f.Ino]; n != nil && n.attr.Kind == inode.File {
			if rapid.Bool().Draw(t, "grow") {
				f.Size = max(f.Size, n.attr.Size)
			}
			if rapid.Bool().Draw(t, "same") {
				f.Size, f.Mtime = n.attr.Size, n.attr.Mtime
			}
			for _, i := range slices.Sorted(maps.Keys(n.chunks)) {
				c := n.chunks[i]
				if rapid.Bool().Draw(t, "trim") {
					f.Trimmed = append(f.Trimmed, i)
				}
				if rapid.Bool().Draw(t, "end") {
					stale := chunk.Version(rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "stale"))
					f.Ended = append(f.Ended, LeaseEnd{i, c.ID, c.Version + stale, rapid.Bool().Draw(t, "written")})
					if c.Lease != 0 && rapid.Bool().Draw(t, "own") {
						ses = c.Lease
					}
				}
			}
		}
		o.Files = append(o.Files, f)
	}
	r := x.apply(t, ses, o)
	for i := range o.Files {
		want := x.m.commit(&o.Files[i], ses)
		if r.Codes == nil && want != 0 || r.Codes != nil && r.Codes[i] != want {
			t.Fatalf("%s: file %d: %v, model %v", o, i, r.Codes, want)
		}
	}
	x.agree(t, o, &r, r.Code)
}

func (x *machine) open(t *rapid.T) {
	if len(x.m.sessions) >= 4 {
		t.Skip("enough sessions")
	}
	r := x.apply(t, 0, &SessionOpen{Host: "h", Path: "/"})
	if r.Session != x.lastSes+1 {
		t.Fatalf("session %d behind %d", r.Session, x.lastSes)
	}
	x.lastSes = r.Session
	x.m.sessions[r.Session] = true
}

func (x *machine) close(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip("too often")
	}
	o := &SessionClose{ID: x.session(t)}
	r := x.apply(t, 0, o)
	x.agree(t, o, &r, x.m.closeSession(o.ID))
}

func (x *machine) release(t *rapid.T) {
	ses := x.session(t)
	var held []inode.Ino
	for ino, n := range x.m.nodes {
		if n.holds[ses] {
			held = append(held, ino)
		}
	}
	slices.Sort(held)
	o := &ReleaseHold{Inos: append(held[:min(len(held), 2)], x.ino(t))}
	r := x.apply(t, ses, o)
	for _, ino := range o.Inos {
		x.m.unhold(x.m.nodes[ino], ses)
	}
	x.agree(t, o, &r, r.Code)
}

// reload goes on with what a saved state gives.
func (x *machine) reload(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip("too often")
	}
	before := saved(t, x.s)
	x.s = loaded(t, before)
	if after := saved(t, x.s); !slices.EqualFunc(before, after, sameBlock) {
		t.Fatal("a loaded state is saved differently")
	}
}

// savedBlock is what Save emits.
type savedBlock struct {
	section string
	bytes   []byte
}

func sameBlock(a, b savedBlock) bool {
	return a.section == b.section && string(a.bytes) == string(b.bytes)
}

type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func saved(t failer, s *State) (list []savedBlock) {
	t.Helper()
	v := s.Freeze()
	defer v.Release()
	if err := v.Save(func(section string, b []byte) error {
		list = append(list, savedBlock{section, slices.Clone(b)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func loaded(t failer, list []savedBlock) *State {
	t.Helper()
	l := NewLoader()
	for _, b := range list {
		if err := l.Block(b.section, b.bytes); err != nil {
			t.Fatal(b.section, err)
		}
	}
	s, err := l.Done(inTurn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// replayed applies the machine's whole changelog, through its bytes, to an empty
// state. The bytes are overwritten then: the state must have none of them.
func (x *machine) replayed(t *rapid.T) *State {
	var log []byte
	for i := range x.log {
		log = AppendEntry(log, &x.log[i])
	}
	list, err := DecodeBatch(log)
	if err != nil {
		t.Fatal(err)
	}
	s := New(0)
	for i := range list {
		s.Apply(&list[i])
	}
	return s
}

// TestModel compares the state with the model after every one of many random
// ops, and in the end with what the changelog alone gives: byte for byte, although
// the one was saved and loaded in between and the other was not.
func TestModel(t *testing.T) { random(t, false) }

// TestModelLarge is TestModel with many names and chunks, compared less often.
func TestModelLarge(t *testing.T) { random(t, true) }

func random(t *testing.T, big bool) {
	rapid.Check(t, func(t *rapid.T) {
		x := newMachine()
		x.big = big
		x.open(t)
		t.Repeat(x.actions())
		if a, b := saved(t, x.s), saved(t, x.replayed(t)); !slices.EqualFunc(a, b, sameBlock) {
			t.Fatal("the changelog gives another state")
		}
	})
}
