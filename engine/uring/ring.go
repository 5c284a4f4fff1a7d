//go:build giouring

package uring

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
)

// ring is the sound part of giouring. Only the thread that made it may use it. What is
// avoided and why: Prepare functions leave fields of the entry's last use behind, so each
// entry is zeroed first; RWF_DSYNC has no parameter and is set by hand; timeouts, files
// and ring descriptors registered through giouring do not work; user data is a number,
// never a pointer that the collector would not see.
type ring struct {
	r *giouring.Ring
}

// setups are the flags to try, best first: task work only when the owner enters (6.1),
// no interrupts for task work (5.19), none.
var setups = []uint32{
	giouring.SetupSubmitAll | giouring.SetupSingleIssuer | giouring.SetupDeferTaskrun,
	giouring.SetupSubmitAll | giouring.SetupCoopTaskrun,
	0,
}

// newRing makes a ring of that many entries for the calling thread.
func newRing(entries uint32) (*ring, error) {
	var err error
	for _, flags := range setups {
		r := giouring.NewRing()
		if err = r.QueueInit(entries, flags); err == nil {
			return &ring{r}, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return nil, fmt.Errorf("io_uring_setup: %w", err)
}

// close gives the ring back. Nothing may be in flight.
func (r *ring) close() { r.r.QueueExit() }

// entry returns a clean submission entry; nil when the queue is full until the next enter.
func (r *ring) entry() *giouring.SubmissionQueueEntry {
	sqe := r.r.GetSQE()
	if sqe != nil {
		*sqe = giouring.SubmissionQueueEntry{}
	}
	return sqe
}

// prepare queues op for descriptor fd; false when the queue is full. The caller keeps op,
// and so its buffer, reachable until the completion.
func (r *ring) prepare(op *engine.Op, fd int, id uint64) bool {
	sqe := r.entry()
	if sqe == nil {
		return false
	}
	addr, n := uintptr(unsafe.Pointer(unsafe.SliceData(op.Buf))), uint32(len(op.Buf))
	switch op.Kind {
	case engine.Read:
		sqe.PrepareRead(fd, addr, n, uint64(op.Off))
	case engine.Write:
		sqe.PrepareWrite(fd, addr, n, uint64(op.Off))
	case engine.WriteSync:
		sqe.PrepareWrite(fd, addr, n, uint64(op.Off))
		sqe.OpcodeFlags = unix.RWF_DSYNC
	case engine.Sync:
		sqe.PrepareFsync(fd, giouring.FsyncDatasync)
	default:
		panic(fmt.Sprintf("BUG: %v reached the ring", op.Kind))
	}
	sqe.UserData = id
	return true
}

// prepareRead queues a read of an eventfd into count; false when the queue is full.
func (r *ring) prepareRead(fd int, count *uint64, id uint64) bool {
	sqe := r.entry()
	if sqe == nil {
		return false
	}
	sqe.PrepareRead(fd, uintptr(unsafe.Pointer(count)), uint32(unsafe.Sizeof(*count)), 0)
	sqe.UserData = id
	return true
}

// enter submits what is prepared and collects completions, waiting for one if wait is
// set. It may submit less than all and return without a completion; calling it again is
// always right. An error is one that goes away by itself.
func (r *ring) enter(wait bool) error {
	var err error
	if wait {
		_, err = r.r.SubmitAndWait(1)
	} else {
		_, err = r.r.SubmitAndGetEvents()
	}
	switch {
	case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.ETIME):
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOMEM):
		return err
	}
	// The kernel no longer knows our ring, or somebody else used it. What is in flight
	// still writes to and reads from buffers that could never again be given back.
	panic(fmt.Sprintf("BUG: io_uring_enter: %v", err))
}

// reap passes on every completion that is there and returns their number. each may
// prepare new entries.
func (r *ring) reap(each func(id uint64, res int32)) int {
	n := 0
	r.r.ForEachCQE(func(cqe *giouring.CompletionQueueEvent) {
		n++ // more may arrive meanwhile: count what was passed on, not what was there
		each(cqe.UserData, cqe.Res)
	})
	r.r.CQAdvance(uint32(n))
	return n
}
