//go:build giouring

package uring

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// wakeID is the id of the eventfd's read; slots have the ids from 0.
const wakeID = ^uint64(0)

// retries bounds how often an op that the kernel has interrupted or put off is tried again.
const retries = 100

// owner is the goroutine that owns a ring, and what others may reach of it.
type owner struct {
	inbox  engine.Inbox
	load   atomic.Int64 // ops submitted and not done
	asleep atomic.Bool  // the owner is in the kernel, or about to be, and must be woken
	stop   atomic.Bool
	event  int // eventfd
	gone   chan struct{}
	tid    int // the owner's thread, for the self-test

	// The rest belongs to the owner's goroutine.
	ring    *ring
	slots   []slot
	free    []uint32 // indices of slots
	again   []uint32 // slots to submit once more
	backlog engine.List
	armed   bool    // the eventfd's read is in the ring
	count   *uint64 // where it reads to; on the heap by itself, the kernel has its address
}

// slot holds an op, and so its buffer, while the kernel works on it.
type slot struct {
	op    *engine.Op
	file  *File
	tries int
}

// startOwner makes a ring of that many entries, of which all but one (but at least one)
// can be in flight.
func startOwner(entries int) (*owner, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	n := max(entries-1, 1)
	o := &owner{event: event, gone: make(chan struct{}), slots: make([]slot, n), count: new(uint64)}
	for i := range n {
		o.free = append(o.free, uint32(n-1-i))
	}
	ready := make(chan error)
	go o.run(uint32(entries), ready)
	if err := <-ready; err != nil {
		unix.Close(event)
		return nil, err
	}
	return o, nil
}

// submit takes ops of an entered file, which the caller leaves only after it.
func (o *owner) submit(f *File, ops []*engine.Op) {
	o.load.Add(int64(len(ops)))
	o.inbox.Put(f, ops...)
	if o.asleep.Load() && o.asleep.CompareAndSwap(true, false) {
		o.wake()
	}
}

var one = [8]byte{0: 1} // little-endian on all that io_uring and we run on; any number wakes

// wake ends the owner's sleep. The write cannot block, so the scheduler need not know.
func (o *owner) wake() {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(o.event), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
		switch errno {
		case 0:
			return
		case unix.EINTR:
		default:
			panic(fmt.Sprintf("BUG: write to eventfd %d: %v", o.event, errno))
		}
	}
}

// close ends the owner. Every op must be done and every submit must have returned.
func (o *owner) close() {
	if o.stop.Swap(true) {
		<-o.gone
		return
	}
	o.wake()
	<-o.gone
	unix.Close(o.event)
}

// run is the owner's goroutine.
func (o *owner) run(entries uint32, ready chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if o.ring, err = newRing(entries); err != nil {
		ready <- err
		return
	}
	o.tid = unix.Gettid()
	ready <- nil
	defer close(o.gone)
	defer o.ring.close()
	for {
		o.inbox.Take(&o.backlog)
		more := o.issue()
		if o.stop.Load() && !o.armed && len(o.free) == len(o.slots) && o.backlog.Empty() {
			return
		}
		o.turn(!more)
	}
}

// issue prepares as many ops as there is room for. It reports whether the submission queue
// was too small for all that could be in flight, so that it must be called again soon.
func (o *owner) issue() (more bool) {
	if !o.armed && !o.stop.Load() {
		if !o.ring.prepareRead(o.event, o.count, wakeID) {
			return true
		}
		o.armed = true
	}
	for len(o.again) > 0 {
		i := o.again[len(o.again)-1]
		if !o.prepare(i) {
			return true
		}
		o.again = o.again[:len(o.again)-1]
	}
	for len(o.free) > 0 && !o.backlog.Empty() {
		op := o.backlog.Pop()
		f := op.Target().(*File)
		if err := op.Check(f.Size()); err != nil {
			o.finish(f, op, err)
			continue
		}
		i := o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
		o.slots[i] = slot{op: op, file: f}
		if !o.prepare(i) {
			o.again = append(o.again, i)
			return true
		}
	}
	return false
}

func (o *owner) prepare(i uint32) bool {
	s := &o.slots[i]
	return o.ring.prepare(s.op, s.file.Fd(), uint64(i))
}

// turn enters the kernel once and ends what is complete. With wait it sleeps until
// something is complete or somebody submits.
func (o *owner) turn(wait bool) {
	if wait {
		o.asleep.Store(true)
		if !o.inbox.Empty() { // it came before asleep was seen, so nobody will wake us
			wait = false
		}
	}
	err := o.ring.enter(wait)
	o.asleep.Store(false)
	if o.ring.reap(o.complete) == 0 && err != nil {
		time.Sleep(100 * time.Microsecond) // the kernel is short of memory
	}
}

// complete ends the op in slot id, or tries it again.
func (o *owner) complete(id uint64, res int32) {
	if id == wakeID {
		o.armed = false
		return
	}
	i := uint32(id)
	s := &o.slots[i]
	n, err := int(res), error(nil)
	if res < 0 {
		n, err = 0, syscall.Errno(-res)
		if (err == syscall.EINTR || err == syscall.EAGAIN) && s.tries < retries {
			s.tries++
			o.again = append(o.again, i)
			return
		}
	}
	op, f := s.op, s.file
	*s = slot{}
	o.free = append(o.free, i)
	o.finish(f, op, host.Whole(op.Kind, n, len(op.Buf), err))
}

// finish ends op and its use of the file.
func (o *owner) finish(f *File, op *engine.Op, err error) {
	o.load.Add(-1)
	op.Finish(f.Name(), err)
	f.Leave()
}
