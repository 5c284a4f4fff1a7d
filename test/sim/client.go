package sim

import (
	"fmt"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
)

// client is a mount: it sends changes with numbers, and the same number again, to
// another master, when no answer comes. Only it uses the names that it makes, so
// it knows what must be there.
type client struct {
	w       *world
	n       int
	at      int // host that it asks
	session uint64
	seq     uint64
	made    int
	stop    bool
	gone    bool    // it hears nothing any more
	open    []*call // oldest first
	done    uint64  // all requests up to here have been answered
	names   map[string]inode.Ino
	order   []string // of names
	epoch   uint64   // highest heard
	tried   int      // requests for a session
}

// call is a request without an answer.
type call struct {
	seq   uint64
	op    state.Op
	name  string // nil op: a read of it
	to    string // Rename
	ino   inode.Ino
	known uint64 // index of the newest change acknowledged to anybody when it was first sent
	sent  int
	over  bool
}

// window is how many requests a client has under way.
const window = 3

func newClient(w *world, n int) *client {
	return &client{w: w, n: n, names: map[string]inode.Ino{}}
}

// begin opens a session.
func (c *client) begin() {
	if c.gone || c.session != 0 || c.stop && len(c.open) == 0 {
		return
	}
	c.tried++
	try := c.tried
	e := state.Entry{Op: &state.SessionOpen{Host: fmt.Sprint("client ", c.n), Mount: fmt.Sprint(try)}}
	c.send(func(p *process, answer func(reply)) { p.begin(e, answer) }, func(r reply) {
		if !c.gone && r.err == status.OK && c.session == 0 && r.res.Code == status.OK {
			c.session = r.res.Session
			c.w.after(1, c.next)
		}
	})
	c.w.after(c.w.between(100*ms, 300*ms), func() {
		if c.session == 0 {
			c.elsewhere()
			c.begin()
		}
	})
}

// elsewhere tries another host.
func (c *client) elsewhere() { c.at = (c.at + 1) % len(c.w.hosts) }

// next sends a request after a while, again and again.
func (c *client) next() {
	if c.stop {
		return
	}
	c.w.after(c.w.between(0, 2*c.w.plan.think), c.next)
	if len(c.open) >= window {
		return
	}
	k := c.choose()
	if k == nil {
		return
	}
	k.known = c.w.ledger.newest
	if k.op != nil {
		c.seq++
		k.seq = c.seq
	}
	c.open = append(c.open, k)
	c.try(k)
}

// choose makes a request about a name that no other one is about.
func (c *client) choose() *call {
	r := c.w.rng
	name := ""
	if len(c.order) > 0 {
		name = c.order[r.IntN(len(c.order))]
	}
	busy := func(n string) bool {
		for _, k := range c.open {
			if k.name == n || k.to == n {
				return true
			}
		}
		return false
	}
	c.made++
	fresh := fmt.Sprintf("c%d-%d", c.n, c.made)
	switch what := r.IntN(10); {
	case name == "" || what < 3:
		return &call{name: fresh, op: &state.Make{Parent: inode.Root, Name: fresh, What: inode.File, Mode: 0o644}}
	case what < 7:
		if busy(name) {
			return nil
		}
		return &call{name: name, ino: c.names[name]}
	case busy(name):
		return nil
	case what < 9:
		return &call{name: name, ino: c.names[name], op: &state.Remove{Parent: inode.Root, Name: name}}
	}
	return &call{name: name, to: fresh, ino: c.names[name], op: &state.Rename{Parent: inode.Root, Name: name, NewParent: inode.Root, NewName: fresh}}
}

// try sends a request, and again until it is answered.
func (c *client) try(k *call) {
	if k.over || c.gone {
		return
	}
	k.sent++
	if k.sent > 1 {
		c.w.stats.Resent++
	}
	sent := k.sent
	again := func(d nanos) {
		c.w.after(d, func() {
			if !k.over && k.sent == sent {
				c.elsewhere()
				c.try(k)
			}
		})
	}
	e := state.Entry{Session: c.session, Seq: k.seq, Done: c.done, Op: k.op}
	c.send(func(p *process, answer func(reply)) {
		if k.op == nil {
			p.look(k.name, answer)
			return
		}
		p.begin(e, answer)
	}, func(r reply) {
		if k.over || c.gone {
			return
		}
		if r.err == status.NotLeader {
			again(c.w.between(5*ms, 40*ms))
			return
		}
		if r.epoch < c.epoch {
			return // a master that was deposed
		}
		c.epoch = r.epoch
		c.finish(k, r)
	})
	again(c.w.between(200*ms, 400*ms))
}

// send brings a request to the host that is asked now, and its answer back.
func (c *client) send(do func(*process, func(reply)), answer func(reply)) {
	w := c.w
	at := c.at
	travel := func(f func()) {
		if !w.calm && w.one(4*w.plan.loss) {
			return
		}
		w.after(w.rare(200*us), f)
	}
	travel(func() {
		p := w.hosts[at].proc
		if p == nil || p.stopped > w.now && w.one(2) {
			return
		}
		p.ask(func(answer func(reply)) { do(p, answer) }, func(r reply) {
			travel(func() { answer(r) })
		})
	})
}

// finish looks at an answer.
func (c *client) finish(k *call, r reply) {
	k.over = true
	for i := range c.open {
		if c.open[i] == k {
			c.open = append(c.open[:i], c.open[i+1:]...)
			break
		}
	}
	c.done = c.seq
	for _, o := range c.open {
		if o.seq != 0 && o.seq <= c.done {
			c.done = o.seq - 1
		}
	}
	w := c.w
	if r.index < k.known {
		w.failf("client %d: the answer about %s was made behind entry %d in epoch %d, but when it was asked for entry %d had been acknowledged", c.n, k.name, r.index, r.epoch, k.known)
	}
	if k.op == nil {
		w.stats.Reads++
		if !r.found || r.ino != k.ino {
			w.failf("client %d: %s is there as %v (found: %v) in epoch %d, not as %v", c.n, k.name, r.ino, r.found, r.epoch, k.ino)
		}
		return
	}
	if r.res.Code != status.OK {
		w.failf("client %d: request %d, %v (sent %d times): %v in epoch %d", c.n, k.seq, k.op, k.sent, r.res.Code, r.epoch)
	}
	w.stats.Acked++
	w.ledger.acknowledged(r.index)
	switch k.op.(type) {
	case *state.Make:
		c.add(k.name, r.res.Ino)
	case *state.Remove:
		c.forget(k.name)
	case *state.Rename:
		c.forget(k.name)
		c.add(k.to, k.ino)
	}
}

func (c *client) add(name string, ino inode.Ino) {
	c.names[name] = ino
	c.order = append(c.order, name)
}

func (c *client) forget(name string) {
	delete(c.names, name)
	for i := range c.order {
		if c.order[i] == name {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}
