package journal

import "fmt"

// Manual is a log that nothing drives but its caller, who is alone: there is no
// goroutine, no ticker and no timer, and everything that the goroutines of a Log
// would do happens in these methods, one step at a time. A simulation decides in
// which order. The Log's own methods may be called between two steps; Committed
// and Close may not.
//
// An error is the end of the log, as it would be with Open; Kill is what is left.
type Manual struct{ *Log }

// byHand is what a Manual does instead of the goroutine that keeps the next file ready.
type byHand struct {
	next   uint64 // number of the file to make ready
	ready  bool   // it is
	spares chan uint64
}

// OpenManual is Open for a log that is driven by hand. It needs a Transport, and
// Files whose operations do not wait for anything.
func OpenManual(cfg Config) (*Manual, error) {
	cfg.manual = true
	if cfg.Transport == nil {
		panic("BUG: a log without a transport is driven by its user's calls")
	}
	l, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Manual{l}, nil
}

// Turn is what the driver does when it is woken: it takes in messages, orders and
// proposals, and does what follows from them.
func (m *Manual) Turn() error { return m.act(m.input) }

// Tick is one beat of Config.Tick.
func (m *Manual) Tick() error {
	return m.act(func() error {
		m.tick()
		return nil
	})
}

// Idle is called when nothing was written for a while.
func (m *Manual) Idle() error { return m.act(m.witness) }

func (m *Manual) act(do func() error) (err error) {
	defer m.rescue(&err)
	if err := do(); err != nil {
		return err
	}
	return m.drain()
}

// Waiting tells how many entries wait to be taken.
func (m *Manual) Waiting() int { return len(m.out) }

// Take is a read from Committed.
func (m *Manual) Take() (list []Committed, err error) {
	list = m.out
	err = m.act(func() error {
		m.taken()
		return nil
	})
	return list, err
}

// Writing tells whether there is something to write.
func (m *Manual) Writing() bool { return len(m.jobs) > 0 }

// Write is one round of the goroutine that writes: all that has come up to now.
func (m *Manual) Write() error {
	if len(m.hand.spares) == 0 {
		if err := m.spare(); err != nil {
			return err
		}
	}
	jobs := m.jobs
	m.jobs = nil
	return m.perform(jobs)
}

// spare makes the next file ready.
func (m *Manual) spare() error {
	h := &m.hand
	if !h.ready {
		if err := prepareFile(m.dir, h.next, m.cfg.FileSize); err != nil {
			return fmt.Errorf("the next file: %w", err)
		}
	}
	h.spares <- h.next
	h.next, h.ready = h.next+1, false
	return nil
}

// Sync is one round of the goroutine that makes the log durable in quorum mode.
func (m *Manual) Sync() error { return m.flush() }

// Kill ends the log as the end of its process does: nothing is written any more.
func (m *Manual) Kill() {
	m.halt()
	if m.w.f != nil {
		_ = m.w.f.Close()
	}
	_ = m.lock.Close()
}
