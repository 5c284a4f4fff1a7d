package state

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// golden runs a text file of testdata. The time goes up by a second for each op.
//
//	apply [session=N] [seq=N done=N]   one op a line: NAME argument... key=value...
//	stat | ls | counters | chunks | xattrs | path   one path a line
//	tree | orphans | leases | totals | reload
//
// Paths lead to inodes; "#N" is an inode number, "#N.U" that of slot N in its use U. "dir//name" says which part is
// the name that an op speaks of.
type golden struct {
	t   *testing.T
	s   *State
	now int64
}

func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		g := &golden{t: t, s: New(0)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			g.t = t
			out := g.run(d)
			if err := g.s.Check(); err != nil {
				d.Fatalf(t, "%v", err)
			}
			return out
		})
	})
}

func (g *golden) run(d *datadriven.TestData) string {
	var b strings.Builder
	lines := strings.FieldsFunc(d.Input, func(r rune) bool { return r == '\n' })
	switch d.Cmd {
	case "apply":
		var e Entry
		d.MaybeScanArgs(g.t, "session", &e.Session)
		d.MaybeScanArgs(g.t, "seq", &e.Seq)
		d.MaybeScanArgs(g.t, "done", &e.Done)
		for _, line := range lines {
			b.WriteString(g.apply(e, line))
		}
	case "reload":
		g.s = loaded(g.t, saved(g.t, g.s))
	case "tree":
		g.tree(&b, inode.Root, "")
	case "orphans":
		g.s.Orphans(func(ino inode.Ino, holds []uint64) bool {
			a, _ := g.s.Attr(ino)
			fmt.Fprintf(&b, "%d %s size=%d holds=%v path=%q parent=%d\n", ino, a.Kind, a.Size, holds, g.s.PathOf(ino), g.s.ParentOf(ino))
			return true
		})
	case "leases":
		g.s.Leases(func(c ChunkInfo) bool {
			fmt.Fprintf(&b, "%s of inode %d session=%d\n", c.ID, c.Ino, c.Lease)
			return true
		})
	case "totals":
		fmt.Fprintf(&b, "%+v\ncluster=%q sessions=%+v servers=%+v\n", g.s.Totals(), g.s.Cluster(), g.s.Sessions(), g.s.Servers())
	default:
		for _, line := range lines {
			b.WriteString(g.ask(d.Cmd, line))
		}
	}
	return b.String()
}

// resolve finds the inode of a path.
func (g *golden) resolve(path string) inode.Ino {
	if n, ok := strings.CutPrefix(path, "#"); ok {
		slot, uses, _ := strings.Cut(n, ".")
		v, err := strconv.ParseUint(slot, 10, 64)
		if err != nil {
			g.t.Fatal(err)
		}
		u, _ := strconv.ParseUint(uses, 10, 64)
		return inode.Ino(u<<32 | v)
	}
	ino := inode.Root
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		next, ok := g.s.Lookup(ino, name)
		if !ok {
			g.t.Fatalf("no %q in %q", name, path)
		}
		ino = next
	}
	return ino
}

// split gives directory and name.
func (g *golden) split(path string) (inode.Ino, string) {
	if dir, name, ok := strings.Cut(path, "//"); ok {
		return g.resolve(dir), name
	}
	i := strings.LastIndexByte(path, '/')
	return g.resolve(path[:i]), path[i+1:]
}

func (g *golden) tree(b *strings.Builder, dir inode.Ino, indent string) {
	type entry struct {
		name string
		ino  inode.Ino
	}
	var list []entry
	g.s.ReadDir(dir, 0, 0, func(name string, _ uint64, ino inode.Ino) bool {
		list = append(list, entry{name, ino})
		return true
	})
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, e := range list {
		a, _ := g.s.Attr(e.ino)
		fmt.Fprintf(b, "%s%s %d %s\n", indent, e.name, e.ino, a.Kind)
		if a.Kind == inode.Dir {
			g.tree(b, e.ino, indent+"  ")
		}
	}
}

