package wire

import "github.com/varvefs/varve/codec"

// Limits of what voters tell each other.
const (
	maxRaft    = MaxBody - 4096 // bytes of one raft message
	maxVoters  = 64
	maxMembers = 1 << 16 // bytes of a membership
)

// Raft carries messages of the changelog's replication from one voter to
// another, in order, as package raftpb encodes them. A notice: nobody answers,
// and what is lost is sent again by raft itself.
type Raft struct {
	From, To uint64
	Messages [][]byte
}

func (*Raft) Kind() Kind { return KindRaft }
func (m *Raft) Fields(c *codec.Codec) {
	c.U64(&m.From)
	c.U64(&m.To)
	codec.List(c, &m.Messages, maxItems, 4, func(c *codec.Codec, b *[]byte) { c.Bytes(b, maxRaft) })
}

// What a voter is.
const (
	VoterMaster     = 1 // holds the tree, leads and serves
	VoterMetalogger = 2 // holds the log, leads only to hand over
)

// VoterBeat is what a voter tells the others about itself: at the start of a
// connection and every second. A notice.
type VoterBeat struct {
	ID      uint64
	What    uint8  // VoterMaster, VoterMetalogger
	Name    string // of the host, for people
	Version string // of the program
	Pid     uint32
	Clients string // where it serves mounts and tools; "" for a metalogger
	Chunkds string // where it serves chunkservers
	Raft    string // where other voters reach it
	HTTP    string
	Boot    string // of the kernel it runs on: changes when the host restarts
	Founder uint64 // random, made with its log: another one is another log
	Members []byte // the membership that it knows, as package journal encodes it
	Term    uint64
	Leader  uint64 // whom it follows, 0: nobody
	Commit  uint64
	Applied uint64
	Last    uint64 // last entry of its log
	LastOf  uint64 // term of that entry
	ImageAt uint64 // index of its newest image
	Amnesia bool   // it may have lost acknowledged entries in a power cut
	Memory  uint64 // bytes
	Uptime  uint64 // ns
	Holds   bool   // its host has the virtual addresses
	Busy    uint16 // of its loop in the last second, in thousandths
}

func (*VoterBeat) Kind() Kind { return KindVoterBeat }
func (m *VoterBeat) Fields(c *codec.Codec) {
	c.U64(&m.ID)
	c.U8(&m.What)
	c.Str(&m.Name, maxText)
	c.Str(&m.Version, maxText)
	c.U32(&m.Pid)
	c.Str(&m.Clients, maxText)
	c.Str(&m.Chunkds, maxText)
	c.Str(&m.Raft, maxText)
	c.Str(&m.HTTP, maxText)
	c.Str(&m.Boot, maxText)
	c.U64(&m.Founder)
	c.Bytes(&m.Members, maxMembers)
	c.U64(&m.Term)
	c.U64(&m.Leader)
	c.U64(&m.Commit)
	c.U64(&m.Applied)
	c.U64(&m.Last)
	c.U64(&m.LastOf)
	c.U64(&m.ImageAt)
	c.Bool(&m.Amnesia)
	c.U64(&m.Memory)
	c.U64(&m.Uptime)
	c.Bool(&m.Holds)
	c.U16(&m.Busy)
}

// VoterTrouble follows a VoterBeat while there is something that an operator should
// see to. A notice; voters of older versions pass over it.
type VoterTrouble struct{ Text string }

func (*VoterTrouble) Kind() Kind              { return KindVoterTrouble }
func (m *VoterTrouble) Fields(c *codec.Codec) { c.Str(&m.Text, maxText) }

// ImageAsk asks a master or metalogger for its newest image, if that holds at
// least the entries up to Index. Reply: ImageOffer, or NotFound.
type ImageAsk struct{ Index uint64 }

func (*ImageAsk) Kind() Kind              { return KindImageAsk }
func (m *ImageAsk) Fields(c *codec.Codec) { c.U64(&m.Index) }

// ImageOffer names an image.
type ImageOffer struct {
	Index uint64
	Term  uint64
	Size  uint64 // bytes of the file
}

func (*ImageOffer) Kind() Kind { return KindImageOffer }
func (m *ImageOffer) Fields(c *codec.Codec) {
	c.U64(&m.Index)
	c.U64(&m.Term)
	c.U64(&m.Size)
}

// ImageRead asks for bytes of the image of entry Index. The reply is Empty with
// the bytes as data, fewer at the end of the file; NotFound when the image has
// been replaced by a newer one.
type ImageRead struct {
	Index  uint64
	Offset uint64
	Len    uint32 // at most MaxData
}

func (*ImageRead) Kind() Kind { return KindImageRead }
func (m *ImageRead) Fields(c *codec.Codec) {
	c.U64(&m.Index)
	c.U64(&m.Offset)
	c.U32(&m.Len)
}

// Who asks a master who leads. The answer comes when this master leads and
// serves, or after Wait, whichever is first. It needs no session.
type Who struct{ WaitMillis uint32 }

func (*Who) Kind() Kind              { return KindWho }
func (m *Who) Fields(c *codec.Codec) { c.U32(&m.WaitMillis) }

// WhoReply: Leads tells whether the master that answers leads and serves.
// Masters are the addresses of all masters for mounts and tools, as far as this
// one knows them.
type WhoReply struct {
	Leads   bool
	Epoch   uint64
	Masters []string
}

func (*WhoReply) Kind() Kind { return KindWhoReply }
func (m *WhoReply) Fields(c *codec.Codec) {
	c.Bool(&m.Leads)
	c.U64(&m.Epoch)
	codec.List(c, &m.Masters, maxVoters, 4, func(c *codec.Codec, s *string) { c.Str(s, maxText) })
}

// Lead is a master's order to a chunkserver: it leads in Epoch from now on. The
// chunkserver refuses older epochs for ever, tells this master all that it has
// not told it yet, and then answers. Reply: Empty.
type Lead struct{ Epoch uint64 }

func (*Lead) Kind() Kind              { return KindLead }
func (m *Lead) Fields(c *codec.Codec) { c.U64(&m.Epoch) }
