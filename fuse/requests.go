package fuse

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/VictoriaMetrics/metrics"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/buffer"
)

// requests carries the kernel's requests from /dev/fuse to the file system, the rarer ones
// through go-fuse's hands (see hot.go), and the answers back. It is ours and not go-fuse's
// for two reasons. It waits for the next request awake for a moment before it sleeps:
// waking a thread on another processor costs more than most answers. And it
// knows when the kernel has an answer, on which the order of pages rests.
//
// A request is answered by the goroutine that has read it, and one goroutine at a
// time reads; see turns.
type requests struct {
	server *gofuse.ProtocolServer
	fs     *fileSystem
	hot    bool // hotOps are carried out here
	log    *slog.Logger
	fd     int // reading it sleeps; owned
	awake  int // the same connection, and reading it never sleeps; -1: there is none

	spinner spin // of the one whose turn it is
	follow  *following
	running sync.WaitGroup // those who read or answer
	idle    chan struct{}  // hands the right to read to one who rests
	resting atomic.Int32
	ending  sync.Once
	dead    chan struct{} // closed when the connection to the kernel is: unmounted or aborted

	large sync.Pool // *frame
	small sync.Pool // *frame
}

// frame is room for a request and its answer.
type frame struct {
	in, out []byte
}

const (
	headroom   = 4096 // beyond the data: headers, the fixed part of a request or answer
	smallFrame = 8192 // holds two names, or a symbolic link's target
)

// newFrame makes a frame. A disk writes to its out, which lies in huge pages if it is large;
// in was measured to take small requests a little slower there.
func newFrame(size int) *frame {
	return &frame{in: make([]byte, size), out: buffer.Get(size)}
}

// newRequests takes over fd and answers INIT. Without hot, every request goes through server,
// which logs it if told so. spinFor is how long to wait awake, 0: not at all.
func newRequests(fd int, server *gofuse.ProtocolServer, fs *fileSystem, hot bool, spinFor time.Duration, set *metrics.Set, log *slog.Logger) (*requests, error) {
	r := &requests{
		server: server, fs: fs, hot: hot, log: log, fd: fd, awake: -1, idle: make(chan struct{}), dead: make(chan struct{}),
		large: sync.Pool{New: func() any { return newFrame(maxRequest + headroom) }},
		small: sync.Pool{New: func() any { return newFrame(smallFrame) }},
	}
	r.spinner.init(spinFor, set)
	r.follow = newFollowing(set)
	r.fs.turns.admit, r.fs.turns.pending = r.admit, r.pending
	r.fs.waits.fate, r.fs.waits.answer = fateOfThread, r.answerInterrupted
	err := r.initialize()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("handshake with the kernel: %w", err)
	}
	if spinFor > 0 && runtime.GOMAXPROCS(0) > 1 {
		if r.awake, err = cloneDevice(fd); err != nil {
			log.Debug("requests are not awaited awake", "err", err)
		}
	}
	return r, nil
}

// initialize answers the first request, INIT.
func (r *requests) initialize() error {
	b := r.large.Get().(*frame)
	defer r.large.Put(b)
	n, err := unix.Read(r.fd, b.in)
	if err != nil {
		return err
	}
	return r.answer(r.fd, b, n)
}

// cloneDevice opens /dev/fuse once more for the same connection, without sleep.
func cloneDevice(fd int) (int, error) {
	clone, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, deviceError(err)
	}
	if err := unix.IoctlSetPointerInt(clone, devClone, fd); err != nil {
		unix.Close(clone)
		return -1, fmt.Errorf("FUSE_DEV_IOC_CLONE: %w", err)
	}
	return clone, nil
}

// devClone is FUSE_DEV_IOC_CLONE, _IOR(229, 0, uint32_t).
const devClone = 0x8004e500

// serve answers until the connection ends and all requests are answered.
func (r *requests) serve() {
	r.admit()
	r.running.Wait()
	unix.Close(r.fd)
	if r.awake >= 0 {
		unix.Close(r.awake)
	}
}

// restMost is how many readers rest. What a new one costs is the growth of its stack.
const restMost = 16

// admit makes a reader, or wakes one.
func (r *requests) admit() {
	r.running.Add(1)
	select {
	case r.idle <- struct{}{}:
	default:
		go r.attend()
	}
}

// attend works whenever it is admitted, until there are enough who rest.
func (r *requests) attend() {
	for {
		r.work()
		r.running.Done()
		if r.resting.Add(1) > restMost {
			r.resting.Add(-1)
			return
		}
		select {
		case <-r.idle:
			r.resting.Add(-1)
		case <-r.dead:
			return
		}
	}
}

