package master

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestLocksAcrossMounts(t *testing.T) {
	slow(t)
	cfg := testConfig(t, t.TempDir())
	cfg.SessionLease, cfg.SessionKeep = 300*time.Millisecond, 500*time.Millisecond
	m := startMaster(t, cfg)
	a, b, c := newMount(t, m).keepAlive(), newMount(t, m).keepAlive(), newMount(t, m)
	f := a.mkfile(inode.Root, "f")
	lock := func(typ uint8, wait bool, token uint64) *wire.Lock {
		return &wire.Lock{Ino: f.Ino, Owner: 1, Pid: 77, Type: typ, End: 99, Wait: wait, Token: token}
	}
	a.must(lock(wire.LockWrite, false, 0), &wire.LockReply{})
	b.fails(lock(wire.LockRead, false, 0), status.NotWaited)
	var r wire.LockReply
	test := lock(wire.LockRead, false, 0)
	test.Test = true
	b.must(test, &r)
	if r.Type != wire.LockWrite || r.Pid != 0 || r.End != 99 {
		t.Fatalf("test: %+v", r)
	}
	wait := b.start(lock(wire.LockWrite, true, 5), &wire.LockReply{})
	waits(t, "lock", wait)
	b.must(&wire.LockCancel{Token: 5}, nil)
	if err := result(t, "cancelled lock", wait); status.CodeOf(err) != status.Interrupted {
		t.Fatalf("cancelled lock: %v", err)
	}
	wait = b.start(lock(wire.LockWrite, true, 6), &wire.LockReply{})
	waits(t, "lock", wait)
	a.must(lock(wire.LockFree, false, 0), &wire.LockReply{})
	comes(t, "lock", wait)
	b.must(lock(wire.LockFree, false, 0), &wire.LockReply{})

	// A dead mount's locks go with its session; a deadlock is noticed.
	c.must(lock(wire.LockWrite, false, 0), &wire.LockReply{})
	c.conn.Close()
	comes(t, "lock of a dead mount", a.start(lock(wire.LockWrite, true, 7), &wire.LockReply{}))
	g := a.mkfile(inode.Root, "g")
	other := lock(wire.LockWrite, false, 0)
	other.Ino = g.Ino
	b.must(other, &wire.LockReply{})
	wait = b.start(lock(wire.LockWrite, true, 8), &wire.LockReply{})
	waits(t, "lock", wait)
	other = lock(wire.LockWrite, true, 9)
	other.Ino = g.Ino
	a.fails(other, status.Deadlock)
}

// tool is an operator's connection.
type tool struct {
	t    *testing.T
	conn *link.Conn
}

