package state

import (
	"fmt"
	"maps"
	"slices"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/status"
)

// View is a State as it was when Freeze was called. Another goroutine may read
// it while the state goes on; who took it must Release it.
type View struct{ s *State }

// Freeze takes a View. It copies the lists of pages (8 bytes for 128 records)
// and the sessions; the pages are shared until they are changed.
func (s *State) Freeze() *View {
	s.clk.now++
	if s.clk.views.Load() == 0 {
		for _, t := range s.tables() {
			t.unread()
		}
	}
	s.clk.views.Add(1)
	v := *s
	v.scratch = Result{}
	for _, t := range v.tables() {
		t.freeze()
	}
	v.servers = slices.Clone(s.servers)
	v.sessions = make([]*session, len(s.sessions))
	for i, ses := range s.sessions {
		c := *ses
		c.replies = slices.Clone(ses.replies)
		c.numbers = slices.Clone(ses.numbers)
		v.sessions[i] = &c
	}
	v.orphans = maps.Clone(s.orphans)
	for slot, holds := range v.orphans {
		v.orphans[slot] = slices.Clone(holds)
	}
	return &View{s: &v}
}

// Release gives up the view. It may be called from any goroutine, once.
func (v *View) Release() {
	v.s.clk.views.Add(-1)
	v.s = nil
}

// An image is the state's sections, in this order: one block "state", the
// tables, a block for each session and server, blocks of orphans.
const (
	sectionState    = "state"
	sectionSessions = "sessions"
	sectionServers  = "servers"
	sectionOrphans  = "orphans"

	layout     = 2
	leaptFrom  = 3 // layout of a state that has leapt: it has two numbers more
	maxTables  = 256
	blockBytes = 64 << 10 // about what Save puts into one block
	blockHolds = 1024     // orphans in one block
)

// outline is the first section: everything that is one number, and how much
// follows.
type outline struct {
	layout   uint32
	head     header
	names    uint32 // records in the index
	owners   uint32
	kinds    uint32
	tables   []tableLen
	sessions uint32
	servers  uint32
	orphans  uint32
}

type tableLen struct {
	name string
	n    uint32
}

func (o *outline) Fields(c *codec.Codec) {
	c.U32(&o.layout)
	if c.Decoding() && o.layout != layout && o.layout != leaptFrom {
		c.Fail(fmt.Errorf("layout %d; this version of varve reads layouts %d and %d", o.layout, layout, leaptFrom))
		return
	}
	o.head.fields(c)
	if o.layout == leaptFrom {
		c.U64(&o.head.leapt)
		c.U32(&o.head.floor)
	}
	c.U32(&o.names)
	c.U32(&o.owners)
	c.U32(&o.kinds)
	codec.List(c, &o.tables, maxTables, 8, func(c *codec.Codec, t *tableLen) {
		c.Str(&t.name, maxName)
		c.U32(&t.n)
	})
	c.U32(&o.sessions)
	c.U32(&o.servers)
	c.U32(&o.orphans)
}

func (h *header) fields(c *codec.Codec) {
	c.I64(&h.time)
	c.U64(&h.seed)
	c.U64(&h.session)
	c.Str(&h.cluster, maxText)
	c.U64(&h.files)
	c.U64(&h.dirs)
	c.U64(&h.symlinks)
	c.U64(&h.others)
	c.U64(&h.chunks)
	c.U64(&h.length)
}

// Fields encodes and decodes a session with its replies.
func (ses *session) Fields(c *codec.Codec) {
	i := &ses.info
	c.U64(&i.ID)
	c.I64(&i.Opened)
	c.Str(&i.Host, maxText)
	c.Str(&i.Mount, maxText)
	c.Str(&i.Path, maxText)
	c.Bool(&i.ReadOnly)
	c.U64(&ses.floor)
	codec.List(c, &ses.replies, maxReplies, 35, func(c *codec.Codec, p *reply) { p.fields(c) })
	inoFields(c, &ses.numbers)
}

func (p *reply) fields(c *codec.Codec) {
	c.U64(&p.seq)
	codec.Uint(c, &p.ino)
	codec.Uint(c, &p.gone)
	c.U32(&p.count)
	c.U16((*uint16)(&p.code))
	c.Bool(&p.orphan)
	n := c.Len(len(p.codes), maxItems, 2)
	if c.Decoding() && n > 0 {
		p.codes = make([]status.Code, n)
	}
	for i := range p.codes {
		v := uint16(p.codes[i])
		c.U16(&v)
		p.codes[i] = status.Code(v)
	}
}

// Fields encodes and decodes.
func (i *ServerInfo) Fields(c *codec.Codec) {
	codec.Uint(c, &i.ID)
	c.Str(&i.Addr, maxText)
	c.Str(&i.Labels, maxText)
	c.I64(&i.Seen)
}

// orphanList is a block of orphans.
type orphanList struct {
	slots []uint32
	holds [][]uint64
}

func (o *orphanList) Fields(c *codec.Codec) {
	n := c.Len(len(o.slots), blockHolds, 8)
	if c.Decoding() {
		o.slots, o.holds = make([]uint32, n), make([][]uint64, n)
	}
	for i := range o.slots {
		c.U32(&o.slots[i])
		holdFields(c, &o.holds[i])
	}
}

// Save gives all of the view to emit in blocks, each with the name of its
// section. The bytes are good until emit returns.
func (v *View) Save(emit func(section string, block []byte) error) error {
	s := v.s
	tables := s.tables()
	o := &outline{
		layout: layout, head: s.head, names: s.names.count, owners: s.owners.count, kinds: s.kinds.count,
		sessions: uint32(len(s.sessions)), servers: uint32(len(s.servers)), orphans: uint32(len(s.orphans)),
	}
	if o.head.leapt > 0 { // before, older versions of varve can read it
		o.layout = leaptFrom
	}
	for _, t := range tables {
		o.tables = append(o.tables, tableLen{t.name, t.len()})
	}
	if err := emit(sectionState, codec.Append(nil, o)); err != nil {
		return err
	}
	buf := make([]byte, 0, blockBytes)
	for _, t := range tables {
		n := t.len()
		if n == 0 {
			continue
		}
		step := uint32(blockBytes / t.width())
		for first := uint32(0); first < n; first += min(step, n-first) {
			buf = t.save(buf[:0], first, min(step, n-first))
			if err := emit(t.name, buf); err != nil {
				return err
			}
		}
	}
	return v.saveSmall(emit)
}

// saveSmall saves what is not in tables.
func (v *View) saveSmall(emit func(section string, block []byte) error) error {
	s := v.s
	for _, ses := range s.sessions {
		if err := emit(sectionSessions, codec.Append(nil, ses)); err != nil {
			return err
		}
	}
	for i := range s.servers {
		info := s.servers[i]
		if err := emit(sectionServers, codec.Append(nil, &info)); err != nil {
			return err
		}
	}
	for slots := s.orphanSlots(); len(slots) > 0; {
		o := &orphanList{slots: slots[:min(len(slots), blockHolds)]}
		slots = slots[len(o.slots):]
		for _, slot := range o.slots {
			o.holds = append(o.holds, slices.Clone(s.orphans[slot]))
		}
		if err := emit(sectionOrphans, codec.Append(nil, o)); err != nil {
			return err
		}
	}
	return nil
}
