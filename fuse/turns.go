package fuse

import (
	"sync"
	"time"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// turns passes around the right to read requests: at any time one goroutine has
// it, and no other waits for the kernel, which would wake it for nothing. Who has
// read a request that is most likely answered from memory answers it and keeps
// the right, so that a program that calls again and again is served by one thread.
// The right is given on when the answer turns out to have to wait for something.
type turns struct {
	admit   func()      // makes another reader; called with mu held
	pending func() bool // whether the kernel has another request

	mu sync.Mutex
	// busy is the number of the request whose goroutine has the right to read and
	// answers first; 0: it reads.
	busy    uint64
	guarded bool   // the watch is on
	seen    uint64 // busy at the watch's last look
	idle    int    // looks of the watch in a row that saw nothing
	disks   int    // answers that wait for a disk of this host
	alone   int    // so many such waits in a row during which nothing else was asked
}

const (
	// watchEvery is how often the watch looks for an answer that takes long although
	// nobody has said so: for a lock, a slow system call, the processor.
	watchEvery = 5 * time.Millisecond
	watchIdle  = 20
	// aloneFrom is how many waits for a disk have to pass during which nothing else is asked,
	// until the right is kept during the next ones.
	aloneFrom = 8
)

// keep notes that the one who has the right to read answers a request first.
func (t *turns) keep(request uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came()
	t.busy = request
	if !t.guarded {
		t.guarded, t.seen, t.idle = true, 0, 0
		time.AfterFunc(watchEvery, t.watch)
	}
}

// pass gives the right on with a request that is not answered from memory.
func (t *turns) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came()
	t.admit()
}

// came notes that a request was read. mu is held.
func (t *turns) came() {
	if t.disks > 0 {
		t.alone = 0
	}
}

// kept says, after the request was answered, whether the right is still there.
func (t *turns) kept(request uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy != request {
		return false
	}
	t.busy = 0
	return true
}

// beginDisk begins a wait for a disk of this host. As long as one program reads, and waits for
// each answer, the right is kept: to make another reader, who will sleep, takes a fifth of
// the time that the disk takes. The call of another program then waits for the disk too, once,
// and no longer than until the watch has looked.
func (t *turns) beginDisk(request uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disks++
	if t.alone < aloneFrom {
		t.giveOn(request)
	}
}

// endDisk ends it, before the answer is sent: what the caller asks next does not count.
func (t *turns) endDisk(request uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disks--
	t.alone++
	if t.busy == request && t.pending() {
		t.alone = 0
	}
}

// yield gives the right on if the one who answers a request has it.
func (t *turns) yield(request uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveOn(request)
}

// giveOn is yield with mu held.
func (t *turns) giveOn(request uint64) {
	if t.busy == request {
		t.busy = 0
		t.admit()
	}
}

// watch gives the right on for those who do not.
func (t *turns) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.busy == 0:
		t.idle++
	case t.busy == t.seen:
		t.busy = 0
		t.admit()
	default:
		t.idle = 0
	}
	t.seen = t.busy
	if t.guarded = t.idle < watchIdle; t.guarded {
		time.AfterFunc(watchEvery, t.watch)
	}
}

// inline says whether a request is answered by the one who has the right to read.
// It is not when the answer surely means work: moving many bytes, or waiting.
func inline(in []byte) bool {
	if len(in) > inlineMost {
		return false
	}
	switch header(in).Opcode {
	case opcodeReadDir, opcodeReadDirPlus, opcodeFsync, opcodeFsyncDir, opcodeGetLk, opcodeSetLk, opcodeSetLkw,
		opcodeFallocate, opcodeLseek, opcodeCopyRange:
		return false
	case opcodeRead:
		return len(in) >= int(unsafe.Sizeof(gofuse.ReadIn{})) && (*gofuse.ReadIn)(unsafe.Pointer(&in[0])).Size <= inlineMost
	}
	return true
}

// inlineMost is how many bytes are moved without another one to read meanwhile.
const inlineMost = 32 << 10
