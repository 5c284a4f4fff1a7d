// Package client is the library through which a host uses a Varve file system:
// POSIX-like calls on inodes in front, the protocol of package wire behind.
// Package fuse is a thin layer over it; tools may use it as well.
//
// # What is kept here, and by what right
//
// The master lends rights on inodes (package inode): under R attributes,
// extended attributes, symlink targets, chunk locations and blocks of data are
// kept, under D the names in a directory and their absence, under W the size,
// the times and unwritten bytes are this client's alone. Everything hangs at a
// node of the table. A right is good while the session's lease lasts, which
// pings renew; it goes when the master recalls it.
//
// Replies of the master are installed on the read goroutine of the connection,
// in the order of the frames, and so is the mark of a recall: a grant and the
// recall that follows it can't change places. A recall that is marked makes the
// right unusable at once; a goroutine of its own then waits for the uses that
// have begun, sends and commits what was written under W, makes the kernel
// forget, and answers. A reply may bring a right that the recall has taken in
// between only if its request was made before the answer: such replies bring no
// rights (node.quarantine).
//
// What the kernel keeps is taken back through Notifier, which may block behind
// a request of the same kernel. If such a request in turn waits for a right, it
// waits for another mount, which may wait for our answer: so a recall is
// answered without waiting for the kernel while requests wait for rights on the
// inode (node.waiters) or hold the directory's lock in the kernel (dirState.busy).
//
// # Written data
//
// A write is copied into extents of at most 1 MiB (leased.dirty). Extents are
// sent when they are full, when they are Config.MaxDirty old, when memory is
// short, and by Flush, Sync and recalls. One goroutine at a time sends for a
// chunk (leased.work); what was sent stays in leased.sent until every replica
// has it on disk, so that it can be sent again when a replica fails (mend).
// Size, mtime and the end of leases are told by Commits, many files in one.
//
// # Reading
//
// What the application reads ahead of itself goes through blocks in the cache, the rest
// straight to where it is wanted. The bytes come from a disk of this host if a chunkserver
// has lent it (short.go says why they are right), else from any chunkserver (fetch).
//
// # Locks
//
// Order: node.mu, then one of table.mu, cache.mu, budget.mu, session.mu, call.encode,
// Client.taskMu, Client.laterMu, Client.runMu, readAhead.mu, servers.mu, lender.mu, lockBook.mu,
// none of which is held while another of them is taken, but for table.mu before cache.mu,
// session.mu before call.encode and lender.mu before Client.runMu. No two nodes' mu are held together.
// None of them is held while waiting for the network, for memory or for the
// kernel; node.await releases node.mu. Read goroutines of connections take them.
package client
