package master

import (
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// TestForget: a server that is connected stays, one with the only copy needs
// force, and then nobody waits for it.
func TestForget(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ServerWait = time.Minute
	m, servers := cluster(t, cfg, 2)
	a := newMount(t, m).keepAlive()
	ino, loc := a.create("f")
	write(servers, loc, "x")
	a.finish(ino, loc, 1)
	o := newTool(t, m)
	var r wire.ForgetReply
	first, second := m.Status().Servers[0].ID, m.Status().Servers[1].ID
	forget := func(name string, force bool) error {
		return o.ask(wire.AskForget, wire.ForgetArgs{Server: name, Force: force}, &r)
	}
	if err := forget("nobody", false); status.CodeOf(err) != status.NotKnown {
		t.Fatalf("an unknown server: %v", err)
	}
	if err := forget(first, true); status.CodeOf(err) != status.Busy {
		t.Fatalf("a connected server: %v", err)
	}
	gone := func(i int) {
		servers[i].die()
		eventually(t, "it is down", func() bool { return m.Status().Servers[0].State == "down" })
	}
	gone(0)
	if err := forget(first, false); err != nil || r.ID != first || r.Lost != 0 {
		t.Fatalf("a server without an only copy: %v, %+v", err, r)
	}
	if st := m.Status(); len(st.Servers) != 1 || st.Servers[0].ID != second {
		t.Fatalf("servers %+v", st.Servers)
	}

	gone(1)
	if err := forget(second, false); status.CodeOf(err) != status.Busy || !strings.Contains(err.Error(), "1 chunks") {
		t.Fatalf("a server with an only copy: %v", err)
	}
	newChunkd(t, m, 3)
	var lay wire.LayoutReply
	done := a.start(&wire.Layout{Ino: ino, Count: 1}, &lay)
	waits(t, "layout", done)
	if err := forget(second, true); err != nil || r.Lost != 1 {
		t.Fatalf("forced: %v, %+v", err, r)
	}
	comes(t, "layout", done)
	if st := m.Status(); len(st.Servers) != 1 || st.Servers[0].State != "up" {
		t.Fatalf("servers %+v", st.Servers)
	}

	// One that comes back all the same is taken in, with what it has.
	servers[1].register(m)
	eventually(t, "the chunk is there again", func() bool {
		a.must(&wire.Layout{Ino: ino, Count: 1}, &lay)
		return len(lay.Chunks) == 1 && len(lay.Chunks[0].Replicas) > 0
	})
}
