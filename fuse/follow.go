package fuse

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sys/unix"
)

// follow keeps the thread that reads requests on the processor of the thread that makes
// them, as long as one thread makes one after the other. Then each of them
// always waits for the other, and to change over on one processor costs less than to
// wake another one that sleeps. (The kernel leaves both where they are: it does not know
// that they never run at once.) A caller that is somewhere else at every look, because the
// kernel moves it when it is woken, is not followed for a while. It belongs to one reader,
// who must end it before the right to read is somebody else's for good.
type follow struct {
	*following
	caller uint32 // thread whose requests come one after the other
	row    int    // so many of them since the first, or since the last look
	cpu    int    // where our thread is kept; -1: nowhere
	credit int    // of the last looks, those in vain count against the others
	rest   int    // looks to be left out
}

// following is what all readers share. nil: there is no choice of processors.
type following struct {
	where func(thread uint32) int // its processor; -1: unknown
	keep  func(cpu int) error     // our thread on that processor
	free  func() error            // our thread goes where it likes again

	looks, moves *metrics.Counter
}

const (
	followEvery = 32 // requests in a row between looks at where the caller is
	followMost  = 4  // looks in vain that end it
	followRest  = 64 // looks left out then
)

// newFollowing is for this process.
func newFollowing(set *metrics.Set) *following {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil || allowed.Count() < 2 {
		return nil
	}
	if set == nil {
		set = metrics.NewSet()
	}
	return &following{
		where: processorOf,
		keep: func(cpu int) error {
			var one unix.CPUSet
			one.Set(cpu)
			if !allowed.IsSet(cpu) {
				return unix.EINVAL
			}
			return unix.SchedSetaffinity(0, &one)
		},
		free:  func() error { return unix.SchedSetaffinity(0, &allowed) },
		looks: set.GetOrCreateCounter("varve_fuse_follow_looks_total"),
		moves: set.GetOrCreateCounter("varve_fuse_follow_moves_total"),
	}
}

// reader is the beginning of a reader's.
func (f *following) reader() follow { return follow{following: f, cpu: -1, credit: followMost} }

// near says whether our thread is kept with its caller, whom it would hold up by waiting awake.
func (f *follow) near() bool { return f.cpu >= 0 }

// next takes note of a request. The kernel sends some, like RELEASE, in nobody's name.
func (f *follow) next(thread, opcode uint32) {
	switch {
	case f.following == nil || thread == 0:
	case thread != f.caller:
		f.caller, f.row = thread, 0
		f.end()
	default:
		if f.row++; f.row >= followEvery && looksAt(opcode) {
			f.row = 0
			f.look()
		}
	}
}

// looksAt says whether the caller of such a request is surely not in execve(2). There the kernel closes
// files, and may have to write their pages first, while where the program is cannot be read: it and
// who looks for it would wait for each other for ever.
func looksAt(opcode uint32) bool {
	return opcode != opcodeFlush && opcode != opcodeWrite && opcode != opcodeSetAttr
}

// look goes to where the caller is.
func (f *follow) look() {
	if f.rest > 0 {
		f.rest--
		return
	}
	f.looks.Inc()
	cpu := f.where(f.caller)
	if cpu >= 0 && cpu == f.cpu {
		f.credit = min(f.credit+1, followMost)
		return
	}
	if f.near() {
		f.credit--
	}
	if f.credit == 0 || cpu < 0 {
		f.credit, f.rest = 1, followRest
		f.end()
		return
	}
	f.stay(cpu)
}

// stay keeps our thread on a processor.
func (f *follow) stay(cpu int) {
	if !f.near() {
		runtime.LockOSThread()
	}
	f.cpu = cpu
	f.moves.Inc()
	if f.keep(cpu) != nil {
		f.rest = followRest
		f.end()
	}
}

// end lets our thread go where it likes.
func (f *follow) end() {
	if !f.near() {
		return
	}
	f.cpu = -1
	if f.free() == nil {
		runtime.UnlockOSThread() // else the thread ends with the reader
	}
}

// processorOf is where a thread runs or ran last; -1: unknown. It waits as long as the thread is in
// execve(2), where the kernel closes files and may itself be waiting for us.
func processorOf(thread uint32) int {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", thread), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	var b [1024]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return -1
	}
	return statProcessor(b[:n])
}

// statProcessor is the field of that name in a line of proc_pid_stat(5), the 39th; -1: there is none.
// The second one is the thread's name and may hold anything.
func statProcessor(line []byte) int {
	var word []byte
	rest := bytes.TrimSpace(line[bytes.LastIndexByte(line, ')')+1:])
	for range 39 - 2 {
		word, rest, _ = bytes.Cut(rest, []byte(" "))
	}
	cpu, err := strconv.Atoi(string(word))
	if err != nil {
		return -1
	}
	return cpu
}
