package journal

// Manual is a log that nothing drives but its caller, who is alone: there is no
// goroutine, no ticker and no timer, and everything that the goroutines of a Log
// would do happens in these methods, one step at a time. A simulation decides in
// which order. The Log's own methods may be called between two steps; Committed
// and Close may not.
//
// An error is the end of the log, as it would be with Open; Kill is what is left.
type Manual struct{ *Log }

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
	if err := m.Err(); err != nil {
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
	jobs := m.jobs
	m.jobs = nil
	return m.perform(jobs)
}

// Sync is one round of the goroutine that makes the log durable in quorum mode.
func (m *Manual) Sync() error { return m.flush() }

// End is Close.
func (m *Manual) End() error {
	m.halt()
	return m.end(true)
}

// Kill ends the log as the end of its process does: nothing is written any more.
func (m *Manual) Kill() {
	m.halt()
	if m.w.f != nil {
		_ = m.w.f.Close()
	}
	_ = m.lock.Close()
}

// Glance is Status without what takes time to find out.
func (m *Manual) Glance() Status {
	s := m.view
	s.Amnesia, s.Since = m.amnesia, m.since
	return s
}
