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
// the next batch.
//
// With one or two operations in flight a ring has nothing to batch and costs two changes of
// thread; while that is the mean, ops go to a pool of two workers with plain system calls.
// File.ReadAt is a pread in the calling goroutine.
//
// State: ring, slots and backlog belong to the owner's goroutine; inbox, load, asleep, stop
// and the mean depth are atomics. There are no locks but that of the pool.
package uring
