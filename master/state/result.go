package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// Result is what an entry did. An op with a Code other than OK changed nothing.
type Result struct {
	Code    status.Code
	Ino     inode.Ino     // made, moved, removed or changed
	Gone    inode.Ino     // Rename: the inode that lost its name, or that took the other name (RenameExchange)
	Orphan  bool          // Remove, Rename: the inode without a name is kept for those who have it open
	Last    inode.Attr    // Remove, Rename: attributes of the inode that lost the name, after the op
	Session uint64        // SessionOpen: its number
	Count   uint32        // SetMany: inodes changed
	Inos    []inode.Ino   // Reserve: the numbers
	Chunks  []ChunkSlot   // Make, Lease, LeaseFail: the leased chunks
	Codes   []status.Code // Commit: one a file when any of them failed, else nil
	Repeat  bool          // the request had been executed before; only what Replied knows is filled in
	Effects Effects
}

// Effects is what placement must be told.
type Effects struct {
	Freed []ChunkRef // no longer part of any file
	Goal  []chunk.ID // their goal has changed
}

// ChunkRef names a chunk that was freed; no copy is above Version.
type ChunkRef struct {
	ID      chunk.ID
	Version chunk.Version
}

// ChunkSlot is one chunk of a file. While it is leased its copies are at Min or
// at Version; otherwise Min equals Version.
type ChunkSlot struct {
	Index   uint32 // number of the chunk in its file
	ID      chunk.ID
	Version chunk.Version
	Min     chunk.Version
	Valid   uint32 // bytes from here to the end of the chunk read as zeros
	Fresh   bool   // made under the lease that is open: there may be no copy yet
	Lease   uint64 // session that may write, 0: none
}

// ChunkInfo is one chunk and whose it is.
type ChunkInfo struct {
	ChunkSlot
	Ino  inode.Ino
	Goal uint8
}

// SessionInfo is one mount that the changelog knows.
type SessionInfo struct {
	ID       uint64
	Opened   int64 // nanoseconds since 1970
	Host     string
	Mount    string
	Path     string
	ReadOnly bool
}

// ServerInfo is one chunkserver that the changelog knows.
type ServerInfo struct {
	ID     chunk.Server
	Addr   string
	Labels string
	Seen   int64 // nanoseconds since 1970, when it was first seen with this address
}

// Counters of a directory: all that is below it, itself not included.
type Counters struct {
	Inodes   uint64
	Dirs     uint64
	Files    uint64
	Symlinks uint64
	Others   uint64 // fifos, sockets, devices
	Chunks   uint64
	Length   uint64 // sum of the sizes of files, bytes
	Size     uint64 // bytes in chunks: a chunk counts up to the end of the file
	Real     uint64 // Size times goal
	// By goal; index 0 is unused.
	GoalFiles [inode.GoalMax + 1]uint64
	GoalDirs  [inode.GoalMax + 1]uint64
}

// Totals of the whole file system. Orphans are included in all counts.
type Totals struct {
	Inodes   uint64
	Files    uint64
	Dirs     uint64
	Symlinks uint64
	Others   uint64
	Orphans  uint64
	Chunks   uint64
	Leases   uint64
	Length   uint64 // sum of the sizes of files, bytes
	Sessions int
	Servers  int
}
