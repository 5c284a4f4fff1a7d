package link

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/varvefs/varve/wire"
)

// gatherer counts how many requests came between two pauses.
type gatherer struct {
	mu    sync.Mutex
	now   []*Request
	turns []int
}

func (g *gatherer) Serve(_ *Conn, r *Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.Free()
	g.now = append(g.now, r)
}

// Pause answers all that came since the last one.
func (g *gatherer) Pause(*Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.now) == 0 {
		return
	}
	g.turns = append(g.turns, len(g.now))
	for _, r := range g.now {
		r.Reply(nil, nil, nil)
	}
	g.now = nil
}

func TestQueuedRequestsComeTogether(t *testing.T) {
	g := &gatherer{}
	c := dial(t, listen(t, g), nil)
	const rounds, each = 50, 20
	var order []int
	for round := range rounds {
		done := make(chan error, each)
		for i := range each {
			c.Queue(&wire.Ping{}, nil, func(r *Reply) {
				order = append(order, round*each+i)
				done <- r.Err
				r.Free()
			})
		}
		select {
		case <-done:
			t.Fatal("what was queued has left before Flush")
		default:
		}
		c.Flush()
		c.Flush() // which has nothing to do
		for range each {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.IsSorted(order) || len(order) != rounds*each {
		t.Fatalf("%d answers, in order: %v", len(order), slices.IsSorted(order))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// One write may be cut by the kernel, most are not.
	if most := 2 * rounds; len(g.turns) > most {
		t.Errorf("%d requests were served in %d turns, want at most %d", rounds*each, len(g.turns), most)
	}
}

// A request of Start takes along what was queued before, in order.
func TestQueuedRequestsLeaveWithTheNext(t *testing.T) {
	g := &gatherer{}
	c := dial(t, listen(t, g), nil)
	var got []string
	done := make(chan error, 3)
	note := func(name string) func(*Reply) {
		return func(r *Reply) {
			got = append(got, name)
			done <- r.Err
			r.Free()
		}
	}
	c.Queue(&wire.Ping{}, nil, note("first"))
	c.Queue(&wire.Ping{}, nil, note("second"))
	c.Start(&wire.Ping{}, nil, note("third"))
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if want := "[first second third]"; fmt.Sprint(got) != want {
		t.Errorf("answers %v, want %v", got, want)
	}
}

// What is queued on a connection that dies fails like everything else.
func TestQueuedRequestsFailWithTheConnection(t *testing.T) {
	c := dial(t, listen(t, &gatherer{}), nil)
	done := make(chan error, 2)
	end := func(r *Reply) { done <- r.Err; r.Free() }
	c.Queue(&wire.Ping{}, nil, end)
	c.Close()
	c.Flush()
	c.Queue(&wire.Ping{}, nil, end)
	for range 2 {
		if err := <-done; err == nil {
			t.Error("a request on a dead connection succeeded")
		}
	}
}
