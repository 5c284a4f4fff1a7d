package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// sleepyKernel is a Notifier that takes a moment, at random.
type sleepyKernel struct{}

func (sleepyKernel) Entry(inode.Ino, string) { nap() }
func (sleepyKernel) Attr(inode.Ino)          {}
func (sleepyKernel) Data(inode.Ino)          { nap() }

func nap() { time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) }

// TestStorm lets several goroutines of two clients do everything at once in one
// directory. Whatever happens, every call must come back and no error may be
// one that the others' doings don't explain.
func TestStorm(t *testing.T) { storm(t, startCluster(t, 3, false), func() {}) }

// TestStormOfKills is TestStorm while chunkservers are killed and come back, one
// at a time. Nothing that is written may be lost.
func TestStormOfKills(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 3, true)
	next := 0
	storm(t, cl, func() {
		d := cl.chunkds[next%len(cl.chunkds)]
		next++
		d.kill()
		cl.startChunkd(d, true)
	})
}

// storm runs until its time is over; disturb is called again and again meanwhile.
func storm(t *testing.T, cl *cluster, disturb func()) {
	clients := []*Client{
		cl.connect(func(c *Config) { c.Notify = sleepyKernel{} }),
		cl.connect(func(c *Config) { c.Notify = sleepyKernel{}; c.WriteBuffer = 4 << 20; c.Inodes = 16 }),
	}
	d := mkdir(t, clients[0], clients[0].Root(), "d")
	length := 4 * time.Second
	if testing.Short() {
		length = time.Second
	}
	end := time.Now().Add(length)
	watch := time.AfterFunc(length+40*time.Second, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		panic("the storm does not end: something waits in a circle")
	})
	defer watch.Stop()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(w), 5))
			for time.Now().Before(end) {
				if err := stormStep(clients[w%2], rnd, d); err != nil && !expected(err) {
					t.Errorf("worker %d: %v", w, err)
					return
				}
			}
		}()
	}
	for time.Now().Before(end) {
		disturb()
		time.Sleep(200 * time.Millisecond) // the pace of the disturbance; nothing waits for it
	}
	wg.Wait()
	for i, c := range clients {
		list(t, c, d)
		if n := c.met.lost.Get(); n != 0 {
			t.Errorf("client %d lost %d bytes", i, n)
		}
	}
}

// expected says whether an error is what a race of the workers explains.
func expected(err error) bool {
	switch status.CodeOf(err) {
	case status.NotFound, status.Exists, status.Stale, status.NoDevice:
		return true
	}
	return false
}

func stormStep(c *Client, rnd *rand.Rand, d inode.Ino) error {
	name := fmt.Sprintf("f%d", rnd.IntN(6))
	switch rnd.IntN(12) {
	case 0:
		return c.Remove(bg, d, name, false)
	case 1:
		return c.Rename(bg, d, name, d, fmt.Sprintf("f%d", rnd.IntN(6)), 0)
	case 2:
		dir, err := c.OpenDir(bg, d)
		if err != nil {
			return err
		}
		defer dir.Close()
		return dir.Read(bg, 0, func(DirEntry) bool { return true })
	case 3:
		n, err := c.Lookup(bg, d, name)
		if err != nil {
			return err
		}
		_, err = c.SetAttr(bg, n.Attr.Ino, wire.SetAttr{Valid: wire.SetSize, Size: uint64(rnd.IntN(300000))})
		return err
	case 4:
		n, err := c.Lookup(bg, d, name)
		if err != nil {
			return err
		}
		_, err = c.SetAttr(bg, n.Attr.Ino, wire.SetAttr{Valid: wire.SetMtime, Mtime: 1})
		return err
	case 5:
		n, err := c.Lookup(bg, d, name)
		if err != nil {
			return err
		}
		_, err = c.Link(bg, n.Attr.Ino, d, fmt.Sprintf("f%d", rnd.IntN(6)))
		return err
	}
	_, f, err := c.Create(bg, wire.Make{Parent: d, Name: name, Mode: 0o644}, syscall.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	for range rnd.IntN(5) {
		off := int64(rnd.IntN(200000))
		switch rnd.IntN(7) {
		case 0:
			err = f.Sync(bg, false)
		case 1:
			err = f.Flush(bg)
		case 2:
			_, err = f.Seek(bg, off, SeekData)
		case 3:
			_, err = f.ReadAt(bg, make([]byte, rnd.IntN(100000)), off)
		case 4:
			err = f.Allocate(bg, AllocPunchHole|AllocKeepSize, off, 50000)
		default:
			_, err = f.WriteAt(bg, pattern(rnd.IntN(50000), 1), off, WriteFlags{Append: rnd.IntN(3) == 0})
		}
		if err != nil && !errors.Is(err, status.NoDevice) {
			// An open file lives, whoever removes its names.
			return status.Errorf(status.Unknown, "inode %d: %v", f.Ino(), err)
		}
	}
	return nil
}
