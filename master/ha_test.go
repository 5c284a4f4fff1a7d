package master

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/metalog"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/test/ports"
	"github.com/varvefs/varve/wire"
)

// trio is two masters and a metalogger in this process.
type trio struct {
	t       *testing.T
	peers   map[uint64]string
	dirs    map[uint64]string
	cfg     map[uint64]Config
	masters map[uint64]*Master
	logger  *metalog.Metalogger
}

func newTrio(t *testing.T, change func(*Config)) *trio {
	t.Helper()
	c := &trio{t: t, peers: map[uint64]string{}, dirs: map[uint64]string{}, cfg: map[uint64]Config{}, masters: map[uint64]*Master{}}
	for id := uint64(1); id <= 3; id++ {
		c.peers[id], c.dirs[id] = ports.Free(t), t.TempDir()
	}
	t.Cleanup(c.stop)
	for id := uint64(1); id <= 2; id++ {
		cfg := testConfig(t, c.dirs[id])
		cfg.ID, cfg.Peers, cfg.RaftAddr, cfg.Name = id, c.peers, c.peers[id], fmt.Sprint("m", id)
		cfg.ClientAddr, cfg.ServerAddr = ports.Free(t), ports.Free(t)
		if change != nil {
			change(&cfg)
		}
		c.cfg[id] = cfg
		c.start(id)
	}
	c.startLogger()
	return c
}

func (c *trio) start(id uint64) {
	c.t.Helper()
	m, err := Start(c.cfg[id])
	if err != nil {
		c.t.Fatal(err)
	}
	c.masters[id] = m
}

