// Package chunkd is the chunkserver: it keeps copies of chunks on its disks,
// serves their bytes to mounts and to other chunkservers, and carries out the
// masters' orders.
//
// cmd starts it with [Start]. It calls link for all connections, one
// segment.Store for each disk for all storage, and nothing of the master: what
// it may serve is decided by signed tokens, versions and epochs (wire/token.go,
// wire/data.go, wire/server.go).
//
// The rooms of the package:
//
//   - shelf: the disks; which one has a chunk, which one takes a new one, what
//     happens when one fails, is slow, or comes back.
//   - fence: what may still be done to a chunk: the highest epoch seen
//     (persisted), copies that are being changed by an order, copies whose
//     writer is dead.
//   - desk: requests of mounts and of other chunkservers. A write is handed to
//     the store on the connection's read goroutine, so that writes of one
//     connection keep their order; everything that waits for a disk runs in a
//     lane, a bounded crew of goroutines.
//   - lending: for mounts on this host: where bytes lie, and descriptors of the disks' files
//     for reading, which they are handed through package handover.
//   - peers: connections to the next servers of chains. There is one for each
//     address and each length of the remaining chain, so that back-pressure only
//     ever waits for a shorter chain and never in a circle.
//   - agents: one for each master: register, report, beat, serve orders.
//
// Writes. A write is forwarded first and stored second. It is answered when the
// store has accepted it and the next server has answered; with Sync when the
// store has it on disk. A next server that fails or is silent for
// Config.HopTimeout is named in the reply and never holds it longer.
//
// Fencing. An order of an epoch below the highest one seen is refused. A write
// whose epoch is old is refused when it would make a copy or raise its version:
// that is the effect of a grant that the new master may not know. A write to a
// copy that is at the lease's version already goes on, since granted I/O does
// not wait for a master; the version itself fences it. After a Digest, writes at
// that version are refused for good: the master asks because it holds the writer
// for dead, and what it compared must not change.
//
// Lock order: a shard of the fence before the store; peer.mu before link. All
// other locks are leaves. No lock is held while a network answer is waited for.
package chunkd
