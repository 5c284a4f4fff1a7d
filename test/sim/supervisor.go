package sim

import (
	"net/netip"
	"time"

	"github.com/varvefs/varve/vip"
)

// supervisor is package guard: the parent of the master, who alone has the right
// to the virtual address.
type supervisor struct {
	life
	h     *host
	act   *actor
	own   *vip.Owner
	armed bool
	term  uint64 // that its child led last
	child *process
}

var address = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}

// lifetime is what the kernel gives an address at most.
const lifetime = 2 * time.Second

func newSupervisor(h *host) *supervisor {
	s := &supervisor{h: h}
	s.life = life{w: h.w}
	s.act = s.actor()
	s.own = vip.NewOwner(address, lifetime, h, h.w.log, set)
	return s
}

// hear is a line that the child has written.
func (s *supervisor) hear(from *process, do func()) {
	s.act.post(func() {
		if s.child == from {
			do()
		}
		s.work()
	})
}

func (s *supervisor) leads(term uint64) { s.term = term }

func (s *supervisor) hold(until nanos) {
	if err := s.own.Hold(time.Duration(s.h.clock()), time.Duration(until)); err != nil {
		s.w.notef("%v: supervisor: %v", s.h, err)
	}
}

func (s *supervisor) drop() {
	if err := s.own.Drop(); err != nil {
		s.w.failf("the kernel does not drop an address: %v", err)
	}
}

// work does what is due and comes back.
func (s *supervisor) work() {
	next, _ := s.own.Work(time.Duration(s.h.clock()))
	if s.armed || !s.own.Held() {
		return
	}
	s.armed = true
	s.w.after(s.h.real(nanos(next)-s.h.clock()), func() {
		s.armed = false
		s.act.post(s.work)
	})
}

func (s *supervisor) startChild() {
	if s.dead {
		return
	}
	s.term = 0
	s.child = startProcess(s)
	if s.child == nil { // the disk failed while it started
		s.w.after(s.w.between(100*ms, 300*ms), s.startChild)
	}
}

// bury is what happens when the child has ended: the address goes first.
func (s *supervisor) bury(p *process) {
	s.act.post(func() {
		if s.child != p {
			return
		}
		s.child = nil
		s.drop()
		if term := s.term; term != 0 {
			s.w.notef("%v: supervisor: the leader of term %d is dead", s.h, term)
			for _, o := range s.w.hosts {
				if id := s.h.id; o != s.h {
					s.w.net.send(s.h.n, o.n, func() {
						if o.proc != nil {
							o.proc.obituary(id, term)
						}
					})
				}
			}
		}
		s.w.after(s.w.between(100*ms, 400*ms), s.startChild)
	})
}
