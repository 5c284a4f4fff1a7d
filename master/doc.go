// Package master is the metadata master: it holds the tree, says who may cache
// and change what, hands out leases on chunks and sees to it that every chunk
// has its copies. cmd/varve starts it; mounts, tools and chunkservers reach it
// over link.
//
// # Who owns what
//
// One goroutine, the loop (loop.go), owns everything that changes: the tree
// (package state), the places of copies (package placement), sessions, rights,
// leases and locks. Nothing of it has a mutex. The desks (desk_*.go) run on the
// connections' read goroutines: they decode a request and post it to the loop's
// inbox. Replies are written by the loop itself. Goroutines that write an image
// work on a frozen view and post their result back.
//
// # How a change goes
//
// A changing request becomes a change (change.go): its names are locked, rights
// of other mounts in its way are recalled (recall.go), then its entry joins the
// batch (batch.go). A batch is one entry of the changelog (package journal).
// Only when the log has committed it are its entries applied to the tree, and
// each request answered from the tree as it is right after its own entry. What
// was answered is therefore never lost, and nothing needs to be undone.
//
// # Several masters
//
// The changelog may be shared (quorum.go). A standby (standby.go) applies what
// the leader has logged and keeps lists of all copies. Replies of the leader
// leave only under its lease (reads.go). When leadership ends everything
// volatile is dropped and all connections are closed.
//
// # What is not in the changelog
//
// Rights, locks and the places of copies are volatile: mounts and chunkservers
// say what they hold when they come back, and a master that begins to lead waits
// for them as long as they could rely on it (grace.go).
//
// # Locks
//
// The only mutex is the inbox's; nothing is called while it is held.
package master
