// Package fuse translates between the kernel's file system protocol and the
// client library: it mounts, answers every request of the kernel from a
// client.Client, and tells the kernel what to forget when the client says so.
// The mount command uses it; nobody else imports it.
//
// It keeps no truth of its own. A node id is an inode number (the mount's root
// is node 1 whatever directory of the file system it shows), so that an inode
// which was merely looked up costs nothing here. State exists only for what is
// open (handles.go, inodes.go) and for directories with a request in work
// (dirs.go).
//
// The mount itself is made here with mount(2) on an own /dev/fuse descriptor
// (device.go). requests.go reads requests from it, one goroutine at a time
// (turns.go), which waits awake for the next one for a moment when it has just
// answered (spin.go), or stays on the processor of a caller that calls again and again
// (follow.go). Those that programs make by the thousand are taken apart and answered in hot.go,
// the others by go-fuse; both call the methods of fileSystem. A duplicate of the descriptor carries notifications that
// go-fuse cannot send (notify.go).
//
// Whoever waits here for something, in a handler, says so before (client.Waits, or
// turns.yield): the kernel's next request may be what ends the waiting.
//
// A program that waits is let go when it is killed (waits.go). A handler whose request may have changed
// something asks at its end whether anybody hears its answer (request.killed).
//
// Locks, in the order in which they may be taken: inode.mu or dirs.mu, then
// nothing; client locks, then turns.mu or waits.mu. None is held during a call of the client or
// a notification.
package fuse
