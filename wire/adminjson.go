package wire

// What an operator's questions are called and the JSON of their answers. Sizes
// are bytes, times are nanoseconds since 1970, rates are per second.
const (
	AskStatus    = "status"    // no arguments; Status
	AskFileInfo  = "fileinfo"  // InoArgs; FileInfo
	AskDirInfo   = "dirinfo"   // InoArgs; DirInfo
	AskCheckFile = "checkfile" // InoArgs; CheckFile
	AskPath      = "path"      // PathArgs; InoArgs
	AskGetGoal   = "getgoal"   // GoalArgs; GoalReply
	AskSetGoal   = "setgoal"   // GoalArgs; GoalReply
	AskForget    = "forget"    // ForgetArgs; ForgetReply, when the changelog no longer has the chunkserver
	AskSnapshot  = "saveimage" // no arguments; writes an image now; SaveReply
)

// What an operator asks of the quorum of masters.
const (
	AskHandover  = "handover"    // VoterArgs (ID 0: the best standby); HandoverReply, before it happens
	AskAddVoter  = "addvoter"    // VoterArgs; the same, when it is a member
	AskDropVoter = "removevoter" // VoterArgs; the same, when it is none any more
)

// VoterArgs names a master or metalogger.
type VoterArgs struct {
	ID   uint64 `json:"id"`
	Addr string `json:"addr,omitempty"` // host:port of its port for other voters
}

// HandoverReply says who is to lead next, and in which epoch the old one led.
type HandoverReply struct {
	ID    uint64 `json:"id"`
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	Epoch uint64 `json:"epoch"`
}

// ForgetArgs names a chunkserver by its identity or address.
type ForgetArgs struct {
	Server string `json:"server"`
	Force  bool   `json:"force,omitempty"` // also with the only copies of chunks
}

// ForgetReply says which chunkserver was forgotten.
type ForgetReply struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
	Lost uint64 `json:"lost"` // chunks that no other server is known to have
}

// InoArgs names an inode.
type InoArgs struct {
	Ino uint64 `json:"ino"`
}

// PathArgs is an absolute path in the file system.
type PathArgs struct {
	Path string `json:"path"`
}

// GoalArgs asks for or sets the number of copies.
type GoalArgs struct {
	Ino       uint64 `json:"ino"`
	Goal      uint8  `json:"goal,omitempty"`
	Recursive bool   `json:"recursive,omitempty"`
}

// GoalReply counts inodes by goal (asked) or says how many were changed (set).
type GoalReply struct {
	Files     map[string]uint64 `json:"files,omitempty"` // goal -> count
	Dirs      map[string]uint64 `json:"dirs,omitempty"`
	Changed   uint64            `json:"changed"`
	Unchanged uint64            `json:"unchanged"`
}

// SaveReply names the image that was written.
type SaveReply struct {
	File  string `json:"file"`
	Index uint64 `json:"index"`
	Bytes uint64 `json:"bytes"`
}

// Status is the whole cluster at a glance.
type Status struct {
	Cluster  string         `json:"cluster"`
	Version  string         `json:"version"`
	Time     int64          `json:"time"`
	Masters  []MasterStatus `json:"masters"`
	Servers  []ServerStatus `json:"servers"`
	Mounts   []MountStatus  `json:"mounts"`
	Space    SpaceStatus    `json:"space"`
	Chunks   ChunkStatus    `json:"chunks"`
	Inodes   InodeStatus    `json:"inodes"`
	Rates    RateStatus     `json:"rates"`
	Problems []string       `json:"problems"` // sentences; empty: all is well

	Failover *FailoverStatus `json:"failover,omitempty"` // how the leader came to lead; none: it is the only master
}

// FailoverStatus is how the master that leads came to do so.
type FailoverStatus struct {
	Time     int64   `json:"time"` // when it began to serve
	Epoch    uint64  `json:"epoch"`
	From     uint64  `json:"from"` // number of the leader before; 0: none is known
	FromName string  `json:"from_name"`
	To       uint64  `json:"to"`
	ToName   string  `json:"to_name"`
	Cause    string  `json:"cause"`
	Silent   float64 `json:"silent_seconds"`   // how long the leader before had not been heard when votes were asked for
	Votes    float64 `json:"election_seconds"` // from then to winning
	Ready    float64 `json:"ready_seconds"`    // from winning to serving
}

// MasterStatus is one master or metalogger. Role is leader, standby, metalogger,
// or unknown for one that has not been heard of.
type MasterStatus struct {
	ID        uint64  `json:"id"`
	Name      string  `json:"name"`
	Version   string  `json:"version"`
	Role      string  `json:"role"`
	Pid       int     `json:"pid"`
	Addr      string  `json:"addr"`
	Epoch     uint64  `json:"epoch"`
	Applied   uint64  `json:"applied"` // index of the last change applied
	Commit    uint64  `json:"commit"`  // index of the last change that it knows a majority has
	Match     uint64  `json:"match"`   // as the leader knows: it has the changelog up to here
	Lag       *uint64 `json:"lag"`     // entries that it should have applied and has not; null: nobody knows, it is down
	Raft      string  `json:"raft"`    // where other voters reach it
	Down      bool    `json:"down"`    // it does not answer
	Trouble   string  `json:"trouble,omitempty"`
	Seen      float64 `json:"seen_seconds_ago"`
	ImageAt   uint64  `json:"image_index"` // index that the newest image holds
	UptimeSec float64 `json:"uptime_seconds"`
	LoopBusy  float64 `json:"loop_busy"`     // share of the last second, 0..1
	Lease     string  `json:"lease"`         // of the leader: held, none, or alone (the only voter needs none); else empty
	LeaseLeft float64 `json:"lease_seconds"` // how long a lease that is held still lasts
	HoldsVIP  bool    `json:"holds_vip"`     // its host has the virtual addresses
	MemBytes  uint64  `json:"memory_bytes"`
}

