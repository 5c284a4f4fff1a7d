package wire

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
)

// Disk is one directory or device of a chunkserver. Sizes are bytes.
type Disk struct {
	Path    string
	ID      uint64 // identity on the disk itself
	Total   uint64
	Used    uint64 // by live data
	Free    uint64 // for new data
	Chunks  uint64
	Backend string // uring, posix
	Failed  bool
	Error   string // why, when Failed or Slow
	Damaged uint64 // checksum errors found since start
	Slow    bool   // it answers, but far too late
	Scrub   Scrub
}

// Scrub is how far a disk has been read and checked.
type Scrub struct {
	Passes   uint32 // over the whole disk, since it was made
	Done     uint32 // segments of the pass under way
	All      uint32 // segments of the disk
	Finished int64  // the last pass, ns since 1970; 0: never
	Found    uint64 // damages, since the disk was made
}

func (s *Scrub) Fields(c *codec.Codec) {
	c.U32(&s.Passes)
	c.U32(&s.Done)
	c.U32(&s.All)
	c.I64(&s.Finished)
	c.U64(&s.Found)
}

func (d *Disk) Fields(c *codec.Codec) {
	c.Str(&d.Path, maxText)
	c.U64(&d.ID)
	c.U64(&d.Total)
	c.U64(&d.Used)
	c.U64(&d.Free)
	c.U64(&d.Chunks)
	c.Str(&d.Backend, maxText)
	c.Bool(&d.Failed)
	c.Str(&d.Error, maxText)
	c.U64(&d.Damaged)
	c.Bool(&d.Slow)
	d.Scrub.Fields(c)
}

const diskSize = 4*3 + 8*6 + 2 + 28

// Register is the first message of a chunkserver. Reports follow; the one with
// Last set ends the list, and from then on the master relies on it. Reply: RegisterReply.
type Register struct {
	Server  chunk.Server
	Addr    string // host:port of its data port, as clients can reach it
	HTTP    string // its metrics address
	Pid     uint32
	Version string
	Labels  string
	Cluster string // identity of the cluster its disks belong to; "" for new disks
	Epoch   uint64 // highest it has seen
	Disks   []Disk
}

func (*Register) Kind() Kind { return KindRegister }
func (m *Register) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Server)
	c.Str(&m.Addr, maxText)
	c.Str(&m.HTTP, maxText)
	c.U32(&m.Pid)
	c.Str(&m.Version, maxText)
	c.Str(&m.Labels, maxText)
	c.Str(&m.Cluster, maxText)
	c.U64(&m.Epoch)
	codec.List(c, &m.Disks, maxItems, diskSize, func(c *codec.Codec, d *Disk) { d.Fields(c) })
}

// RegisterReply: a server whose disks belong to another cluster is refused with an error.
type RegisterReply struct {
	Cluster    string
	Epoch      uint64
	BeatMillis uint32
}

func (*RegisterReply) Kind() Kind { return KindRegisterReply }
func (m *RegisterReply) Fields(c *codec.Codec) {
	c.Str(&m.Cluster, maxText)
	c.U64(&m.Epoch)
	c.U32(&m.BeatMillis)
}

// Copy is one chunk that a server has.
type Copy struct {
	Chunk   chunk.ID
	Version chunk.Version
	Length  uint32 // bytes up to the end of the last data
}

func (k *Copy) Fields(c *codec.Codec) {
	codec.Uint(c, &k.Chunk)
	c.U32((*uint32)(&k.Version))
	c.U32(&k.Length)
}

// Report lists copies, after Register and whenever copies appear. Reply: Empty.
type Report struct {
	Copies []Copy
	Last   bool
	// For standbys: copies that have a new version, and copies that were removed
	// by a master's order. The leader knows both from what it ordered and granted,
	// and better: what is told here may be older.
	Raised []Copy
	Gone   []chunk.ID
}

func (*Report) Kind() Kind { return KindReport }
func (m *Report) Fields(c *codec.Codec) {
	codec.List(c, &m.Copies, maxItems, 16, func(c *codec.Codec, k *Copy) { k.Fields(c) })
	c.Bool(&m.Last)
	codec.List(c, &m.Raised, maxItems, 16, func(c *codec.Codec, k *Copy) { k.Fields(c) })
	codec.List(c, &m.Gone, maxItems, 8, func(c *codec.Codec, id *chunk.ID) { codec.Uint(c, id) })
}

