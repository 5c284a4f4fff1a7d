package master

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

var testKey = []byte("a key that only tests have")

// testConfig makes everything that takes time short.
func testConfig(t *testing.T, dir string) Config {
	t.Helper()
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return Config{
		Dir: dir, Key: testKey, Name: "test", Version: "test",
		ClientAddr: "127.0.0.1:0", ServerAddr: "127.0.0.1:0",
		SessionLease: 2 * time.Second, SessionKeep: 4 * time.Second,
		RepairDelay: 200 * time.Millisecond, ServerWait: 3 * time.Second, Beat: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
}

// startMaster starts a master that is closed at the end of the test.
func startMaster(t *testing.T, cfg Config) *Master {
	t.Helper()
	m, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	eventually(t, "the master is ready", func() bool { return m.Ready() == nil })
	return m
}

// kill ends a master without any of the care of Close.
func kill(m *Master) {
	m.once.Do(func() {
		m.loop.killed = true
		close(m.stop)
	})
	<-m.done
}

// crashCopy gives a copy of a master's directory as a power cut of the process
// would leave it.
func crashCopy(t *testing.T, dir string) string {
	t.Helper()
	for {
		to := t.TempDir()
		err := copyTree(dir, to)
		if err == nil {
			return to
		}
		if !errors.Is(err, fs.ErrNotExist) { // the journal has renamed its next file
			t.Fatal(err)
		}
	}
}

func copyTree(dir, to string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o750)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o640)
	})
}

// eventually polls until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it did not come true that %s", what)
}

// mount plays a mount over a real connection.
type mount struct {
	t       *testing.T
	conn    *link.Conn
	session wire.SessionReply

	mu      sync.Mutex
	seq     uint64
	recalls []wire.RecallItem
	held    []*link.Request // recalls not answered
	hold    bool            // do not answer recalls
	open    map[inode.Ino]bool
	before  func(wire.RecallItem) // runs before an answer, in a goroutine of its own
}

// dialMount connects without a session.
func dialMount(t *testing.T, m *Master) *mount {
	t.Helper()
	mt := &mount{t: t, open: map[inode.Ino]bool{}}
	conn, err := link.Dial(context.Background(), "tcp", m.ClientAddr().String(), link.Config{
		Key: testKey, Role: wire.RoleMount, Want: wire.RoleMaster, Client: "test mount",
	}, link.HandlerFunc(mt.serve))
	if err != nil {
		t.Fatal(err)
	}
	mt.conn = conn
	t.Cleanup(conn.Close)
	return mt
}

// newMount connects and opens a session.
func newMount(t *testing.T, m *Master) *mount {
	t.Helper()
	mt := dialMount(t, m)
	mt.must(&wire.SessionOpen{Host: "host", Mount: "/mnt"}, &mt.session)
	return mt
}

// again connects anew and takes up the session of mt.
func (mt *mount) again(m *Master, held ...wire.Held) (*mount, error) {
	mt.t.Helper()
	next := dialMount(mt.t, m)
	next.seq, next.open, next.before = mt.seq, mt.open, mt.before
	err := next.call(&wire.SessionOpen{Session: mt.session.Session, Host: "host", Mount: "/mnt", Held: held}, &next.session)
	return next, err
}

// keepAlive pings until the test ends.
func (mt *mount) keepAlive() *mount {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-mt.conn.Done():
				return
			case <-time.After(100 * time.Millisecond):
				mt.conn.Start(&wire.Ping{}, nil, func(r *link.Reply) { r.Free() })
			}
		}
	})
	mt.t.Cleanup(func() { close(stop); wg.Wait() })
	return mt
}

func (mt *mount) serve(_ *link.Conn, r *link.Request) {
	var m wire.Recall
	if err := r.Decode(&m); err != nil {
		mt.t.Errorf("the master calls a mount: %v", err)
	}
	r.Free()
	mt.mu.Lock()
	mt.recalls = append(mt.recalls, m.Items...)
	before := mt.before
	if mt.hold {
		mt.held = append(mt.held, r)
		mt.mu.Unlock()
		return
	}
	mt.mu.Unlock()
	go func() {
		for _, item := range m.Items {
			if before != nil {
				before(item)
			}
		}
		mt.answer(r, m.Items)
	}()
}

func (mt *mount) answer(r *link.Request, items []wire.RecallItem) {
	reply := &wire.RecallReply{}
	mt.mu.Lock()
	for _, item := range items {
		if mt.open[item.Ino] {
			reply.Open = append(reply.Open, item.Ino)
		}
	}
	mt.mu.Unlock()
	r.Reply(reply, nil, nil)
}