func newTool(t *testing.T, m *Master) *tool {
	t.Helper()
	conn, err := link.Dial(context.Background(), "tcp", m.ClientAddr().String(), link.Config{
		Key: testKey, Role: wire.RoleAdmin, Want: wire.RoleMaster,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return &tool{t, conn}
}

func (o *tool) ask(what string, args, answer any) error {
	o.t.Helper()
	req := &wire.Admin{What: what}
	if args != nil {
		req.Args, _ = json.Marshal(args)
	}
	var reply wire.AdminReply
	if err := o.conn.Call(o.t.Context(), req, nil, &reply); err != nil {
		return err
	}
	return json.Unmarshal(reply.JSON, answer)
}

func (o *tool) must(what string, args, answer any) {
	o.t.Helper()
	if err := o.ask(what, args, answer); err != nil {
		o.t.Fatalf("%s: %v", what, err)
	}
}

func TestAdmin(t *testing.T) {
	dir := t.TempDir()
	m, servers := cluster(t, testConfig(t, dir), 3)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "data")
	a.finish(ino, loc, 4)
	o := newTool(t, m)

	var st wire.Status
	o.must(wire.AskStatus, nil, &st)
	if len(st.Masters) != 1 || st.Masters[0].Role != "leader" || len(st.Servers) != 3 || len(st.Mounts) != 1 ||
		st.Space.Free != 300<<30 || st.Chunks.Total != 1 || st.Chunks.Matrix[2][2] != 1 || len(st.Problems) != 0 {
		t.Fatalf("status: %+v", st)
	}
	var path wire.InoArgs
	o.must(wire.AskPath, wire.PathArgs{Path: "/f"}, &path)
	if path.Ino != uint64(ino) {
		t.Fatalf("path: %+v", path)
	}
	if err := o.ask(wire.AskPath, wire.PathArgs{Path: "/none"}, &path); status.CodeOf(err) != status.NotFound {
		t.Fatalf("path of nothing: %v", err)
	}
	var info wire.FileInfo
	o.must(wire.AskFileInfo, path, &info)
	if info.Path != "/f" || info.Size != 4 || len(info.Chunks) != 1 || len(info.Chunks[0].Copies) != 2 || info.Chunks[0].Copies[0].State != "valid" {
		t.Fatalf("fileinfo: %+v", info)
	}
	var check wire.CheckFile
	o.must(wire.AskCheckFile, path, &check)
	if check.Chunks != 1 || check.Copies[2] != 1 {
		t.Fatalf("checkfile: %+v", check)
	}
	var di wire.DirInfo
	o.must(wire.AskDirInfo, wire.InoArgs{Ino: 1}, &di)
	if di.Files != 1 || di.Length != 4 || di.Path != "/" {
		t.Fatalf("dirinfo: %+v", di)
	}
	if err := o.ask(wire.AskFileInfo, wire.InoArgs{Ino: 1}, &info); status.CodeOf(err) != status.Invalid {
		t.Fatalf("fileinfo of a directory: %v", err)
	}
	if err := o.ask("nonsense", nil, &info); status.CodeOf(err) != status.Unsupported {
		t.Fatalf("nonsense: %v", err)
	}
	var save wire.SaveReply
	o.must(wire.AskSnapshot, nil, &save)
	if save.Index == 0 || save.Bytes == 0 || !strings.HasPrefix(save.File, dir) {
		t.Fatalf("saveimage: %+v", save)
	}
}

func TestSetGoalOfATree(t *testing.T) {
	slow(t)
	m, servers := cluster(t, testConfig(t, t.TempDir()), 3)
	a := newMount(t, m).keepAlive()
	top := a.mkdir(inode.Root, "top")
	files := 0
	for i := range 5 {
		d := a.mkdir(top.Ino, fmt.Sprint("d", i))
		for j := range 300 {
			a.mkfile(d.Ino, fmt.Sprint("f", j))
			files++
		}
	}
	ino, loc := a.create("f")
	write(servers, loc, "x")
	a.finish(ino, loc, 1)
	a.must(&wire.Rename{Parent: inode.Root, Name: "f", NewParent: top.Ino, NewName: "f"}, &wire.RenameReply{})
	o := newTool(t, m)
	var r wire.GoalReply
	o.must(wire.AskSetGoal, wire.GoalArgs{Ino: uint64(top.Ino), Goal: 3, Recursive: true}, &r)
	if want := uint64(files + 7); r.Changed != want || r.Unchanged != 0 {
		t.Fatalf("setgoal: %+v, want %d changed", r, want)
	}
	var g wire.GoalReply
	o.must(wire.AskGetGoal, wire.GoalArgs{Ino: uint64(top.Ino), Recursive: true}, &g)
	if g.Files["3"] != uint64(files+1) || g.Dirs["3"] != 6 || len(g.Files) != 1 {
		t.Fatalf("getgoal: %+v", g)
	}
	if a.recalled(ino) == 0 {
		t.Fatal("a mount was not told of a new goal")
	}
	eventually(t, "the third copy is made", func() bool { return m.Status().Chunks.Matrix[3][3] == 1 })
	o.must(wire.AskSetGoal, wire.GoalArgs{Ino: uint64(ino), Goal: 1}, &r)
	eventually(t, "copies too many are removed", func() bool { return m.Status().Chunks.Matrix[1][1] == 1 })
	if err := o.ask(wire.AskSetGoal, wire.GoalArgs{Ino: 1, Goal: 10}, &r); status.CodeOf(err) != status.Invalid {
		t.Fatalf("goal 10: %v", err)
	}
}

func TestForeignChunkserverIsRefused(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	conn, err := link.Dial(t.Context(), "tcp", m.ServerAddr().String(), link.Config{
		Key: testKey, Role: wire.RoleChunkd, Want: wire.RoleMaster,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, r := range []*wire.Register{{Server: 5, Cluster: "another"}, {}, {Server: 5, Epoch: 1 << 40}} {
		if err := conn.Call(t.Context(), r, nil, &wire.RegisterReply{}); err == nil {
			t.Fatalf("%+v was accepted", r)
		}
	}
	if err := conn.Call(t.Context(), &wire.Beat{}, nil, nil); status.CodeOf(err) != status.Stale {
		t.Fatalf("beat of a stranger: %v", err)
	}
}

func TestGarbageOnThePorts(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, addr := range []string{m.ClientAddr().String(), m.ServerAddr().String()} {
		for range 20 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, rng.IntN(3000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			c.Write(b)
			c.(*net.TCPConn).CloseWrite()
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			io.Copy(io.Discard, c)
			c.Close()
		}
	}
	// An authenticated peer that sends nonsense gets errors, and others are served.
	a := newMount(t, m).keepAlive()
	for k := wire.Kind(0); k < 0x310; k++ {
		if k != wire.KindSessionClose {
			a.call(nonsense(k), nil)
		}
	}
	a.mkfile(inode.Root, "still here")
}

// nonsense is a request of any kind without a body.
type nonsense wire.Kind

func (n nonsense) Kind() wire.Kind     { return wire.Kind(n) }
func (n nonsense) Fields(*codec.Codec) {}
