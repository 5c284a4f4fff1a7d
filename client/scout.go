package client

import (
	"context"
	"slices"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	whoWait      = 5 * time.Second        // how long a master may hold the question who leads
	scoutLongest = 250 * time.Millisecond // between two attempts to reach a master
	scoutWeary   = time.Minute            // without news of any master, after which the pauses grow
	scoutSlow    = time.Second            // how long
	scoutPause   = time.Second            // before a leader that was not wanted is asked again
)

// scout keeps a connection to one master open and asks it all the time who
// leads. A master that begins to lead answers at once: so the client hears of a
// takeover without waiting for anything, also when the old leader is silent
// instead of dead. The connection to the leader is the one the session uses.
type scout struct {
	s    *session
	addr string
}

// offer is a connection to a master that says that it leads.
type offer struct {
	conn  *link.Conn
	epoch uint64
	taken chan bool // one element; true: the session uses the connection from now on
}

// scoutFor makes sure that there is a scout for addr. used is the connection to
// it that the session has, or nil.
func (s *session) scoutFor(addr string, used *link.Conn) {
	s.mu.Lock()
	known := slices.Contains(s.scouts, addr)
	if !known {
		s.scouts = append(s.scouts, addr)
	}
	s.mu.Unlock()
	if known {
		return
	}
	sc := &scout{s, addr}
	s.c.spawn(func() { sc.run(used) })
}

// run works until the client is closed.
func (sc *scout) run(conn *link.Conn) {
	s := sc.s
	if conn != nil {
		sc.away(conn)
		s.stir()
	}
	var p pace
	said := ""
	for s.c.ctx.Err() == nil {
		begun, lived := s.c.now(), time.Duration(0)
		conn, err := s.dial(s.c.ctx, sc.addr)
		if err == nil {
			s.stir()
			err = sc.ask(conn)
			part(conn)
			s.stir()
			lived = time.Duration(s.c.now() - begun)
		}
		if s.c.ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			s.c.log.Info("master is not connected", "addr", sc.addr, "err", err, "unanswered", s.waiting())
		}
		quiet, stirs := s.quiet()
		wait := p.next(lived, quiet)
		if !p.slow() {
			stirs = nil
		}
		select {
		case <-time.After(wait):
		case <-stirs:
			p = pace{}
		case <-s.c.ctx.Done():
			return
		}
	}
}

// pace is how long a scout rests between two attempts. They follow each other
// closely at first: a master that was lost is replaced in a moment. After a long time in
// which no master was heard of they may cost next to nothing.
type pace struct{ wait time.Duration }

// next is the pause after an attempt. The connection lived for so long, 0 if there was
// none, and no master was reached or lost for quiet.
func (p *pace) next(lived, quiet time.Duration) time.Duration {
	longest := scoutLongest
	if quiet > scoutWeary {
		longest = scoutSlow
	}
	switch {
	case p.wait == 0, lived > scoutPause:
		p.wait = backoffMin
	default:
		p.wait = min(2*p.wait, longest)
	}
	return p.wait
}

// slow tells whether the pause is one of those after a long time.
func (p *pace) slow() bool { return p.wait > scoutLongest }

// stir tells all scouts that a master was reached or lost: the others are likely to
// follow, so that nobody shall rest for long.
func (s *session) stir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stirred = s.c.now()
	close(s.stirs)
	s.stirs = make(chan struct{})
}

// quiet is for how long no master was reached or lost, and what ends with that.
func (s *session) quiet() (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.c.now() - s.stirred), s.stirs
}

// away waits while the session uses a connection.
func (sc *scout) away(conn *link.Conn) {
	select {
	case <-conn.Done():
	case <-sc.s.c.ctx.Done():
	}
}

// ask asks one master until the connection is dead, and offers it while it leads.
func (sc *scout) ask(conn *link.Conn) error {
	s := sc.s
	for {
		var who wire.WhoReply
		ctx, cancel := context.WithTimeout(s.c.ctx, 2*whoWait)
		err := conn.Call(ctx, &wire.Who{WaitMillis: uint32(whoWait.Milliseconds())}, nil, &who)
		cancel()
		if err != nil {
			return err
		}
		for _, addr := range who.Masters {
			s.scoutFor(addr, nil)
		}
		if !who.Leads {
			continue
		}
		o := offer{conn, who.Epoch, make(chan bool, 1)}
		select {
		case s.offers <- o:
		case <-conn.Done():
			return conn.Err()
		case <-s.c.ctx.Done():
			return s.c.ctx.Err()
		}
		if <-o.taken {
			sc.away(conn)
			return status.Errorf(status.Closed, "the connection to %s was lost", sc.addr)
		}
		// Not wanted: the session has another connection to the same master. This one
		// may be needed as soon as that master, deposed and hung up, leads again.
		select {
		case <-time.After(scoutPause):
		case <-conn.Done():
			return conn.Err()
		case <-s.c.ctx.Done():
			return s.c.ctx.Err()
		}
	}
}

// dial connects to a master without opening a session.
func (s *session) dial(ctx context.Context, addr string) (*link.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	desk := &recallDesk{c: s.c, ended: make(chan struct{})}
	conn, err := link.Dial(ctx, "tcp", addr, s.c.linkConfig(wire.RoleMaster), desk)
	if err == nil {
		conn.SetValue(desk)
	}
	return conn, err
}

// next waits for a leader that takes the session; nil: the client is closed.
func (s *session) next(first *offer) *link.Conn {
	for {
		var o offer
		if first != nil {
			o, first = *first, nil
		} else {
			select {
			case o = <-s.offers:
			case <-s.c.ctx.Done():
				return nil
			}
		}
		if o.epoch < s.epoch.Load() {
			o.taken <- false // it was deposed and does not know yet
			continue
		}
		err := s.openOn(s.c.ctx, o.conn)
		if status.CodeOf(err) == status.Stale && o.conn.Err() == nil {
			s.lost()
			err = s.openOn(s.c.ctx, o.conn)
		}
		if err == nil {
			o.taken <- true
			return o.conn
		}
		s.c.log.Warn("the leading master does not take the session", "err", err, "unanswered", s.waiting())
		o.conn.Close()
		o.taken <- true
	}
}
