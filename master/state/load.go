package state

import (
	"fmt"

	"github.com/varvefs/varve/codec"
)

// Loader builds a State from the blocks that Save made, in the same order.
type Loader struct {
	s       *State
	out     *outline // nil before the first block
	tables  map[string]table
	widths  map[string]int
	want    map[string]uint32 // records announced
	have    map[string]uint32
	orphans uint32
}

// NewLoader makes an empty Loader.
func NewLoader() *Loader {
	s := &State{orphans: map[uint32][]uint64{}}
	s.setClock(newClock())
	l := &Loader{
		s: s, tables: map[string]table{}, widths: map[string]int{},
		want: map[string]uint32{}, have: map[string]uint32{},
	}
	for _, t := range s.tables() {
		l.tables[t.name] = t.table
		l.widths[t.name] = t.width()
	}
	return l
}

// Block takes the next block of a section.
func (l *Loader) Block(section string, block []byte) error {
	if l.out == nil {
		if section != sectionState {
			return fmt.Errorf("the first section is %q, not %q", section, sectionState)
		}
		return l.outline(block)
	}
	switch section {
	case sectionState:
		return fmt.Errorf("there are two sections %q", sectionState)
	case sectionSessions:
		ses := &session{}
		if err := codec.Decode(block, ses); err != nil {
			return err
		}
		if n := len(l.s.sessions); n > 0 && l.s.sessions[n-1].info.ID >= ses.info.ID {
			return fmt.Errorf("session %d is out of order", ses.info.ID)
		}
		l.s.sessions = append(l.s.sessions, ses)
		return nil
	case sectionServers:
		var info ServerInfo
		if err := codec.Decode(block, &info); err != nil {
			return err
		}
		if n := len(l.s.servers); n > 0 && l.s.servers[n-1].ID >= info.ID {
			return fmt.Errorf("server %s is out of order", info.ID)
		}
		l.s.servers = append(l.s.servers, info)
		return nil
	case sectionOrphans:
		return l.holds(block)
	}
	return l.records(section, block)
}

func (l *Loader) outline(block []byte) error {
	out := &outline{}
	if err := codec.Decode(block, out); err != nil {
		return err
	}
	for _, t := range out.tables {
		if l.tables[t.name] == nil {
			return fmt.Errorf("table %q is unknown; it was written by a newer version of varve", t.name)
		}
		l.want[t.name] = t.n
	}
	l.s.head = out.head
	l.s.names.count, l.s.owners.count, l.s.kinds.count = out.names, out.owners, out.kinds
	l.out = out
	return nil
}

func (l *Loader) records(section string, block []byte) error {
	t := l.tables[section]
	if t == nil {
		return fmt.Errorf("section %q is unknown", section)
	}
	n, first := len(block)/l.widths[section], l.have[section]
	if uint64(first)+uint64(n) > uint64(l.want[section]) {
		return fmt.Errorf("there are more than the announced %d records", l.want[section])
	}
	if n*l.widths[section] != len(block) {
		return fmt.Errorf("%d bytes are no whole number of records of %d", len(block), l.widths[section])
	}
	if err := t.load(block, first, uint32(n)); err != nil {
		return err
	}
	l.have[section] = first + uint32(n)
	t.setLen(l.have[section])
	return nil
}

func (l *Loader) holds(block []byte) error {
	var o orphanList
	if err := codec.Decode(block, &o); err != nil {
		return err
	}
	for i, slot := range o.slots {
		l.s.orphans[slot] = o.holds[i]
	}
	return nil
}

// Done gives the state when all blocks are there and fit together. It looks at
// every reference once but does not compare the records with each other: that is
// Check's. run runs the checks, which only read and may run side by side, and
// gives the first error.
func (l *Loader) Done(run func(checks []func() error) error) (*State, error) {
	if l.out == nil {
		return nil, fmt.Errorf("section %q is missing", sectionState)
	}
	for _, t := range l.out.tables {
		if l.have[t.name] != t.n {
			return nil, fmt.Errorf("section %q has %d of %d records", t.name, l.have[t.name], t.n)
		}
	}
	for _, c := range []struct {
		name       string
		have, want int
	}{
		{sectionSessions, len(l.s.sessions), int(l.out.sessions)},
		{sectionServers, len(l.s.servers), int(l.out.servers)},
		{sectionOrphans, len(l.s.orphans), int(l.out.orphans)},
	} {
		if c.have != c.want {
			return nil, fmt.Errorf("section %q has %d of %d records", c.name, c.have, c.want)
		}
	}
	if err := run(l.s.refChecks()); err != nil {
		return nil, err
	}
	return l.s, nil
}
