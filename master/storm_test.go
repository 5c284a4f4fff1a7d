package master

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

// cachingMount keeps what its rights allow, as a real mount does: grants are
// noted on the read goroutine, in the order of the frames, and a recall voids
// what it names before it is answered.
type cachingMount struct {
	*mount
	cmu   sync.Mutex
	gens  map[inode.Ino]uint64    // attributes, under R
	names map[string]inode.Ino    // of the root, under D; 0: absent
	marks map[inode.Ino]time.Time // last recall of an inode, and of the root's names
	hits  int
}

func newCachingMount(t *testing.T, m *Master) *cachingMount {
	c := &cachingMount{gens: map[inode.Ino]uint64{}, names: map[string]inode.Ino{}, marks: map[inode.Ino]time.Time{}}
	c.mount = &mount{t: t, open: map[inode.Ino]bool{}}
	conn, err := link.Dial(t.Context(), "tcp", m.ClientAddr().String(), link.Config{
		Key: testKey, Role: wire.RoleMount, Want: wire.RoleMaster,
	}, link.HandlerFunc(c.serve))
	if err != nil {
		t.Fatal(err)
	}
	c.conn = conn
	t.Cleanup(conn.Close)
	c.must(&wire.SessionOpen{}, &c.session)
	c.keepAlive()
	return c
}

func (c *cachingMount) serve(_ *link.Conn, r *link.Request) {
	var m wire.Recall
	if err := r.Decode(&m); err != nil {
		c.t.Errorf("recall: %v", err)
	}
	r.Free()
	c.cmu.Lock()
	for _, item := range m.Items {
		c.marks[item.Ino] = time.Now()
		for _, name := range item.Names {
			delete(c.names, name)
		}
		if len(item.Names) > 0 {
			continue
		}
		if item.Keep&inode.R == 0 {
			delete(c.gens, item.Ino)
		}
		if item.Keep&inode.D == 0 && item.Ino == inode.Root {
			clear(c.names)
		}
	}
	c.cmu.Unlock()
	r.Reply(&wire.RecallReply{}, nil, nil)
}

// ask sends a request; note runs on the read goroutine with cmu held.
func (c *cachingMount) ask(req, reply wire.Message, note func(begun time.Time)) error {
	c.number(req)
	done := make(chan error, 1)
	begun := time.Now()
	c.conn.Start(req, nil, func(r *link.Reply) {
		err := r.Decode(reply)
		r.Free()
		if err == nil {
			c.cmu.Lock()
			note(begun)
			c.cmu.Unlock()
		}
		done <- err
	})
	return <-done
}

// read gives an inode's generation, from the cache if possible.
func (c *cachingMount) read(ino inode.Ino) (gen uint64, err error) {
	c.cmu.Lock()
	gen, cached := c.gens[ino]
	if cached {
		c.hits++
	}
	c.cmu.Unlock()
	if cached {
		return gen, nil
	}
	var r wire.AttrReply
	err = c.ask(&wire.GetAttr{Ino: ino}, &r, func(begun time.Time) {
		if r.Rights&inode.R != 0 && c.marks[ino].Before(begun) {
			c.gens[ino] = r.Attr.Gen
		}
	})
	return r.Attr.Gen, err
}

// find gives the inode of a name in the root, from the cache if possible.
func (c *cachingMount) find(name string) (ino inode.Ino, err error) {
	c.cmu.Lock()
	ino, cached := c.names[name]
	if cached {
		c.hits++
	}
	c.cmu.Unlock()
	if cached {
		return ino, nil
	}
	var r wire.EntryReply
	err = c.ask(&wire.Lookup{Parent: inode.Root, Name: name}, &r, func(begun time.Time) {
		if r.DirRights&inode.D != 0 && c.marks[inode.Root].Before(begun) {
			c.names[name] = r.Attr.Ino
		}
	})
	return r.Attr.Ino, err
}

// story is what one name meant, one thing after the other; its only writer adds
// to it before it asks for the change, and acked says what was acknowledged.
type story struct {
	mu      sync.Mutex
	meant   []inode.Ino // 0: absent
	acked   int         // index of the last acknowledged meaning
	pending bool        // a change whose outcome nobody knows yet follows
}