func (c *trio) startLogger() {
	c.t.Helper()
	cfg := c.cfg[1]
	l, err := metalog.Start(metalog.Config{
		Dir: c.dirs[3], Key: testKey, ID: 3, Peers: c.peers, RaftAddr: c.peers[3], Name: "ml", Sync: cfg.Sync, Log: cfg.Log,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.logger = l
}

func (c *trio) stop() {
	for _, m := range c.masters {
		kill(m)
	}
	if c.logger != nil {
		c.logger.Close()
	}
}

// kill ends a master without care.
func (c *trio) kill(m *Master) {
	delete(c.masters, m.cfg.ID)
	kill(m)
}

// leader waits until one master leads and serves.
func (c *trio) leader() *Master {
	c.t.Helper()
	var lead *Master
	eventually(c.t, "a master leads", func() bool {
		for _, m := range c.masters {
			if m.Ready() == nil && m.log.Leased() {
				lead = m
			}
		}
		return lead != nil
	})
	return lead
}

func (c *trio) other(m *Master) *Master { return c.masters[3-m.cfg.ID] }

// level waits until the standby has applied all that the leader has.
func (c *trio) level() {
	c.t.Helper()
	eventually(c.t, "the standby has all", func() bool {
		return c.masters[1].log.Status().Applied == c.masters[2].log.Status().Applied
	})
}

// same waits until both masters are at the same entry and compares their trees.
// Under load another may begin to lead at any time, which is an entry too.
func (c *trio) same() {
	c.t.Helper()
	var t1, t2 []byte
	eventually(c.t, "both are at the same entry", func() bool {
		var i1, i2 uint64
		i1, t1 = tree(c.t, c.masters[1])
		i2, t2 = tree(c.t, c.masters[2])
		return i1 == i2
	})
	if !bytes.Equal(t1, t2) {
		c.t.Fatal("the trees differ")
	}
}

// tree is a master's state as bytes.
func tree(t *testing.T, m *Master) (index uint64, bytesOf []byte) {
	t.Helper()
	done := make(chan struct{})
	var b bytes.Buffer
	m.in.post(func(l *loop) {
		defer close(done)
		v := l.st.Freeze()
		defer v.Release()
		index = l.index
		if err := image.Write(&b, v, image.Meta{Index: l.index, Term: l.term}); err != nil {
			t.Error(err)
		}
	})
	<-done
	return index, b.Bytes()
}

// TestTakeover: the standby goes on where the leader died. What was answered is
// there, what is sent again is done once, both trees are the same bytes.
func TestTakeover(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	a := newMount(t, lead)
	var made wire.EntryReply
	req := &wire.Make{Parent: inode.Root, Name: "once", What: inode.File, Mode: 0o600}
	for i := range 100 {
		a.mkfile(inode.Root, fmt.Sprint("f", i))
	}
	a.must(req, &made)
	c.level()
	other := c.other(lead)
	c.same()
	epoch := a.session.Epoch
	begun := time.Now()
	c.kill(lead)
	next := c.leader()
	t.Logf("another leads after %v", time.Since(begun))
	if next != other {
		t.Fatal("a metalogger serves")
	}
	b, err := a.again(next)
	if err != nil {
		t.Fatal(err)
	}
	if b.session.Epoch <= epoch {
		t.Fatalf("epoch %d after %d", b.session.Epoch, epoch)
	}
	// The same request once more, as a mount sends it whose answer was lost.
	var again wire.EntryReply
	if err := b.conn.Call(t.Context(), req, nil, &again); err != nil {
		t.Fatal(err)
	}
	if again.Attr.Ino != made.Attr.Ino {
		t.Fatalf("sent again it made inode %d, before %d", again.Attr.Ino, made.Attr.Ino)
	}
	for i := range 100 {
		if e := b.lookup(inode.Root, fmt.Sprint("f", i)); !e.Found {
			t.Fatalf("f%d is lost", i)
		}
	}
	// The old leader comes back as a standby.
	c.start(3 - next.cfg.ID)
	b.mkfile(inode.Root, "late")
	c.level()
	c.same()
}

// TestStandbyRefuses: a standby serves nothing but the question who leads, and
// says where the masters are.
func TestStandbyRefuses(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	m := dialMount(t, c.other(lead))
	m.fails(&wire.SessionOpen{Host: "h"}, status.NotLeader)
	eventually(t, "the standby knows both masters", func() bool {
		var who wire.WhoReply
		if err := m.conn.Call(t.Context(), &wire.Who{}, nil, &who); err != nil || who.Leads {
			t.Fatalf("%+v %v", who, err)
		}
		return len(who.Masters) == 2
	})
	// The question waits for the answer.
	got := make(chan wire.WhoReply, 1)
	go func() {
		var who wire.WhoReply
		_ = m.conn.Call(t.Context(), &wire.Who{WaitMillis: 10_000}, nil, &who)
		got <- who
	}()
	c.level()
	lead.log.Transfer(c.other(lead).cfg.ID)
	if who := <-got; !who.Leads || who.Epoch <= 1 {
		t.Fatalf("answer %+v", who)
	}
}

// TestLaggingStandby: a standby that was away for so long that the leader no
// longer has the changelog gets an image, and so does a metalogger.
func TestLaggingStandby(t *testing.T) {
	c := newTrio(t, func(cfg *Config) { cfg.ImagesKept = 1 })
	lead := c.leader()
	a := newMount(t, lead).keepAlive()
	away := c.other(lead)
	c.level()
	c.kill(away)
	for i := range 60 {
		a.mkfile(inode.Root, fmt.Sprint("f", i))
		if i%20 == 19 {
			saveImage(t, lead)
		}
	}
	a.mkfile(inode.Root, "last")
	c.start(away.cfg.ID)
	c.level()
	c.same()
	// The metalogger loses all but its vote... and its log is emptied by an image.
	eventually(t, "the metalogger has fetched an image", func() bool {
		_, err := c.logger.Newest()
		return err == nil
	})
	if err := c.logger.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		a.mkfile(inode.Root, fmt.Sprint("g", i))
		if i%20 == 19 {
			saveImage(t, lead)
		}
	}
	c.startLogger()
	eventually(t, "the metalogger is up to date", func() bool {
		return c.logger.Log().Status().Commit >= lead.log.Status().Commit && lead.log.Status().Commit > 0
	})
	// From the files of the metalogger alone a master starts.
	a.mkfile(inode.Root, "very last")
	want := lead.log.Status().Commit
	eventually(t, "the metalogger has it", func() bool { return c.logger.Log().Status().Commit >= want })
	if err := c.logger.Close(); err != nil {
		t.Fatal(err)
	}
	c.logger = nil
	restored := t.TempDir()
	if err := copyTree(c.dirs[3], restored); err != nil {
		t.Fatal(err)
	}
	if s, err := Recover(restored, 1, 0, testConfig(t, restored).Log); err != nil || len(s.Members.List) != 3 || s.NewTerm < s.Term+1000 {
		t.Fatalf("recovery: %+v, %v", s, err)
	}
	m := startMaster(t, testConfig(t, restored))
	b, err := a.again(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f0", "f59", "last", "g59", "very last"} {
		if e := b.lookup(inode.Root, name); !e.Found {
			t.Errorf("%s is not in what was restored", name)
		}
	}
}

// TestMetaloggerOnSmallDisk: a metalogger whose disk does not hold what it was asked to
// keep lets go of the oldest, and votes on.
func TestMetaloggerOnSmallDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system is mounted; needs root")
	}
	c := newTrio(t, func(cfg *Config) { cfg.Sync = "quorum" })
	lead := c.leader()
	a := newMount(t, lead).keepAlive()
	c.level()
	c.onSmallDisk(224 << 20)
	ino := a.mkfile(inode.Root, "f").Ino
	value := make([]byte, 60_000)
	fill := func(n int) { // an entry each
		for i := range n {
			value[0], value[1] = byte(i), byte(i>>8)
			a.must(&wire.SetXattr{Ino: ino, Name: "user.big", Value: value}, &wire.AttrReply{})
		}
	}
	for range 3 { // 60 MiB, of which an image holds all
		fill(1000)
		saveImage(t, lead)
		list, err := image.List(c.dirs[lead.cfg.ID])
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the metalogger has the image", func() bool { i, err := c.logger.Newest(); return err == nil && i.Index >= list[0].Index })
	}
	fill(1000)
	var st unix.Statfs_t
	eventually(t, "there is room again", func() bool {
		return unix.Statfs(c.dirs[3], &st) == nil && st.Bavail*uint64(st.Bsize) >= 64<<20
	})
	c.level()
	if logs, err := filepath.Glob(filepath.Join(c.dirs[3], "log", "*.wal")); err != nil || len(logs) > 10 { // of 15 that were written
		t.Errorf("%d files of the log, %v", len(logs), err)
	}
	want := lead.log.Status().Commit
	eventually(t, "the metalogger has all", func() bool { return c.logger.Log().Status().Commit >= want })
}