// work reads and answers requests, one after the other, as long as it is its turn.
func (r *requests) work() {
	beside := r.follow.reader()
	defer beside.end()
	for answered := false; ; answered = true {
		b := r.large.Get().(*frame)
		fd, n, err := r.read(b.in, answered && !beside.near())
		if err != nil {
			r.large.Put(b)
			r.ending.Do(func() { close(r.dead) })
			if !errors.Is(err, unix.ENODEV) { // which is the end of the mount
				r.log.Error("requests of the kernel cannot be read", "err", err)
			}
			return
		}
		b = r.fit(b, n)
		number, keep := uint64(0), n >= headerSize && inline(b.in[:n])
		if keep {
			number = header(b.in).Unique // which go-fuse need not leave as it is
			r.fs.turns.keep(number)
			beside.next(header(b.in).Pid, header(b.in).Opcode)
		} else {
			beside.end()
			r.fs.turns.pass()
		}
		if err := r.answer(fd, b, n); err != nil {
			r.log.Warn("an answer to the kernel", "err", err)
		}
		r.put(b)
		if !keep || !r.fs.turns.kept(number) {
			return
		}
	}
}

// read returns the next request and the descriptor that wants its answer. Who has
// just answered may wait awake: the next request is likely to come at once. Who was
// made to read because an answer has to wait sleeps, and leaves the processor to
// those that are waited for.
func (r *requests) read(b []byte, answered bool) (fd, n int, err error) {
	if answered && r.awake >= 0 && r.spinner.begin() {
		for r.spinner.more() {
			if n, err = tryRead(r.awake, b); err != unix.EAGAIN && !passing(err) {
				break
			}
		}
		r.spinner.end(err == nil)
		if n > 0 || err != nil && err != unix.EAGAIN && !passing(err) {
			return r.awake, n, err
		}
	}
	for {
		if n, err = unix.Read(r.fd, b); !passing(err) {
			return r.fd, n, err
		}
	}
}

// pending says whether the kernel has another request.
func (r *requests) pending() bool {
	p := unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN}
	n, _, e := unix.RawSyscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&p)), 1, 0)
	return e == 0 && n > 0
}

// passing says whether the next read may do better: a signal, or a request that
// was taken back meanwhile.
func passing(err error) bool { return err == unix.EINTR || err == unix.ENOENT }

// tryRead is a read that does not sleep, of which the Go scheduler need not know.
func tryRead(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// fit moves a request without much data into a small frame: it may have to wait
// long for its answer.
func (r *requests) fit(b *frame, n int) *frame {
	if n > smallFrame || hasLargeAnswer(b.in[:n]) {
		return b
	}
	s := r.small.Get().(*frame)
	copy(s.in, b.in[:n])
	r.large.Put(b)
	return s
}

func (r *requests) put(b *frame) {
	if len(b.in) == smallFrame {
		r.small.Put(b)
	} else {
		r.large.Put(b)
	}
}

// answer has a request of n bytes carried out and tells the kernel.
func (r *requests) answer(fd int, b *frame, n int) error {
	if n < headerSize {
		return fmt.Errorf("a request of %d bytes", n)
	}
	head := *header(b.in) // which the handler need not leave as it is
	interrupt := head.Opcode == opcodeInterrupt && n >= int(unsafe.Sizeof(gofuse.InterruptIn{}))
	m, done := 0, false
	switch {
	case interrupt:
		done = r.fs.waits.interruptHot((*gofuse.InterruptIn)(unsafe.Pointer(&b.in[0])).Unique)
	case r.hot:
		m, done = r.fs.answerHot(b.in[:n], b.out)
	}
	if !done {
		var code gofuse.Status
		if m, code = r.server.HandleRequest([][]byte{b.in[:n]}, [][]byte{b.out}); code != gofuse.OK {
			m = refuse(b.out, head.Unique, code)
		}
	}
	left := r.fs.waits.over(head.Unique)
	switch {
	case interrupt && m > 0:
		return r.interruptLater(b.out[:m])
	case interrupt && !done:
		r.fs.waits.interrupt((*gofuse.InterruptIn)(unsafe.Pointer(&b.in[0])).Unique)
		return nil
	case m == 0:
		return nil // FORGET and the like
	}
	var err error
	if !left {
		err = sendAnswer(fd, b.out[:m])
	}
	if head.Opcode == opcodeRead {
		r.fs.replies.sent(head.Unique)
	}
	if err != nil {
		return fmt.Errorf("%w (request %d, %d bytes)", err, head.Opcode, m)
	}
	return nil
}

// interruptLater sends the answer to an INTERRUPT whose request has not come to go-fuse yet, or is through. It
// makes the kernel send it again, if it is told on the descriptor on which it has sent the request.
func (r *requests) interruptLater(answer []byte) error {
	err := sendAnswer(r.fd, answer)
	if r.awake >= 0 {
		err = errors.Join(err, sendAnswer(r.awake, answer))
	}
	return err
}

// answerInterrupted answers a request whose handler has not returned. The kernel knows a request only on
// the descriptor on which it has sent it.
func (r *requests) answerInterrupted(request uint64) {
	var b [unsafe.Sizeof(gofuse.OutHeader{})]byte
	if err := r.interruptLater(b[:refuse(b[:], request, gofuse.EINTR)]); err != nil {
		r.log.Warn("an answer to the kernel", "err", err)
	}
}

// refuse makes an answer that is only an error, and returns its length.
func refuse(b []byte, unique uint64, code gofuse.Status) int {
	const size = int(unsafe.Sizeof(gofuse.OutHeader{}))
	*(*gofuse.OutHeader)(unsafe.Pointer(&b[0])) = gofuse.OutHeader{Length: uint32(size), Status: -int32(code), Unique: unique}
	return size
}

// quickAnswer is up to how many bytes an answer is written without a word to Go's
// scheduler: the kernel copies it and wakes the caller. Otherwise the scheduler's
// watcher (sysmon) takes the processor away from us while we are in there, now and
// then, since we run for long without a pause; to get it back takes longer than the
// answer, and what it finds makes the watcher look again every 20 us.
const quickAnswer = 64 << 10

// sendAnswer writes an answer. ENOENT is no error: nobody waits any more.
func sendAnswer(fd int, b []byte) error {
	for {
		var err error
		if len(b) <= quickAnswer {
			if _, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))); e != 0 {
				err = e
			}
		} else {
			_, err = unix.Write(fd, b)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT, err == unix.ENODEV:
			return nil
		}
		return err
	}
}