// TestStorm has mounts with caches change and read the same inodes and names,
// and checks that nobody reads anything older than what was acknowledged before.
func TestStorm(t *testing.T) {
	m := startMaster(t, testConfig(t, t.TempDir()))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mounts []*cachingMount
	for range 4 {
		mounts = append(mounts, newCachingMount(t, m))
	}
	var files []inode.Ino
	for i := range 4 {
		files = append(files, mounts[0].mkfile(inode.Root, fmt.Sprint("file", i)).Ino)
	}
	acked := make([]atomic.Uint64, len(files))
	stories := make([]*story, len(mounts))
	for i := range stories {
		stories[i] = &story{meant: []inode.Ino{0}}
	}
	end := time.Now().Add(time.Second)
	if testing.Short() {
		end = time.Now().Add(200 * time.Millisecond)
	}
	var wg sync.WaitGroup
	for i, c := range mounts {
		for g := range 3 {
			rng := rand.New(rand.NewPCG(seed, uint64(i*10+g)))
			wg.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					switch p := rng.IntN(100); {
					case p < 10:
						stormChange(c, files, acked, rng)
					case p < 55:
						stormRead(c, files, acked, rng)
					case p < 60 && g == 0:
						stormName(c, i, stories[i])
					default:
						n := rng.IntN(len(stories))
						stormFind(c, n, stories[n])
					}
				}
			})
		}
	}
	wg.Wait()
	hits := 0
	for _, c := range mounts {
		hits += c.hits
	}
	if hits == 0 {
		t.Fatal("nothing was ever read from a cache")
	}
	t.Logf("%d hits, %d recalls", hits, m.loop.met.recalls.Get())
}

func stormChange(c *cachingMount, files []inode.Ino, acked []atomic.Uint64, rng *rand.Rand) {
	n := rng.IntN(len(files))
	var r wire.AttrReply
	err := c.ask(&wire.SetAttr{Ino: files[n], Valid: wire.SetMode, Mode: rng.Uint32() & 0o777}, &r, func(begun time.Time) {
		delete(c.gens, files[n])
		if r.Rights&inode.R != 0 && c.marks[files[n]].Before(begun) {
			c.gens[files[n]] = r.Attr.Gen
		}
	})
	if err != nil {
		c.t.Errorf("setattr: %v", err)
		return
	}
	for old := acked[n].Load(); old < r.Attr.Gen && !acked[n].CompareAndSwap(old, r.Attr.Gen); {
		old = acked[n].Load()
	}
}

func stormRead(c *cachingMount, files []inode.Ino, acked []atomic.Uint64, rng *rand.Rand) {
	n := rng.IntN(len(files))
	want := acked[n].Load()
	got, err := c.read(files[n])
	if err != nil || got < want {
		c.t.Errorf("inode %d read at generation %d (%v), %d was acknowledged before", files[n], got, err, want)
	}
}

// stormName makes or removes the name that mount i owns.
func stormName(c *cachingMount, i int, s *story) {
	name := fmt.Sprint("name", i)
	s.mu.Lock()
	last := s.meant[len(s.meant)-1]
	s.pending = true
	s.mu.Unlock()
	var meant inode.Ino
	var err error
	if last == 0 {
		var r wire.EntryReply
		err = c.ask(&wire.Make{Parent: inode.Root, Name: name, What: inode.File}, &r, func(time.Time) { delete(c.names, name) })
		meant = r.Attr.Ino
	} else {
		err = c.ask(&wire.Remove{Parent: inode.Root, Name: name, Ino: last}, &wire.RemoveReply{}, func(time.Time) { delete(c.names, name) })
	}
	if err != nil {
		c.t.Errorf("%s: %v", name, err)
	}
	s.mu.Lock()
	s.meant = append(s.meant, meant)
	s.acked, s.pending = len(s.meant)-1, false
	s.mu.Unlock()
}

// stormFind looks a name up: it must mean what was acknowledged last before, or
// anything later.
func stormFind(c *cachingMount, i int, s *story) {
	s.mu.Lock()
	from := s.acked
	s.mu.Unlock()
	got, err := c.find(fmt.Sprint("name", i))
	if err != nil {
		c.t.Errorf("lookup: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ino := range s.meant[from:] {
		if ino == got {
			return
		}
	}
	if s.pending && (got == 0) == (s.meant[len(s.meant)-1] != 0) {
		return // what the change under way makes of it
	}
	c.t.Errorf("name%d means %d, but since before the question it meant only %v", i, got, s.meant[from:])
}