// Beat tells the master every second that the server lives. Rates are per second. Reply: Empty.
type Beat struct {
	Disks      []Disk
	ReadBytes  uint64
	WriteBytes uint64
	ReadOps    uint64
	WriteOps   uint64
	Errors     uint64 // since start
	Queue      uint32 // requests in work
}

func (*Beat) Kind() Kind { return KindBeat }
func (m *Beat) Fields(c *codec.Codec) {
	codec.List(c, &m.Disks, maxItems, diskSize, func(c *codec.Codec, d *Disk) { d.Fields(c) })
	c.U64(&m.ReadBytes)
	c.U64(&m.WriteBytes)
	c.U64(&m.ReadOps)
	c.U64(&m.WriteOps)
	c.U64(&m.Errors)
	c.U32(&m.Queue)
}

// Trouble tells the master of copies that are gone (their disk failed) or
// damaged (their bytes do not match their checksums). A damaged copy still
// exists and is replaced by the master. Reply: Empty.
type Trouble struct {
	Lost    []chunk.ID
	Damaged []chunk.ID
}

func (*Trouble) Kind() Kind { return KindTrouble }
func (m *Trouble) Fields(c *codec.Codec) {
	id := func(c *codec.Codec, id *chunk.ID) { codec.Uint(c, id) }
	codec.List(c, &m.Lost, maxItems, 8, id)
	codec.List(c, &m.Damaged, maxItems, 8, id)
}

// Delete orders copies to be removed if their version is at most the given one
// (Copy.Length is unused). Reply: Empty, when it is durable.
type Delete struct {
	Epoch  uint64
	Copies []Copy
}

func (*Delete) Kind() Kind { return KindDelete }
func (m *Delete) Fields(c *codec.Codec) {
	c.U64(&m.Epoch)
	codec.List(c, &m.Copies, maxItems, 16, func(c *codec.Codec, k *Copy) { k.Fields(c) })
}

// SetVersion raises a copy from a version in Min..Max to Version, durably.
// Reply: Empty.
type SetVersion struct {
	Epoch   uint64
	Chunk   chunk.ID
	Min     chunk.Version
	Max     chunk.Version
	Version chunk.Version
}

func (*SetVersion) Kind() Kind { return KindSetVersion }
func (m *SetVersion) Fields(c *codec.Codec) {
	c.U64(&m.Epoch)
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Min))
	c.U32((*uint32)(&m.Max))
	c.U32((*uint32)(&m.Version))
}

// Replicate orders a server to make a copy of a chunk from another server,
// replacing whatever copy it has. The new copy gets Version when it is whole
// and durable. Reply: Empty.
type Replicate struct {
	Epoch   uint64
	Loc     ChunkLoc // what to read, from any of Loc.Replicas
	Version chunk.Version
}

func (*Replicate) Kind() Kind { return KindReplicate }
func (m *Replicate) Fields(c *codec.Codec) {
	c.U64(&m.Epoch)
	m.Loc.Fields(c)
	c.U32((*uint32)(&m.Version))
}

// Digest asks for the state of one copy, to reconcile copies after a writer
// died. The server first makes all it has accepted durable; from then on the
// copy takes no writes at its present version (NoLease). Reply: DigestReply.
type Digest struct {
	Epoch uint64
	Chunk chunk.ID
}

func (*Digest) Kind() Kind { return KindDigest }
func (m *Digest) Fields(c *codec.Codec) {
	c.U64(&m.Epoch)
	codec.Uint(c, &m.Chunk)
}

// DigestReply: Writes counts the writes taken at Version. Blocks has one CRC32C
// of each 64 KiB up to Length (holes as zeros).
type DigestReply struct {
	Version chunk.Version
	Length  uint32
	Writes  uint64
	Blocks  []uint32
}

func (*DigestReply) Kind() Kind { return KindDigestReply }
func (m *DigestReply) Fields(c *codec.Codec) {
	c.U32((*uint32)(&m.Version))
	c.U32(&m.Length)
	c.U64(&m.Writes)
	c.U32s(&m.Blocks, maxItems)
}
