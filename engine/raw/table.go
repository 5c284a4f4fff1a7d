package raw

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"

	"github.com/varvefs/varve/engine"
)

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The format of the table; segment/FORMAT.md has it in words.
const (
	magic      = 0x5741524556524156 // "VARVERAW"
	version    = 1
	headerSize = engine.Align
	entrySize  = 64
	nameMax    = 48 // bytes of a file's name
	copies     = 2

	// unit is what the places of files and the sizes of the tables are multiples of, in
	// bytes: a multiple of the erase blocks and stripes that there are.
	unit = 1 << 20

	// perEntry is the size of a device for which the table has one more entry, in bytes.
	// Containers are far larger.
	perEntry = 64 << 20
	spare    = 1024 // entries on top
)

// Entry is one file of a device.
type Entry struct {
	Name string
	Off  int64 // byte of the device where it starts
	Size int64 // bytes
}

// end is the first unit behind the file.
func (e Entry) end() int64 { return roundUp(e.Off + e.Size) }

// Table says which files there are, and where.
type Table struct {
	Generation uint64
	Device     uint64 // drawn when the table was made
	Size       int64  // bytes of the device when the table was written
	Slot       int64  // bytes set aside for each copy of the table
	Files      []Entry
}

func roundUp(n int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// slotSize is what a copy of the table may take on a device of that size, in bytes.
func slotSize(device int64) int64 {
	return roundUp(headerSize + entrySize*(device/perEntry+spare))
}

// first is the place of the first file.
func (t *Table) first() int64 { return copies * t.Slot }

// room is how many files the table can have.
func (t *Table) room() int { return int(t.Slot-headerSize) / entrySize }

// sorted is the table's files in the order of their places.
func (t *Table) sorted() []Entry {
	return slices.SortedFunc(slices.Values(t.Files), func(a, b Entry) int { return cmp.Compare(a.Off, b.Off) })
}

func (t *Table) find(name string) (Entry, bool) {
	for _, e := range t.Files {
		if e.Name == name {
			return e, true
		}
	}
	return Entry{}, false
}

// encode is copy n of the table, in a buffer of engine.Alloc.
func (t *Table) encode(n int) []byte {
	size := headerSize + entrySize*len(t.Files)
	b := engine.Alloc((size + engine.Align - 1) &^ (engine.Align - 1))
	clear(b)
	entries := b[headerSize:size]
	for i, e := range t.Files {
		at := entries[i*entrySize:]
		copy(at[:nameMax], e.Name)
		le.PutUint64(at[48:], uint64(e.Off))
		le.PutUint64(at[56:], uint64(e.Size))
	}
	le.PutUint64(b[0:], magic)
	le.PutUint32(b[12:], version)
	le.PutUint64(b[16:], t.Generation)
	le.PutUint64(b[24:], uint64(t.Size))
	le.PutUint64(b[32:], uint64(t.Slot))
	le.PutUint32(b[40:], uint32(len(t.Files)))
	le.PutUint32(b[44:], crc32.Checksum(entries, castagnoli))
	le.PutUint64(b[48:], t.Device)
	le.PutUint32(b[56:], uint32(n))
	le.PutUint32(b[8:], crc32.Checksum(b[:headerSize], castagnoli))
	return b
}

var (
	errNoTable = errors.New("no table")
	errFormat  = errors.New("made by another version of varve")
)

// decodeHeader reads the header of copy n: the table without files, their number and the
// sum of their entries. It is errNoTable if that is something else.
func decodeHeader(b []byte, n int) (t Table, files uint32, sum uint32, err error) {
	if len(b) < headerSize || le.Uint64(b) != magic {
		return t, 0, 0, errNoTable
	}
	b = b[:headerSize]
	is := crc32.Checksum(b[:8], castagnoli)
	is = crc32.Update(is, castagnoli, make([]byte, 4))
	if is = crc32.Update(is, castagnoli, b[12:]); is != le.Uint32(b[8:]) {
		return t, 0, 0, fmt.Errorf("checksum of the header is %08x, it says %08x", is, le.Uint32(b[8:]))
	}
	if v := le.Uint32(b[12:]); v != version {
		return t, 0, 0, fmt.Errorf("format %d, this program knows %d: %w", v, version, errFormat)
	}
	if c := le.Uint32(b[56:]); c != uint32(n) {
		return t, 0, 0, fmt.Errorf("copy %d lies where copy %d belongs", c, n)
	}
	t = Table{Generation: le.Uint64(b[16:]), Size: int64(le.Uint64(b[24:])), Slot: int64(le.Uint64(b[32:])), Device: le.Uint64(b[48:])}
	files, sum = le.Uint32(b[40:]), le.Uint32(b[44:])
	if t.Slot < unit || t.Slot%unit != 0 || t.Size < 0 || t.Slot > t.Size/copies || uint64(files) > uint64(t.room()) || t.Generation == 0 {
		return t, 0, 0, fmt.Errorf("%d files in a table of %d bytes on a device of %d", files, t.Slot, t.Size)
	}
	return t, files, sum, nil
}

// decodeEntries reads the entries behind a header.
func (t *Table) decodeEntries(b []byte, files, sum uint32) error {
	b = b[:int(files)*entrySize]
	if is := crc32.Checksum(b, castagnoli); is != sum {
		return fmt.Errorf("checksum of %d entries is %08x, the header says %08x", files, is, sum)
	}
	for ; len(b) > 0; b = b[entrySize:] {
		name := string(bytes.TrimRight(b[:nameMax], "\x00"))
		t.Files = append(t.Files, Entry{Name: name, Off: int64(le.Uint64(b[48:])), Size: int64(le.Uint64(b[56:]))})
	}
	return t.check()
}

// check refuses files that a device cannot have: beyond its end, over one another, twice.
func (t *Table) check() error {
	names := make(map[string]bool, len(t.Files))
	at := t.first()
	for _, e := range t.sorted() {
		if err := checkName(e.Name); err != nil {
			return err
		}
		if names[e.Name] {
			return fmt.Errorf("%s is there twice", e.Name)
		}
		names[e.Name] = true
		if e.Off < at || e.Off%unit != 0 || e.Size <= 0 || e.Size%engine.Align != 0 || e.Off > t.Size || e.Size > t.Size-e.Off {
			return fmt.Errorf("%s has %d bytes at %d, which is not its own", e.Name, e.Size, e.Off)
		}
		at = e.end()
	}
	return nil
}

// checkName refuses what is not a plain, visible file name.
func checkName(name string) error {
	if name == "" || name[0] == '.' || len(name) > nameMax || bytes.ContainsAny([]byte(name), "/\x00") {
		return fmt.Errorf("%q is not a file name of at most %d bytes: %w", name, nameMax, fs.ErrInvalid)
	}
	return nil
}

// gap finds a place for size bytes on a device of that size: the smallest free one that
// is large enough, so that large ones stay whole. taken are the files, in the order of
// their places; -1 if there is no such place.
func gap(taken []Entry, first, device, size int64) int64 {
	best, bestRoom := int64(-1), int64(0)
	at := first
	for i := 0; i <= len(taken); i++ {
		end := device &^ (unit - 1)
		if i < len(taken) {
			end = taken[i].Off
		}
		if room := end - at; room >= size && (best < 0 || room < bestRoom) {
			best, bestRoom = at, room
		}
		if i < len(taken) {
			at = taken[i].end()
		}
	}
	return best
}