func (g *golden) ask(cmd, line string) string {
	var b strings.Builder
	path, rest, _ := strings.Cut(line, " ")
	ino := g.resolve(path)
	switch cmd {
	case "stat":
		a, ok := g.s.Attr(ino)
		if !ok {
			return "none\n"
		}
		fmt.Fprintf(&b, "%d %s %04o nlink=%d %d:%d size=%d blocks=%d goal=%d trash=%d a=%ds m=%ds c=%ds b=%ds flags=%d gen=%d",
			a.Ino, a.Kind, a.Mode, a.Nlink, a.Uid, a.Gid, a.Size, a.Blocks, a.Goal, a.Trash,
			a.Atime/1e9, a.Mtime/1e9, a.Ctime/1e9, a.Btime/1e9, a.Flags, a.Gen)
		if target, ok := g.s.Target(ino); ok {
			fmt.Fprintf(&b, " -> %s", target)
		}
		if a.Rdev != 0 {
			fmt.Fprintf(&b, " rdev=%d", a.Rdev)
		}
		b.WriteByte('\n')
	case "ls": // path [cookie [max]]
		var cookie uint64
		var limit int
		fmt.Sscan(rest, &cookie, &limit)
		if !g.s.ReadDir(ino, cookie, limit, func(name string, cookie uint64, ino inode.Ino) bool {
			fmt.Fprintf(&b, "%s cookie=%d %d\n", name, cookie, ino)
			return true
		}) {
			return "not a directory\n"
		}
	case "counters":
		c, ok := g.s.Counters(ino)
		if !ok {
			return "not a directory\n"
		}
		fmt.Fprintf(&b, "inodes=%d dirs=%d files=%d symlinks=%d others=%d chunks=%d length=%d size=%d real=%d goalfiles=%v goaldirs=%v\n",
			c.Inodes, c.Dirs, c.Files, c.Symlinks, c.Others, c.Chunks, c.Length, c.Size, c.Real, c.GoalFiles[1:], c.GoalDirs[1:])
	case "chunks":
		g.s.FileChunks(ino, 0, 1<<31, func(c ChunkSlot) bool {
			b.WriteString(slotText(c))
			b.WriteByte('\n')
			return true
		})
	case "xattrs":
		for name := range strings.SplitSeq(strings.TrimSuffix(string(g.s.Xattrs(ino)), "\x00"), "\x00") {
			v, ok := g.s.Xattr(ino, name)
			if !ok {
				continue
			}
			if isACL(name) {
				fmt.Fprintf(&b, "%s = %s\n", name, aclText(g.t, v))
			} else {
				fmt.Fprintf(&b, "%s = %q\n", name, v)
			}
		}
	case "path":
		fmt.Fprintf(&b, "%d %q parent=%d\n", ino, g.s.PathOf(ino), g.s.ParentOf(ino))
	default:
		g.t.Fatalf("unknown command %q", cmd)
	}
	return b.String()
}

func slotText(c ChunkSlot) string {
	text := fmt.Sprintf("%d:%s version=%d", c.Index, c.ID, c.Version)
	if c.Min != c.Version {
		text += fmt.Sprintf(" min=%d", c.Min)
	}
	if c.Valid != chunk.Size {
		text += fmt.Sprintf(" valid=%d", c.Valid)
	}
	if c.Lease != 0 {
		text += fmt.Sprintf(" lease=%d", c.Lease)
	}
	if c.Fresh {
		text += " fresh"
	}
	return text
}

// apply applies one line and tells what it did.
func (g *golden) apply(e Entry, line string) string {
	g.now++
	e.Time = g.now * 1e9
	e.Op = g.op(line)
	r := g.s.Apply(&e)
	var b strings.Builder
	b.WriteString(e.Line(&r))
	if r.Gone != 0 {
		fmt.Fprintf(&b, " gone=%d", r.Gone)
	}
	if r.Orphan {
		b.WriteString(" orphan")
	}
	if r.Repeat {
		b.WriteString(" repeat")
	}
	if r.Count != 0 {
		fmt.Fprintf(&b, " count=%d", r.Count)
	}
	if r.Last.Ino != 0 {
		fmt.Fprintf(&b, " last=%d nlink=%d", r.Last.Ino, r.Last.Nlink)
	}
	if len(r.Inos) > 0 {
		fmt.Fprintf(&b, " inos=%v", r.Inos)
	}
	for _, code := range r.Codes {
		fmt.Fprintf(&b, " code=%s", code.String())
	}
	for _, c := range r.Chunks {
		fmt.Fprintf(&b, "\n  chunk %s", slotText(c))
	}
	for _, f := range r.Effects.Freed {
		fmt.Fprintf(&b, "\n  freed %s version=%d", f.ID, f.Version)
	}
	if r.Effects.Goal != nil {
		fmt.Fprintf(&b, "\n  goal changed %v", r.Effects.Goal)
	}
	b.WriteByte('\n')
	return b.String()
}

// args are the words of an op line behind its name.
type args struct {
	g     *golden
	plain []string
	keys  map[string]string
}