// ServerStatus is one chunkserver. State is up or down.
type ServerStatus struct {
	ID      string       `json:"id"`
	Addr    string       `json:"addr"`
	HTTP    string       `json:"http"`
	State   string       `json:"state"`
	Pid     int          `json:"pid"`
	Version string       `json:"version"`
	Labels  string       `json:"labels"`
	Chunks  uint64       `json:"chunks"`
	Total   uint64       `json:"total_bytes"`
	Used    uint64       `json:"used_bytes"`
	Free    uint64       `json:"free_bytes"`
	Read    uint64       `json:"read_bytes_rate"`
	Written uint64       `json:"write_bytes_rate"`
	Reads   uint64       `json:"read_ops_rate"`
	Writes  uint64       `json:"write_ops_rate"`
	Errors  uint64       `json:"errors"`
	Queue   uint32       `json:"queue"`
	Seen    float64      `json:"seen_seconds_ago"`
	Disks   []DiskStatus `json:"disks"`
}

// DiskStatus is one disk of a chunkserver. State is ok, failed, slow or full.
type DiskStatus struct {
	Path    string `json:"path"`
	State   string `json:"state"`
	Error   string `json:"error,omitempty"`
	Backend string `json:"backend"`
	Total   uint64 `json:"total_bytes"`
	Used    uint64 `json:"used_bytes"`
	Free    uint64 `json:"free_bytes"`
	Chunks  uint64 `json:"chunks"`
	Damaged uint64 `json:"damaged"`

	ScrubPasses   uint32  `json:"scrub_passes"`   // since the disk was made
	ScrubProgress float64 `json:"scrub_progress"` // of the pass under way, 0..1
	ScrubFinished int64   `json:"scrub_finished"` // the last pass; 0: never
	ScrubFound    uint64  `json:"scrub_found"`    // damages, since the disk was made
}

// MountStatus is one session.
type MountStatus struct {
	Session  string  `json:"session"`
	Host     string  `json:"host"`
	Addr     string  `json:"addr"`
	Version  string  `json:"version"`
	Mount    string  `json:"mount"`
	Path     string  `json:"path"`
	ReadOnly bool    `json:"read_only"`
	State    string  `json:"state"` // connected, lost
	Open     int     `json:"open_files"`
	Rights   int     `json:"rights"`
	Seen     float64 `json:"seen_seconds_ago"`
	Ops      uint64  `json:"ops"`
}

// SpaceStatus sums up the servers that are up.
type SpaceStatus struct {
	Total uint64 `json:"total_bytes"`
	Used  uint64 `json:"used_bytes"`
	Free  uint64 `json:"free_bytes"`
}

// ChunkStatus counts chunks: Matrix[goal][copies], goals and copies 0..10 (10: 10 or more).
type ChunkStatus struct {
	Total       uint64     `json:"total"`
	Copies      uint64     `json:"copies"`
	UnderGoal   uint64     `json:"under_goal"`
	OverGoal    uint64     `json:"over_goal"`
	Missing     uint64     `json:"missing"` // no usable copy
	Damaged     uint64     `json:"damaged"` // copies reported since start
	Leased      uint64     `json:"leased"`  // open for writing
	Replicating uint64     `json:"replicating"`
	Deleting    uint64     `json:"deleting"`
	Matrix      [][]uint64 `json:"matrix"`
}

// InodeStatus counts inodes.
type InodeStatus struct {
	Total   uint64 `json:"total"`
	Files   uint64 `json:"files"`
	Dirs    uint64 `json:"dirs"`
	Orphans uint64 `json:"orphans"` // removed but open
	Bytes   uint64 `json:"bytes"`   // sum of file sizes
}

// RateStatus is what the master did in the last second.
type RateStatus struct {
	Reads   uint64 `json:"read_ops"`
	Changes uint64 `json:"changes"`
	Batches uint64 `json:"log_batches"`
}

// FileInfo tells where a file's chunks are.
type FileInfo struct {
	Ino    uint64      `json:"ino"`
	Path   string      `json:"path"`
	Size   uint64      `json:"size"`
	Goal   uint8       `json:"goal"`
	Chunks []ChunkInfo `json:"chunks"`
}

// ChunkInfo is one chunk of a file and its copies.
type ChunkInfo struct {
	Index   uint32     `json:"index"`
	ID      string     `json:"id"`
	Version uint32     `json:"version"`
	Leased  bool       `json:"leased"`
	Copies  []CopyInfo `json:"copies"`
}

// CopyInfo is one copy. State is valid, stale or damaged.
type CopyInfo struct {
	Server string `json:"server"`
	Addr   string `json:"addr"`
	State  string `json:"state"`
}

// DirInfo is what the counters of a directory tree say.
type DirInfo struct {
	Ino    uint64 `json:"ino"`
	Path   string `json:"path"`
	Inodes uint64 `json:"inodes"`
	Dirs   uint64 `json:"dirs"`
	Files  uint64 `json:"files"`
	Links  uint64 `json:"symlinks"`
	Others uint64 `json:"others"`
	Chunks uint64 `json:"chunks"`
	Length uint64 `json:"length"` // sum of file sizes
	Size   uint64 `json:"size"`   // bytes in chunks
	Real   uint64 `json:"real"`   // with all copies, by goal
}

// CheckFile counts a file's chunks by valid copies: Copies[n] chunks have n (10: 10 or more).
type CheckFile struct {
	Ino    uint64   `json:"ino"`
	Path   string   `json:"path"`
	Chunks uint64   `json:"chunks"`
	Copies []uint64 `json:"copies"`
}
