package raw

import (
	"errors"
	"fmt"

	"github.com/varvefs/varve/engine"
)

// Source is what a table is read from: an engine.File, or a device opened by other means.
type Source interface {
	// ReadAt fills buf from off. Both, and buf's address, are multiples of engine.Align.
	ReadAt(buf []byte, off int64) error

	// Size is the size of the device in bytes.
	Size() int64
}

// ErrBlank is what Read returns for a device that holds nothing.
var ErrBlank = errors.New("the device is empty: it holds no store")

// Read finds the newest whole copy of the table of a device. It changes nothing. A device
// that holds nothing gives ErrBlank, one that holds something else an error that says what.
func Read(src Source) (*Table, error) {
	t, _, err := read(src)
	return t, err
}

// read is Read, and tells which copies are whole and the newest.
func read(src Source) (best *Table, whole [copies]bool, err error) {
	var errs []error
	ours := false
	slot := slotSize(src.Size())
	for n := range copies {
		t, err := readCopy(src, n, int64(n)*slot)
		switch {
		case errors.Is(err, errFormat):
			return nil, whole, fmt.Errorf("copy %d of the table: %w", n, err)
		case errors.Is(err, errNoTable):
			continue
		case err != nil:
			ours = true
			errs = append(errs, fmt.Errorf("copy %d: %w", n, err))
			continue
		}
		if n == 0 {
			slot = t.Slot // the device may have grown since
		}
		switch {
		case best == nil || t.Generation > best.Generation:
			best, whole = t, [copies]bool{}
			fallthrough
		case t.Generation == best.Generation:
			whole[n] = true
		}
	}
	switch {
	case best != nil && best.Size > src.Size():
		return nil, whole, fmt.Errorf("the device has %d bytes, its table was made for %d: a part of it is missing", src.Size(), best.Size)
	case best != nil:
		return best, whole, nil
	case ours:
		return nil, whole, fmt.Errorf("no whole copy of the table: %w", errors.Join(errs...))
	}
	if what, err := foreign(src); err != nil {
		return nil, whole, err
	} else if what != "" {
		return nil, whole, fmt.Errorf("the device holds %s: not overwriting it; if nothing on it is needed, clear it with 'wipefs -a' and zeros over its first %d MiB", what, copies*slot/unit)
	}
	return nil, whole, ErrBlank
}

// readCopy reads copy n of the table at off.
func readCopy(src Source, n int, off int64) (*Table, error) {
	if off > src.Size()-headerSize {
		return nil, errNoTable
	}
	head := engine.Alloc(headerSize)
	defer engine.Free(head)
	if err := src.ReadAt(head, off); err != nil {
		return nil, err
	}
	t, files, sum, err := decodeHeader(head, n)
	if err != nil {
		return nil, err
	}
	if int64(n)*t.Slot != off || off > src.Size()-t.Slot {
		return nil, fmt.Errorf("it lies at %d, but tables have %d bytes", off, t.Slot)
	}
	size := (int(files)*entrySize + engine.Align - 1) &^ (engine.Align - 1)
	if size == 0 {
		return &t, t.decodeEntries(nil, 0, sum)
	}
	b := engine.Alloc(size)
	defer engine.Free(b)
	if err := src.ReadAt(b, off+headerSize); err != nil {
		return nil, err
	}
	return &t, t.decodeEntries(b, files, sum)
}

// signature is a mark by which something else on a device is known. The list serves only
// to name it: whatever is not zero in the first MiB is something else.
type signature struct {
	off  int64 // from the end if negative
	mark string
	what string
}

var signatures = []signature{
	{0x200, "EFI PART", "a partition table (GPT)"}, {0x1000, "EFI PART", "a partition table (GPT)"},
	{-0x200, "EFI PART", "the second copy of a partition table (GPT)"}, {-0x1000, "EFI PART", "the second copy of a partition table (GPT)"},
	{0x438, "\x53\xef", "an ext2, ext3 or ext4 file system"},
	{0, "XFSB", "an XFS file system"},
	{0x10040, "_BHRfS_M", "a Btrfs file system"},
	{0x218, "LVM2 001", "an LVM physical volume"}, {0x18, "LVM2 001", "an LVM physical volume"},
	{0, "LUKS\xba\xbe", "an encrypted volume (LUKS)"},
	{0xff6, "SWAPSPACE2", "swap space"}, {0xff6, "SWAP-SPACE", "swap space"},
	{0, "\xfc\x4e\x2b\xa9", "a member of an md RAID"}, {0x1000, "\xfc\x4e\x2b\xa9", "a member of an md RAID"},
	{-0x2000, "\xfc\x4e\x2b\xa9", "a member of an md RAID"}, {-0x10000, "\xfc\x4e\x2b\xa9", "a member of an md RAID"},
	{-0x20000, "\xfc\x4e\x2b\xa9", "a member of an md RAID"},
	{0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"},
	{0, "bluestore block device", "a Ceph OSD"},
	{3, "NTFS    ", "an NTFS file system"},
	{0x52, "FAT32   ", "a FAT file system"}, {0x36, "FAT1", "a FAT file system"},
	{0x400, "\x10\x20\xf5\xf2", "an F2FS file system"},
	{0, "hsqs", "a SquashFS file system"},
	{0x8001, "CD001", "an ISO 9660 file system"},
	{0x1fe, "\x55\xaa", "a boot sector or partition table"},
}

// foreign says what a device holds that has no table; "" if nothing: its first MiB is zero
// and there is no mark at its end.
func foreign(src Source) (string, error) {
	n := min(int64(unit), src.Size()&^(engine.Align-1))
	head, tail := engine.Alloc(int(n)), engine.Alloc(int(n))
	defer engine.Free(head)
	defer engine.Free(tail)
	if err := src.ReadAt(head, 0); err != nil {
		return "", err
	}
	if err := src.ReadAt(tail, src.Size()&^(engine.Align-1)-n); err != nil {
		return "", err
	}
	for _, s := range signatures {
		b, off := head, s.off
		if off < 0 {
			b, off = tail, off+n
		}
		if off >= 0 && off+int64(len(s.mark)) <= n && string(b[off:off+int64(len(s.mark))]) == s.mark {
			return s.what, nil
		}
	}
	for i, c := range head {
		if c != 0 {
			return fmt.Sprintf("unknown data (byte %d is not zero)", i), nil
		}
	}
	return "", nil
}