// set changes what the mount does with recalls.
func (mt *mount) set(f func()) {
	mt.mu.Lock()
	defer mt.mu.Unlock()
	f()
}

// letGo answers the recalls that were held back.
func (mt *mount) letGo() {
	mt.mu.Lock()
	list := mt.held
	mt.held, mt.hold = nil, false
	items := slices.Clone(mt.recalls)
	mt.mu.Unlock()
	for _, r := range list {
		mt.answer(r, items)
	}
}

// recalled counts the recalls of an inode so far.
func (mt *mount) recalled(ino inode.Ino) (n int) {
	mt.mu.Lock()
	defer mt.mu.Unlock()
	for _, r := range mt.recalls {
		if r.Ino == ino {
			n++
		}
	}
	return n
}

// number gives a changing request its number.
func (mt *mount) number(req wire.Message) {
	if o, ok := req.(interface{ OnceOf() *wire.Once }); ok && o.OnceOf().Seq == 0 {
		mt.mu.Lock()
		mt.seq++
		*o.OnceOf() = wire.Once{Seq: mt.seq, Done: max(mt.seq, 100) - 100}
		mt.mu.Unlock()
	}
}

// call sends a request and waits, for at most ten seconds.
func (mt *mount) call(req, reply wire.Message) error {
	mt.number(req)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return mt.conn.Call(ctx, req, nil, reply)
}

// must is call for requests that succeed.
func (mt *mount) must(req, reply wire.Message) {
	mt.t.Helper()
	if err := mt.call(req, reply); err != nil {
		mt.t.Fatalf("%T: %v", req, err)
	}
}

// fails is call for requests that get an error.
func (mt *mount) fails(req wire.Message, want status.Code) {
	mt.t.Helper()
	if err := mt.call(req, nil); status.CodeOf(err) != want {
		mt.t.Fatalf("%T: %v, want %v", req, err, want)
	}
}

// start sends a request; the channel gets its error.
func (mt *mount) start(req, reply wire.Message) <-chan error {
	mt.number(req)
	done := make(chan error, 1)
	mt.conn.Start(req, nil, func(r *link.Reply) {
		if reply == nil {
			reply = &wire.Empty{}
		}
		err := r.Decode(reply)
		r.Free()
		done <- err
	})
	return done
}

func (mt *mount) mkfile(parent inode.Ino, name string) inode.Attr {
	mt.t.Helper()
	var e wire.EntryReply
	mt.must(&wire.Make{Parent: parent, Name: name, What: inode.File, Mode: 0o644}, &e)
	return e.Attr
}

func (mt *mount) mkdir(parent inode.Ino, name string) inode.Attr {
	mt.t.Helper()
	var e wire.EntryReply
	mt.must(&wire.Make{Parent: parent, Name: name, What: inode.Dir, Mode: 0o755}, &e)
	return e.Attr
}

func (mt *mount) lookup(parent inode.Ino, name string) wire.EntryReply {
	mt.t.Helper()
	var e wire.EntryReply
	mt.must(&wire.Lookup{Parent: parent, Name: name}, &e)
	return e
}

func (mt *mount) getattr(ino inode.Ino) wire.AttrReply {
	mt.t.Helper()
	var a wire.AttrReply
	mt.must(&wire.GetAttr{Ino: ino}, &a)
	return a
}

func (mt *mount) acquire(ino inode.Ino, r inode.Rights) inode.Rights {
	mt.t.Helper()
	var a wire.AttrReply
	mt.must(&wire.Acquire{Ino: ino, Rights: r}, &a)
	return a.Rights
}

// waits fails the test if the answer has come already.
func waits(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(50 * time.Millisecond):
	}
}

