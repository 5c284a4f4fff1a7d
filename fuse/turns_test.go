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
	return &turns{admit: func() { admitted <- struct{}{} }}, admitted
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

func (t *turns) watched() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.guarded
}
