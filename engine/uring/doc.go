// Package uring is the engine's backend on io_uring, by way of giouring. Package
// engine/open chooses it where the kernel allows it and its self-test passes.
//
// giouring links only with the flag -ldflags=-checklinkname=0, so all of this package but
// Open and On needs the build tag giouring; without it they say so and the program uses
// engine/posix. giouring also has many traps; ring.go wraps the few calls that are sound
// and everything else stays away from it.
//
// Each disk has one ring, and one goroutine locked to its thread owns it: it alone fills
// the submission queue, enters the kernel and calls Done. Submitters put ops into a
// lock-free inbox and wake the owner only when it sleeps in the kernel, by an eventfd on
// which a read is kept in the ring. Each turn of the owner takes the inbox, submits and
// waits in one system call, without timers: what arrives while a batch is under way is
// the next batch. File.ReadAt does not use the ring.
//
// State: ring, slots and backlog belong to the owner's goroutine; inbox, asleep and stop
// are atomics. There are no locks.
package uring
