package client

import (
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/inode"
)

// Config says which cluster to join and how much memory to use for it.
// Masters and Key must be set; everything else has a default.
type Config struct {
	Masters  []string // host:port of each master's client port
	Key      []byte   // the cluster key
	Path     string   // directory of the file system that becomes Root; "" is "/"
	Host     string   // name of this host, for status
	Mount    string   // mount point, for status
	Version  string   // of the program, for status
	ReadOnly bool     // refuse every change here, before it is sent

	Notify  Notifier // nil: nobody keeps copies of what this client answers
	Log     *slog.Logger
	Metrics *metrics.Set

	// Intents is the file in which changes are noted that were answered before a
	// master has logged them, so that the next process finishes them when this one
	// is killed. Empty: every change waits for the master.
	Intents string

	// NoShort reads from chunkservers of the same host over the network, too, and not from
	// their disks.
	NoShort bool

	WriteBuffer int64         // bytes of unwritten and not yet durable data; default 256 MiB
	ReadAhead   int64         // bytes read ahead of one sequential reader; default 16 MiB
	CacheBytes  int64         // bytes of file data kept; default 128 MiB
	Inodes      int           // inodes whose attributes are kept; default 262144
	MaxDirty    time.Duration // age at which unwritten data is sent; default 1 s
	Timeout     time.Duration // of one call; 0 waits for ever
}

// Notifier is told when something that was answered with a TTL is no longer
// true, so that the kernel forgets it. Its methods are called from goroutines
// of the client that hold no lock; they may block for as long as a request of
// the same kernel is in work, and what they say must have taken effect when
// they return.
type Notifier interface {
	Entry(parent inode.Ino, name string) // the name means something else now
	Attr(ino inode.Ino)                  // attributes have changed
	Data(ino inode.Ino)                  // attributes and bytes have changed
}

// Node is an inode as it was at one moment. The TTLs are more than zero only
// while a right backs them, and end with the session's lease.
type Node struct {
	Attr     inode.Attr
	EntryTTL time.Duration // how long the name may be taken for this inode
	AttrTTL  time.Duration
}

// DirEntry is one name in a directory. Reading goes on behind it with Cookie.
type DirEntry struct {
	Name   string
	Cookie uint64
	Node   Node
}

// WriteFlags modify one WriteAt.
type WriteFlags struct {
	Append bool   // write at the end of the file; the offset is ignored
	Kill   bool   // clear suid, sgid and security.capability (FUSE_WRITE_KILL_SUIDGID)
	Sync   bool   // return when it is durable, as after Sync(datasync)
	Where  *int64 // when not nil, receives the offset that was written at
}

// Modes of Allocate, as in fallocate(2).
const (
	AllocKeepSize  = 0x01
	AllocPunchHole = 0x02
	AllocZeroRange = 0x10
)

// Whence of Seek, as in lseek(2).
const (
	SeekData = 3
	SeekHole = 4
)