func (a *args) num(key string) uint64 {
	v, ok := a.keys[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		a.g.t.Fatal(err)
	}
	return n
}

func (a *args) has(key string) bool {
	_, ok := a.keys[key]
	return ok || slices.Contains(a.plain, key)
}

func (a *args) nums(key string) (list []uint64) {
	for f := range strings.SplitSeq(a.keys[key], ",") {
		if f != "" {
			n, err := strconv.ParseUint(f, 0, 64)
			if err != nil {
				a.g.t.Fatal(err)
			}
			list = append(list, n)
		}
	}
	return list
}

func (g *golden) op(line string) Op {
	words := strings.Fields(line)
	a := &args{g: g, keys: map[string]string{}}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.keys[k] = v
		} else {
			a.plain = append(a.plain, w)
		}
	}
	switch words[0] {
	case "make", "unlink", "rmdir", "rename", "link":
		return g.nameOp(words[0], a)
	case "lease", "leasefail", "leasedrop", "commit":
		return g.chunkOp(words[0], a)
	case "setattr", "setmany", "setxattr", "removexattr":
		return g.attrOp(words[0], a)
	case "nop":
		return &Nop{}
	case "open":
		return &SessionOpen{Host: a.keys["host"], Mount: a.keys["mount"], Path: a.keys["path"], ReadOnly: a.has("ro")}
	case "close":
		return &SessionClose{ID: a.num("id")}
	case "release":
		return &ReleaseHold{Inos: []inode.Ino{g.resolve(a.plain[0])}}
	case "server":
		return &ServerSeen{ID: chunk.Server(a.num("id")), Addr: a.keys["addr"], Labels: a.keys["labels"]}
	case "forget":
		return &ServerForget{ID: chunk.Server(a.num("id"))}
	case "reserve":
		return &Reserve{Count: uint32(a.num("count"))}
	case "adopt":
		return &Adopt{Chunk: chunk.ID(a.num("chunk")), Version: chunk.Version(a.num("version"))}
	case "leap":
		return &Leap{Epoch: a.num("epoch")}
	case "cluster":
		return &SetCluster{ID: a.keys["id"]}
	}
	g.t.Fatalf("unknown op %q", line)
	return nil
}

func (g *golden) nameOp(name string, a *args) Op {
	if name == "link" {
		to, target := g.split(a.plain[1])
		return &Link{Ino: g.resolve(a.plain[0]), Parent: to, Name: target}
	}
	dir, base := g.split(a.plain[0])
	switch name {
	case "make":
		o := &Make{
			Parent: dir, Name: base, What: inode.File, Mode: 0o644, Umask: uint32(a.num("umask")), Uid: uint32(a.num("uid")),
			Gid: uint32(a.num("gid")), Rdev: uint32(a.num("rdev")), Target: a.keys["target"], Hold: a.has("hold"), Lease: a.has("lease"),
			Ino: inode.Ino(a.num("ino")), Time: int64(a.num("at")) * 1e9,
		}
		for k := inode.File; k <= inode.BlockDev; k++ {
			if a.has(k.String()) {
				o.What = k
			}
		}
		if o.What == inode.Dir {
			o.Mode = 0o755
		}
		if a.has("mode") {
			o.Mode = uint32(a.num("mode"))
		}
		return o
	case "rename":
		to, target := g.split(a.plain[1])
		return &Rename{Parent: dir, Name: base, NewParent: to, NewName: target, Flags: uint32(a.num("flags")), Hold: a.nums("hold"), Time: int64(a.num("at")) * 1e9}
	}
	return &Remove{Parent: dir, Name: base, Dir: name == "rmdir", Hold: a.nums("hold"), Time: int64(a.num("at")) * 1e9}
}

func (g *golden) attrOp(name string, a *args) Op {
	if name == "setmany" {
		return g.manyOp(a)
	}
	ino := g.resolve(a.plain[0])
	switch name {
	case "removexattr":
		return &RemoveXattr{Ino: ino, Name: a.plain[1]}
	case "setxattr":
		value := []byte(a.keys["value"])
		if isACL(a.plain[1]) {
			value = aclBytes(g.t, a.keys["value"])
		}
		if a.has("hex") {
			value, _ = hex.DecodeString(a.keys["hex"])
		}
		return &SetXattr{Ino: ino, Name: a.plain[1], Value: value, Flags: uint32(a.num("flags")), Kill: a.has("kill")}
	}
	valid := a.valid()
	return &SetAttr{
		Ino: ino, Valid: valid, Mode: uint32(a.num("mode")), Uid: uint32(a.num("uid")), Gid: uint32(a.num("gid")), Size: a.num("size"),
		Atime: int64(a.num("atime")) * 1e9, Mtime: int64(a.num("mtime")) * 1e9, Goal: uint8(a.num("goal")), Trash: uint32(a.num("trash")),
		Time: int64(a.num("at")) * 1e9,
	}
}

