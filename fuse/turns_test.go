package fuse

import (
	"context"
	"sync"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"github.com/varvefs/varve/client"
)

func newTurns() (t *turns, admitted chan struct{}) {
	admitted = make(chan struct{}, 10)
	return &turns{admit: func() { admitted <- struct{}{} }, pending: func() bool { return false }}, admitted
}

func TestTurnIsKept(t *testing.T) {
	u, admitted := newTurns()
	u.keep(2)
	if u.yield(4); len(admitted) > 0 {
		t.Fatal("one who has not the right gives it on")
	}
	if u.kept(4) || !u.kept(2) {
		t.Fatal("the right is with somebody else than the one who answers")
	}
	if u.yield(2); len(admitted) > 0 {
		t.Fatal("the right is given on after the answer")
	}
}

func TestTurnIsGivenOnOnce(t *testing.T) {
	u, admitted := newTurns()
	u.keep(2)
	f := &fileSystem{ctx: context.Background()}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { u.yield(2) })
	}
	wg.Wait()
	if len(admitted) != 1 {
		t.Fatalf("%d readers were made, want 1", len(admitted))
	}
	if u.kept(2) {
		t.Fatal("it reads on, and so does another one")
	}
	f.turns.admit = u.admit
	f.turns.keep(6)
	client.Waits(f.context(nil, &gofuse.InHeader{Unique: 8})) // another request
	client.Waits(f.context(nil, &gofuse.InHeader{Unique: 6}))
	if len(admitted) != 2 {
		t.Fatalf("%d readers were made, want 2", len(admitted))
	}
}

// A handler that hangs without a word, on a lock for example, holds up the kernel's
// other requests for a moment only, also after the watch has slept.
func TestTurnIsTaken(t *testing.T) {
	u, admitted := newTurns()
	for request := uint64(2); request < 6; request += 2 {
		u.keep(request)
		select {
		case <-admitted:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody else reads")
		}
		if u.kept(request) {
			t.Fatal("it reads on, and so does another one")
		}
		for begin := time.Now(); u.watched(); time.Sleep(watchEvery) {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("the watch does not end when nothing happens")
			}
		}
	}
}

// Who waits for the disk keeps the right when nothing else is asked meanwhile, and gives
// it on again when something is, whether that is read by others or left with the kernel.
func TestTurnIsKeptAtTheDisk(t *testing.T) {
	u, admitted := newTurns()
	pending := false
	u.pending = func() bool { return pending }
	request := uint64(0)
	// read says whether the right was kept at the disk.
	read := func(meanwhile func()) bool {
		request += 2
		mine := request
		u.keep(mine)
		u.beginDisk(mine)
		meanwhile()
		u.endDisk(mine)
		if u.kept(mine) {
			return true
		}
		<-admitted
		return false
	}
	nothing := func() {}
	until := func(want bool) (n int) {
		for ; read(nothing) != want; n++ {
			if n > 100 {
				t.Fatalf("the right is never kept: %v", want)
			}
		}
		return n
	}
	if n := until(true); n != aloneFrom {
		t.Errorf("%d reads before the right is kept, want %d", n, aloneFrom)
	}
	pending = true
	if !read(nothing) {
		t.Error("the right was given on before anything else was asked")
	}
	if pending = false; read(nothing) {
		t.Error("the right is kept although another request waited for it")
	}
	until(true)
	other := func() {
		request += 2
		u.keep(request)
		u.yield(request)
		<-admitted
	}
	for range aloneFrom + 1 { // the first takes the right from one that keeps it, as the watch does
		if u.alone = 0; read(other) {
			t.Error("the right is kept although others ask")
		}
	}
	if u.disks != 0 {
		t.Errorf("%d wait for disks in the end", u.disks)
	}
}

func (t *turns) watched() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.guarded
}
