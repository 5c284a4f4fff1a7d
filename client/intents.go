package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/wire"
)

// The intent log holds the early changes that the master has not logged yet. It
// is a ring in a file that is mapped into memory: what is written there survives
// the death of this process at any moment, and costs no system call. It does not
// survive the death of the machine for sure, nor need it (see early.go).
//
//	0     magic "VARVEINT"
//	8     u32 version, u32 zero
//	16    u64 session that the changes belong to; 0: none
//	24    u64 head: bytes of the ring that are done with
//	32    u64 tail: bytes of the ring that were written
//	4096  the ring, intentRing bytes
//
// A record begins at a multiple of 8: u32 bytes of the body, u32 CRC32C of the
// body, then the body: u16 kind and the fields of a wire message, with its Once. The
// length 0xffffffff says that the next record is at the start of the ring. All
// numbers are little endian. A nil log has no room, and nothing to be done with.
type intents struct {
	file *os.File
	mem  []byte
	ring []byte

	// Guarded by the mu of early.
	tail  uint64
	head  uint64
	first int      // number of ends[0]
	ends  []uint64 // where the records end; with bit 0 set: done with
}

const (
	intentMagic   = "VARVEINT"
	intentVersion = 1
	intentHeader  = 4096
	intentRing    = 8 << 20
	intentSkip    = ^uint32(0)
	intentMost    = 16 << 10 // bytes of one record
)

var intentTable = crc32.MakeTable(crc32.Castagnoli)

var errIntentsBusy = errors.New("another process has it: is this directory mounted twice?")

// openIntents opens or makes an intent log and keeps other processes out. It may
// hold changes of a process that was killed: see pending.
func openIntents(path string) (*intents, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	log, err := mapIntents(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("intent log %s: %w", path, err)
	}
	return log, nil
}

func mapIntents(f *os.File) (*intents, error) {
	fd := int(f.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errIntentsBusy
	}
	// Without blocks behind it a page of the mapping would kill the process when the disk is full.
	if err := unix.Fallocate(fd, 0, 0, intentHeader+intentRing); err != nil {
		return nil, fmt.Errorf("no room for %d MiB: %w", (intentHeader+intentRing)>>20, err)
	}
	mem, err := unix.Mmap(fd, 0, intentHeader+intentRing, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	log := &intents{file: f, mem: mem, ring: mem[intentHeader:]}
	le := binary.LittleEndian
	if string(mem[:8]) != intentMagic {
		clear(mem[:intentHeader])
		le.PutUint32(mem[8:], intentVersion)
		copy(mem, intentMagic)
	}
	if v := le.Uint32(mem[8:]); v != intentVersion {
		unix.Munmap(mem)
		return nil, fmt.Errorf("version %d is not known to this program", v)
	}
	log.head, log.tail = log.word(24).Load(), log.word(32).Load()
	return log, nil
}

// word is a number of the header.
func (l *intents) word(off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&l.mem[off]))
}

func (l *intents) close() {
	unix.Munmap(l.mem)
	l.file.Close()
}

// begin makes the log empty, for changes of a session.
func (l *intents) begin(session uint64) {
	l.word(16).Store(0)
	l.head, l.tail, l.first, l.ends = 0, 0, 0, nil
	l.word(24).Store(0)
	l.word(32).Store(0)
	l.word(16).Store(session)
}

// room says whether there is room for more records: enough for all that ask at once.
func (l *intents) room() bool { return l != nil && l.tail-l.head < intentRing*3/4 }

// add notes a change and returns its number for done. There must be room.
func (l *intents) add(m wire.Message) int {
	if l == nil {
		return -1
	}
	at := int(l.tail % intentRing)
	if left := intentRing - at; left < intentMost {
		binary.LittleEndian.PutUint32(l.ring[at:], intentSkip)
		l.tail += uint64(left)
		at = 0
	}
	body := binary.LittleEndian.AppendUint16(l.ring[at+8:at+8:at+intentMost], uint16(m.Kind()))
	body = codec.Append(body, m)
	binary.LittleEndian.PutUint32(l.ring[at:], uint32(len(body)))
	binary.LittleEndian.PutUint32(l.ring[at+4:], crc32.Checksum(body, intentTable))
	l.tail += uint64(8 + (len(body)+7)&^7)
	l.word(32).Store(l.tail)
	l.ends = append(l.ends, l.tail)
	return l.first + len(l.ends) - 1
}

// done notes that the master has logged a change.
func (l *intents) done(i int) {
	if l == nil {
		return
	}
	i -= l.first
	if i < 0 || i >= len(l.ends) {
		return // of a session that has ended
	}
	if i > 0 {
		l.ends[i] |= 1 // ends are multiples of 8
		return
	}
	for i < len(l.ends) && (i == 0 || l.ends[i]&1 != 0) {
		l.head = l.ends[i] &^ 1
		i++
	}
	l.ends = l.ends[i:]
	l.first += i
	l.word(24).Store(l.head)
}

// pending reads what a process has left: the session and its changes in order.
// Bytes that make no sense end the list.
func (l *intents) pending() (session uint64, list []wire.Message, err error) {
	session = l.word(16).Load()
	at, end := l.head, l.tail
	if end-at > intentRing || at%8 != 0 {
		return session, nil, errors.New("head and tail make no sense")
	}
	for at < end {
		m, n, e := decodeIntent(l.ring[at%intentRing:])
		if e != nil {
			return session, list, fmt.Errorf("record at byte %d: %w", at, e)
		}
		if m != nil {
			list = append(list, m)
		}
		at += n
	}
	return session, list, nil
}

// decodeIntent reads the record that b begins with and tells how many bytes it
// takes; a nil message is the rest of the ring.
func decodeIntent(b []byte) (wire.Message, uint64, error) {
	if len(b) < 8 {
		return nil, 0, errors.New("cut short")
	}
	n := binary.LittleEndian.Uint32(b)
	if n == intentSkip {
		return nil, uint64(len(b)), nil
	}
	if n < 2 || n > intentMost || int(n) > len(b)-8 {
		return nil, 0, fmt.Errorf("length %d", n)
	}
	body := b[8 : 8+n]
	if crc32.Checksum(body, intentTable) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, errors.New("wrong checksum")
	}
	var m wire.Message
	switch kind := wire.Kind(binary.LittleEndian.Uint16(body)); kind {
	case wire.KindMake:
		m = &wire.Make{}
	case wire.KindRemove:
		m = &wire.Remove{}
	case wire.KindRename:
		m = &wire.Rename{}
	case wire.KindSetAttr:
		m = &wire.SetAttr{}
	default:
		return nil, 0, fmt.Errorf("kind %#x", uint16(kind))
	}
	if err := codec.Decode(body[2:], m); err != nil {
		return nil, 0, err
	}
	return m, uint64(8 + (n+7)&^7), nil
}
