package perf

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/engine"
)

// sparseDisk is a directory in which a store of any size takes little room: of the frames
// that are written only the header gets to the disk, where it belongs; the rest of each is a
// hole. Headers, seals and checkpoints are all that recovery reads, so that it takes as long
// as that of a store that is whole. Writes are not synced: nothing here has to last.
type sparseDisk struct {
	engine.Disk
	dir   string
	seals atomic.Int64 // bytes of seals that were written

	mu    sync.Mutex
	parts []sealPart // where they are
}

// sealPart is where a seal lies.
type sealPart struct {
	file engine.File
	off  int64
	n    int
}

// readSeals tells how long the disk takes to read them, as many at a time as recovery has.
func (d *sparseDisk) readSeals() (time.Duration, error) {
	files := make(map[string]engine.File)
	for _, p := range d.parts {
		if name := p.file.Name(); files[name] == nil {
			f, err := d.Disk.Open(name)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			files[name] = f
		}
	}
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(d.parts)) && errs[i] == nil; k = next.Add(1) - 1 {
				p := d.parts[k]
				buf := engine.Alloc(p.n)
				errs[i] = files[p.file.Name()].ReadAt(buf, p.off)
				engine.Free(buf)
			}
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// Create makes containers as one hole each.
func (d *sparseDisk) Create(name string, size int64) (engine.File, error) {
	if !strings.HasPrefix(name, "segments-") {
		return d.Disk.Create(name, size)
	}
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	return d.Open(name)
}

func (d *sparseDisk) Open(name string) (engine.File, error) {
	f, err := d.Disk.Open(name)
	if err != nil || !strings.HasPrefix(name, "segments-") {
		return f, err
	}
	return &sparseFile{f, d}, nil
}

type sparseFile struct {
	engine.File
	disk *sparseDisk
}

// frameMagic begins every frame; segment/FORMAT.md.
const frameMagic = 0x46565256

func (f *sparseFile) Submit(ops ...*engine.Op) {
	for _, op := range ops {
		if op.Kind != engine.WriteSync {
			f.File.Submit(op)
			continue
		}
		part := &engine.Op{Kind: engine.Write, Buf: op.Buf, Off: op.Off}
		if binary.LittleEndian.Uint32(op.Buf) == frameMagic {
			part.Buf = op.Buf[:engine.Align]
		} else {
			f.disk.seals.Add(int64(len(op.Buf)))
			f.disk.mu.Lock()
			f.disk.parts = append(f.disk.parts, sealPart{f, op.Off, len(op.Buf)})
			f.disk.mu.Unlock()
		}
		part.Done = func(*engine.Op) {
			op.Err = part.Err
			op.Done(op)
		}
		f.File.Submit(part)
	}
}

// Zero does nothing: holes are zeros.
func (f *sparseFile) Zero(int64, int64) error { return nil }