// headerSize is the length of what every request begins with.
const headerSize = int(unsafe.Sizeof(gofuse.InHeader{}))

// header is the beginning of a request of at least headerSize bytes.
func header(in []byte) *gofuse.InHeader { return (*gofuse.InHeader)(unsafe.Pointer(&in[0])) }

// Numbers of requests (enum fuse_opcode) of which more must be known here than
// go-fuse exports.
const (
	opcodeLookup      = 1
	opcodeGetAttr     = 3
	opcodeSetAttr     = 4
	opcodeMkdir       = 9
	opcodeUnlink      = 10
	opcodeRmdir       = 11
	opcodeRename      = 12
	opcodeOpen        = 14
	opcodeRead        = 15
	opcodeWrite       = 16
	opcodeRelease     = 18
	opcodeFsync       = 20
	opcodeGetXattr    = 22
	opcodeListXattr   = 23
	opcodeFlush       = 25
	opcodeReadDir     = 28
	opcodeFsyncDir    = 30
	opcodeGetLk       = 31
	opcodeSetLk       = 32
	opcodeSetLkw      = 33
	opcodeCreate      = 35
	opcodeInterrupt   = 36
	opcodeIoctl       = 39
	opcodeFallocate   = 43
	opcodeReadDirPlus = 44
	opcodeLseek       = 46
	opcodeCopyRange   = 47
)

// hasLargeAnswer says whether a request's answer may not fit a small frame.
func hasLargeAnswer(in []byte) bool {
	if len(in) < headerSize {
		return false
	}
	switch header(in).Opcode {
	case opcodeRead, opcodeReadDir, opcodeReadDirPlus, opcodeGetXattr, opcodeListXattr, opcodeIoctl:
		return true
	}
	return false
}

// inPlace is the result of a READ whose bytes lie in the buffer that go-fuse gave:
// its answer needs no copy.
type inPlace []byte

// Size, Bytes and Done make it a gofuse.ReadResult.
func (b inPlace) Size() int { return len(b) }

// Bytes is gofuse.ReadResult's.
func (b inPlace) Bytes([]byte) ([]byte, gofuse.Status) { return b, gofuse.OK }

// Done is gofuse.ReadResult's.
func (inPlace) Done() {}

// replies knows the READs of the page cache whose answers are on their way.
type replies struct {
	mu    sync.Mutex
	reads map[uint64]*pageIO // by the request's number
}

// await has io.arrived called when the kernel has the answer.
func (r *replies) await(unique uint64, io *pageIO) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reads == nil {
		r.reads = make(map[uint64]*pageIO)
	}
	r.reads[unique] = io
}

// sent is called when a READ's answer is with the kernel, or lost.
func (r *replies) sent(unique uint64) {
	r.mu.Lock()
	io := r.reads[unique]
	delete(r.reads, unique)
	r.mu.Unlock()
	if io != nil {
		io.arrived()
	}
}
