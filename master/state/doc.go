// Package state is the metadata of the whole file system: the tree of names,
// the inodes, which chunks a file has and which of them are leased to a writer,
// the sessions and the chunkservers ever seen. It is exactly what the changelog
// describes: the same entries applied to the same state give the same state,
// the same results and the same image, byte for byte. The package has no clock,
// does no I/O, starts no goroutine and never depends on the order of a Go map.
//
// The master's loop owns a State and is the only one to call it; a State is not
// safe for concurrent use. The one exception is a View (see Freeze), which
// another goroutine may read while Apply goes on. Package image turns a View
// into a file and a file into a State. State knows chunks by number and never
// where their copies are: that is package placement's.
//
// # How it is stored
//
// Everything that grows with the number of files lives in slabs (pages.go):
// arrays in pages without pointers, indexed by 32-bit slots, so that the garbage
// collector has nothing to follow and a snapshot can share pages with the living
// state. The pages of large tables lie outside the Go heap (package offheap). What
// most inodes and chunks have alike is kept once (traits.go) or not at all. The
// records are in records.go. An inode number and a chunk number hold the slot in
// their low 32 bits and count the uses of that slot in the high 32 bits: no index
// is needed to find them and no number is ever used twice, also not when the end of
// the changelog was lost and another one begins (leap.go).
//
// A name is an edge from a directory to an inode, found through a hash index
// that grows one bucket at a time (index.go). A directory also numbers its edges
// in the order in which they were made, and a small radix tree (radix.go) leads
// from number to edge. These numbers are the cookies of ReadDir, which walks from
// the youngest to the oldest: names made after a walk began are never met by it,
// so it always ends, and removing a name moves no other one. A rename inside
// one directory keeps the number, so a walk meets the file exactly once.
//
// Each directory carries a tally, per goal, of all that is below it. An inode
// with several names counts once, where its first name is; when that goes,
// another of its names becomes the first.
package state