// onSmallDisk moves the metalogger's directory to a file system of size bytes.
func (c *trio) onSmallDisk(size int) {
	c.t.Helper()
	if err := c.logger.Close(); err != nil {
		c.t.Fatal(err)
	}
	kept, dir := c.t.TempDir(), c.dirs[3]
	if err := copyTree(dir, kept); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mount("varve-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		c.t.Skipf("a small file system cannot be mounted: %v", err)
	}
	c.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := copyTree(kept, dir); err != nil {
		c.t.Fatal(err)
	}
	c.startLogger()
}

func saveImage(t *testing.T, m *Master) {
	t.Helper()
	done := make(chan error, 1)
	m.in.post(func(l *loop) { l.saveImage(func(_ image.File, err error) { done <- err }) })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestStandbyTakesImages: the leader leaves images to the standby.
func TestStandbyTakesImages(t *testing.T) {
	c := newTrio(t, func(cfg *Config) { cfg.ImageEntries = 200 })
	lead := c.leader()
	a := newMount(t, lead).keepAlive()
	for i := range 300 {
		a.mkfile(inode.Root, fmt.Sprint("f", i))
	}
	images := func(m *Master) int {
		list, err := filepath.Glob(filepath.Join(c.dirs[m.cfg.ID], "image.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	eventually(t, "the standby has written an image", func() bool { return images(c.other(lead)) > 1 })
	if n := images(lead); n != 1 {
		t.Errorf("the leader has %d images", n)
	}
}

// TestHandoverOfRequests: requests that are under way while leadership moves are
// answered by one of the masters, and done once.
func TestHandoverOfRequests(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	a := newMount(t, lead)
	c.level()
	n := 0
	for round := range 6 {
		lead := c.leader()
		go lead.log.Transfer(c.other(lead).cfg.ID)
		for i := range 100 {
			req := &wire.Make{Parent: inode.Root, Name: fmt.Sprintf("f%d.%d", round, i), What: inode.File, Mode: 0o600}
			a.number(req)
			for {
				err := a.conn.Call(t.Context(), req, nil, &wire.EntryReply{})
				if err == nil {
					n++
					break
				}
				if code := status.CodeOf(err); code != status.NotLeader && code != status.Closed && code != status.Stale {
					t.Fatal(err)
				}
				for ok := false; !ok; {
					next, err := a.again(c.leader())
					if err != nil && errors.Is(err, status.NotFound) {
						t.Fatal(err)
					}
					if ok = err == nil; ok {
						a = next
					}
				}
			}
		}
	}
	var list wire.ReadDirReply
	a.must(&wire.ReadDir{Ino: inode.Root, Max: 8000}, &list)
	if n != 600 || len(list.Entries) != 600 {
		t.Fatalf("%d were made, %d are there", n, len(list.Entries))
	}
}

// ask puts an operator's question to a master.
func (c *trio) ask(m *Master, what string, args wire.VoterArgs) error {
	c.t.Helper()
	conn, err := link.Dial(c.t.Context(), "tcp", m.ClientAddr().String(), link.Config{Key: testKey, Role: wire.RoleAdmin, Want: wire.RoleMaster}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	text, err := json.Marshal(args)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn.Call(c.t.Context(), &wire.Admin{What: what, Args: text}, nil, &wire.AdminReply{})
}

// TestWipedVoter: a master whose directory was emptied has forgotten what it
// promised. It gets no vote until it was removed and added anew.
func TestWipedVoter(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	a := newMount(t, lead).keepAlive()
	for i := range 20 {
		a.mkfile(inode.Root, fmt.Sprint("f", i))
	}
	c.level()
	gone := c.other(lead).cfg
	c.kill(c.other(lead))
	gone.Dir = t.TempDir()
	c.cfg[gone.ID] = gone
	c.start(gone.ID)
	// Without the third one there is no majority: the emptied one is none.
	if err := c.logger.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leader steps down", func() bool { return lead.Ready() != nil })
	if m := c.masters[gone.ID].log.Members(); len(m.List) > 0 {
		t.Fatalf("the emptied voter is one of %+v", m)
	}
	c.startLogger()
	lead = c.leader()
	if lead.cfg.ID == gone.ID {
		t.Fatal("the emptied voter leads")
	}
	if err := c.ask(lead, wire.AskDropVoter, wire.VoterArgs{ID: gone.ID}); err != nil {
		t.Fatal(err)
	}
	c.kill(c.masters[gone.ID])
	problem(t, lead, "Voters of the changelog: 2; the loss of one stops changes.")
	// The same host comes again under another number.
	gone.ID, gone.Dir = 4, t.TempDir()
	gone.Peers = map[uint64]string{4: gone.RaftAddr, 3: c.peers[3], lead.cfg.ID: c.peers[lead.cfg.ID]}
	c.cfg[4] = gone
	c.start(4)
	if err := c.ask(lead, wire.AskAddVoter, wire.VoterArgs{ID: 4, Addr: gone.RaftAddr}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it votes", func() bool {
		m := lead.log.Members()
		k, ok := m.Find(4)
		return ok && !k.Learner
	})
	eventually(t, "the removed one is no longer listed, nor missed", func() bool {
		s := lead.Status()
		for _, m := range s.Masters {
			if m.Down {
				return false
			}
		}
		return len(s.Masters) == 3 && !strings.Contains(strings.Join(s.Problems, " "), "Voter")
	})
	want := lead.log.Status().Commit
	eventually(t, "it has all", func() bool { return c.masters[4].log.Status().Applied >= want })
	c.kill(lead)
	next := c.leader()
	if next.cfg.ID != 4 {
		t.Fatalf("voter %d leads", next.cfg.ID)
	}
	b, err := a.again(next)
	if err != nil {
		t.Fatal(err)
	}
	if e := b.lookup(inode.Root, "f19"); !e.Found {
		t.Fatal("a file is lost")
	}
}

// TestChunkserversOfAStandby: chunkservers come to and go from a standby, and a
// deposed master outlives the end of its connections to them.
func TestChunkserversOfAStandby(t *testing.T) {
	c := newTrio(t, nil)
	for round := range 3 {
		lead := c.leader()
		other := c.other(lead)
		a := newChunkd(t, lead, 7)
		c.level()
		b := newChunkd(t, other, 7)
		if round == 1 {
			b.die()
			eventually(t, "the standby has noticed", func() bool { return len(other.servers.Conns()) == 0 })
		}
		lead.log.Transfer(other.cfg.ID)
		eventually(t, "the other leads", func() bool { return other.Ready() == nil })
		eventually(t, "the old one has hung up", func() bool { return len(lead.servers.Conns()) == 0 })
		if round != 1 {
			eventually(t, "the new leader has the chunkserver", func() bool {
				for _, s := range other.Status().Servers {
					if s.State == "up" {
						return b.ordered(wire.KindLead) > 0
					}
				}
				return false
			})
		}
		a.die()
		b.die()
		if lead.Ready() == nil || lead.Status() == nil {
			t.Fatal("the deposed master serves")
		}
	}
}

// fakeElections notes what is asked of it, and has the addresses.
type fakeElections struct {
	m    *Master
	to   chan uint64
	held atomic.Bool
}

func (f *fakeElections) Handover(to uint64) { f.to <- to; f.m.log.Handover(to, "an operator's order") }
func (f *fakeElections) Holds() bool        { return f.held.Load() }

// TestVoterStatus: who leads, its lease, who has the virtual addresses, and how it
// came to that, after a handover that went through those who decide about elections.
func TestVoterStatus(t *testing.T) {
	c := newTrio(t, nil)
	old := c.leader()
	c.level()
	f := &fakeElections{m: old, to: make(chan uint64, 1)}
	f.held.Store(true)
	old.SetElections(f)
	if s := old.Status(); s.Masters[0].Role != "leader" || s.Masters[0].Lease != "held" || s.Masters[0].LeaseLeft <= 0 || !s.Masters[0].HoldsVIP {
		t.Errorf("of itself the leader says %+v", s.Masters[0])
	}
	next := c.other(old)
	eventually(t, "the standby answers", func() bool {
		return c.ask(old, wire.AskHandover, wire.VoterArgs{ID: next.cfg.ID}) == nil
	})
	if to := <-f.to; to != next.cfg.ID {
		t.Errorf("leadership was to go to %d", to)
	}
	f.held.Store(false)
	eventually(t, "the other leads", func() bool { return next.Ready() == nil && next.log.Leased() })
	s := next.Status()
	o := s.Failover
	if o == nil || o.From != old.cfg.ID || o.FromName != old.cfg.Name || o.To != next.cfg.ID || !strings.Contains(o.Cause, "operator") || o.Epoch != s.Masters[0].Epoch || o.Ready <= 0 {
		t.Errorf("it came to lead by %+v", o)
	}
	eventually(t, "the others are known", func() bool {
		roles := map[string]int{}
		for _, m := range next.Status().Masters {
			if !m.Down && m.Lag != nil && *m.Lag == 0 && !m.HoldsVIP && (m.Role == "leader") == (m.Lease == "held") {
				roles[m.Role]++
			}
		}
		return roles["leader"] == 1 && roles["standby"] == 1 && roles["metalogger"] == 1
	})
}

// TestVoterLag: lag is what a voter should have applied and has not, whatever its
// log has; of one that is down nobody knows it, nor has that one the addresses.
func TestVoterLag(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	c.level()
	other := c.other(lead)
	f := &fakeElections{m: other}
	f.held.Store(true)
	other.SetElections(f)
	seen := func(what string, is func(m *wire.MasterStatus) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, m := range lead.Status().Masters {
				if m.ID == other.cfg.ID && is(&m) {
					return true
				}
			}
			return false
		})
	}
	seen("the standby is level and has the addresses", func(m *wire.MasterStatus) bool { return m.Lag != nil && *m.Lag == 0 && m.HoldsVIP })
	busy, free := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	other.in.post(func(*loop) { close(busy); <-free })
	<-busy
	a := newMount(t, lead).keepAlive()
	a.mkdir(inode.Root, "d")
	due := lead.log.Status().Commit
	eventually(t, "the standby's log has it", func() bool { return other.log.Status().Commit >= due })
	seen("the standby is behind", func(m *wire.MasterStatus) bool { return !m.Down && m.Lag != nil && *m.Lag > 0 })
	release()
	seen("the standby is level again", func(m *wire.MasterStatus) bool { return m.Lag != nil && *m.Lag == 0 && m.Applied >= due })
	c.kill(other)
	seen("it is down", func(m *wire.MasterStatus) bool { return m.Down && m.Lag == nil && !m.HoldsVIP })
}

// TestStandbyStart: the start of a standby is over when it has caught up, not when it comes to lead.
func TestStandbyStart(t *testing.T) {
	set := map[uint64]*metrics.Set{}
	c := newTrio(t, func(cfg *Config) {
		cfg.Metrics = metrics.NewSet()
		set[cfg.ID] = cfg.Metrics
	})
	other := c.other(c.leader())
	c.level()
	eventually(t, "the standby's start is over", func() bool {
		var b bytes.Buffer
		set[other.cfg.ID].WritePrometheus(&b)
		return strings.Contains(b.String(), `varve_master_start_seconds{phase="changelog"}`)
	})
}

// problem waits until a master calls something a problem that has text.
func problem(t *testing.T, m *Master, text string) {
	t.Helper()
	var all []string
	for deadline := time.Now().Add(time.Minute); !strings.Contains(strings.Join(all, "\n"), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q is not among the problems: %q", text, all)
		}
		all = m.Status().Problems
	}
}

// TestNoMajority: a master that is left alone says how many are missing.
func TestNoMajority(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	c.level()
	other := c.other(lead)
	problem(t, other, fmt.Sprintf("This master does not lead; voter %d (%s) does.", lead.cfg.ID, lead.cfg.Name))
	c.kill(lead)
	if err := c.logger.Close(); err != nil {
		t.Fatal(err)
	}
	problem(t, other, fmt.Sprintf("Voter %d (%s), 3 (%s) of the changelog does not answer: 1 of 3 voters are there, and 2 must be for changes.",
		lead.cfg.ID, c.peers[lead.cfg.ID], c.peers[3]))
	problem(t, other, "This master does not lead, nor does it know of another one that does.")
}

// TestFullDisk: a voter whose disk has no room for the changelog tells so.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system is mounted; needs root")
	}
	c := newTrio(t, nil)
	lead := c.leader()
	c.level()
	var logs []string
	eventually(t, "the metalogger has its next file", func() bool {
		logs, _ = filepath.Glob(filepath.Join(c.dirs[3], "log", "*.wal"))
		return len(logs) == 2
	})
	if err := os.Remove(logs[1]); err != nil {
		t.Fatal(err)
	}
	c.onSmallDisk(20 << 20) // a file has 16 MiB
	problem(t, lead, fmt.Sprintf("Voter 3 (%s): the next file of the changelog cannot be prepared: ", c.peers[3]))
	problem(t, c.other(lead), "no space left on device")
}

// TestReachable: a master that listens on all addresses is shown at one where it can be reached.
func TestReachable(t *testing.T) {
	c := newTrio(t, func(cfg *Config) {
		_, port, _ := net.SplitHostPort(cfg.ClientAddr)
		cfg.ClientAddr = "0.0.0.0:" + port
	})
	for _, m := range c.leader().Status().Masters {
		if host, _, _ := net.SplitHostPort(m.Addr); m.Role == "leader" && host != "127.0.0.1" {
			t.Errorf("the leader is at %q", m.Addr)
		}
	}
}