// valid says which attributes the words name.
func (a *args) valid() (valid uint32) {
	for i, key := range []string{"mode", "uid", "gid", "size", "atime", "mtime", "atimenow", "mtimenow", "ctime", "kill", "goal", "trash"} {
		if a.has(key) {
			valid |= 1 << i
		}
	}
	return valid
}

func (g *golden) manyOp(a *args) Op {
	o := &SetMany{Valid: a.valid(), Goal: uint8(a.num("goal")), Trash: uint32(a.num("trash"))}
	for p := range strings.SplitSeq(a.plain[0], ",") {
		o.Inos = append(o.Inos, g.resolve(p))
	}
	return o
}

func (g *golden) chunkOp(name string, a *args) Op {
	if name == "leasedrop" {
		return &LeaseDrop{Chunk: chunk.ID(a.num("chunk")), Version: chunk.Version(a.num("version"))}
	}
	ino := g.resolve(a.plain[0])
	switch name {
	case "lease":
		return &Lease{Ino: ino, First: uint32(a.num("first")), Count: uint32(a.num("count"))}
	case "leasefail":
		return &LeaseFail{Ino: ino, Index: uint32(a.num("index")), Chunk: chunk.ID(a.num("chunk")), Version: chunk.Version(a.num("version"))}
	}
	f := CommitFile{Ino: ino, Size: a.num("size"), Mtime: int64(a.num("mtime")) * 1e9, Kill: a.has("kill")}
	f.Sets, f.Mode, f.Uid, f.Gid = a.valid()&(SetMode|SetUid|SetGid|SetAtime), uint32(a.num("mode")), uint32(a.num("uid")), uint32(a.num("gid"))
	f.Atime, f.Ctime = int64(a.num("atime"))*1e9, int64(a.num("ctime"))*1e9
	for _, i := range a.nums("trimmed") {
		f.Trimmed = append(f.Trimmed, uint32(i))
	}
	for _, end := range a.plain[1:] { // index:chunk:version[:w]
		p := strings.Split(end, ":")
		e := LeaseEnd{Written: len(p) > 3}
		if _, err := fmt.Sscan(strings.Join(p[:3], " "), &e.Index, (*uint64)(&e.Chunk), (*uint32)(&e.Version)); err != nil {
			g.t.Fatal(err)
		}
		f.Ended = append(f.Ended, e)
	}
	return &Commit{Files: []CommitFile{f}}
}

var aclTags = map[string]uint16{"u": aclUser, "g": aclGroup, "m": aclMask, "o": aclOther}

// aclBytes reads u::rwx,u:5:r--,g::r-x,m::rwx,o::---.
func aclBytes(t *testing.T, text string) []byte {
	var a acl
	for f := range strings.SplitSeq(text, ",") {
		if f == "" {
			continue
		}
		p := strings.Split(f, ":")
		r := aclRec{tag: aclTags[p[0]], id: aclNoID}
		if p[1] == "" && r.tag == aclUser {
			r.tag = aclUserObj
		} else if p[1] == "" && r.tag == aclGroup {
			r.tag = aclGroupObj
		} else if p[1] != "" {
			id, err := strconv.Atoi(p[1])
			if err != nil {
				t.Fatal(err)
			}
			r.id = uint32(id)
		}
		for i, c := range "rwx" {
			if p[2][i] == byte(c) {
				r.perm |= 4 >> i
			}
		}
		a = append(a, r)
	}
	return a.encode()
}

func aclText(t *testing.T, b []byte) string {
	a, err := parseACL(b)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, r := range a {
		name, id := map[uint16]string{
			aclUserObj: "u", aclUser: "u", aclGroupObj: "g", aclGroup: "g", aclMask: "m", aclOther: "o",
		}[r.tag], ""
		if r.id != aclNoID {
			id = strconv.Itoa(int(r.id))
		}
		perm := []byte("---")
		for i, c := range "rwx" {
			if r.perm&(4>>i) != 0 {
				perm[i] = byte(c)
			}
		}
		parts = append(parts, fmt.Sprintf("%s:%s:%s", name, id, perm))
	}
	return strings.Join(parts, ",")
}