// comes waits for an answer without error.
func comes(t *testing.T, what string, done <-chan error) {
	t.Helper()
	if err := result(t, what, done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// result waits for an answer.
func result(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: no answer", what)
		return nil
	}
}

// fakeCopy is a copy of a chunk on a fake chunkserver.
type fakeCopy struct {
	version chunk.Version
	writes  uint64
	bytes   string // what was written, for digests
}

// fakeChunkd plays a chunkserver: it has the protocol, and no bytes.
type fakeChunkd struct {
	t    *testing.T
	id   chunk.Server
	conn *link.Conn

	mu     sync.Mutex
	copies map[chunk.ID]*fakeCopy
	orders []wire.Message
	fail   func(wire.Message) error
	full   bool
}

// newChunkd makes a chunkserver and registers it.
func newChunkd(t *testing.T, m *Master, id chunk.Server) *fakeChunkd {
	t.Helper()
	s := &fakeChunkd{t: t, id: id, copies: map[chunk.ID]*fakeCopy{}}
	s.register(m)
	return s
}

// register connects, registers, reports and beats.
func (s *fakeChunkd) register(m *Master) {
	s.t.Helper()
	conn, err := link.Dial(context.Background(), "tcp", m.ServerAddr().String(), link.Config{
		Key: testKey, Role: wire.RoleChunkd, Want: wire.RoleMaster,
	}, link.HandlerFunc(s.serve))
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
	s.t.Cleanup(conn.Close)
	ctx := context.Background()
	var reply wire.RegisterReply
	if err := conn.Call(ctx, &wire.Register{Server: s.id, Addr: "127.0.0.1:" + s.id.String()[12:], Disks: s.disks()}, nil, &reply); err != nil {
		s.t.Fatal(err)
	}
	report := &wire.Report{Last: true}
	s.mu.Lock()
	for id, c := range s.copies {
		report.Copies = append(report.Copies, wire.Copy{Chunk: id, Version: c.version})
	}
	s.mu.Unlock()
	if err := conn.Call(ctx, report, nil, nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeChunkd) disks() []wire.Disk {
	free := uint64(100 << 30)
	if s.full {
		free = 0
	}
	return []wire.Disk{{Path: "/d", ID: uint64(s.id), Total: 200 << 30, Free: free, Backend: "posix"}}
}

// die ends the connection.
func (s *fakeChunkd) die() { s.conn.Close() }

// wrote plays a mount's write that has arrived.
func (s *fakeChunkd) wrote(loc wire.ChunkLoc, bytes string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[loc.Chunk]
	if c == nil {
		c = &fakeCopy{}
		s.copies[loc.Chunk] = c
	}
	if c.version != loc.Version {
		c.version, c.writes = loc.Version, 0
	}
	c.writes++
	c.bytes += bytes
}

func (s *fakeChunkd) copyOf(id chunk.ID) (fakeCopy, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.copies[id]; c != nil {
		return *c, true
	}
	return fakeCopy{}, false
}

func (s *fakeChunkd) serve(_ *link.Conn, r *link.Request) {
	m := map[wire.Kind]wire.Message{
		wire.KindDelete: &wire.Delete{}, wire.KindSetVersion: &wire.SetVersion{},
		wire.KindReplicate: &wire.Replicate{}, wire.KindDigest: &wire.Digest{}, wire.KindLead: &wire.Lead{},
	}[r.Kind]
	if m == nil {
		s.t.Errorf("order of kind %#x", uint16(r.Kind))
		r.Fail(status.Unsupported)
		return
	}
	err := r.Decode(m)
	r.Free()
	s.mu.Lock()
	s.orders = append(s.orders, m)
	var reply wire.Message
	if err == nil && s.fail != nil {
		err = s.fail(m)
	}
	if err == nil {
		reply, err = s.obey(m)
	}
	s.mu.Unlock()
	if err != nil {
		r.Fail(err)
		return
	}
	r.Reply(reply, nil, nil)
}

// obey carries out an order. mu is held.
func (s *fakeChunkd) obey(m wire.Message) (wire.Message, error) {
	switch m := m.(type) {
	case *wire.Delete:
		for _, k := range m.Copies {
			if c := s.copies[k.Chunk]; c != nil && c.version <= k.Version {
				delete(s.copies, k.Chunk)
			}
		}
	case *wire.SetVersion:
		c := s.copies[m.Chunk]
		switch {
		case c == nil:
			return nil, status.NoChunk
		case c.version != m.Version && (c.version < m.Min || c.version > m.Max):
			return nil, status.StaleVersion
		}
		c.version = m.Version
	case *wire.Replicate:
		s.copies[m.Loc.Chunk] = &fakeCopy{version: m.Version}
	case *wire.Digest:
		c := s.copies[m.Chunk]
		if c == nil {
			return nil, status.NoChunk
		}
		return &wire.DigestReply{
			Version: c.version, Writes: c.writes, Length: uint32(len(c.bytes)), Blocks: []uint32{chunk.Sum([]byte(c.bytes))},
		}, nil
	}
	return nil, nil
}

// ordered counts the orders of m's type.
func (s *fakeChunkd) ordered(kind wire.Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.orders {
		if m.Kind() == kind {
			n++
		}
	}
	return n
}

// slow passes over a test that waits for leases to run out.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it waits for time to pass, which -short does not")
	}
}
