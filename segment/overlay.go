package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/varvefs/varve/engine"
)

// overlay is a directory or a device that is only read: what is written goes to memory and is seen by
// later reads. A store opened on it recovers as at a start, and changes nothing on disk.
type overlay struct {
	src *origin

	mu    sync.Mutex
	files map[string]*overlayFile // those that were opened or made
	gone  map[string]bool         // those that were removed
}

// overlayFile is a file of an overlay.
type overlayFile struct {
	disk *overlay
	name string
	size int64
	base *readOnly // nil: it was made here

	blocks map[int64][]byte // written blocks by number; guarded by overlay.mu
}

var (
	_ engine.Disk = (*overlay)(nil)
	_ engine.File = (*overlayFile)(nil)
)

func newOverlay(src *origin) *overlay {
	return &overlay{src: src, files: make(map[string]*overlayFile), gone: make(map[string]bool)}
}

func (o *overlay) Backend() string { return "overlay" }

func (o *overlay) Create(name string, size int64) (engine.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &overlayFile{disk: o, name: name, size: size, blocks: make(map[int64][]byte)}
	o.files[name] = f
	delete(o.gone, name)
	return f, nil
}

func (o *overlay) Open(name string) (engine.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if f := o.files[name]; f != nil {
		return f, nil
	}
	base, err := o.src.open(name)
	if err != nil {
		return nil, err
	}
	f := &overlayFile{disk: o, name: name, size: base.Size(), base: base, blocks: make(map[int64][]byte)}
	o.files[name] = f
	return f, nil
}

func (o *overlay) List() ([]string, error) {
	all, err := o.src.list()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	for _, name := range all {
		if !o.gone[name] {
			names = append(names, name)
		}
	}
	for name, f := range o.files {
		if f.base == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (o *overlay) Remove(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone[name] = true
	delete(o.files, name)
	return nil
}

func (o *overlay) Space() (total, free uint64, err error) {
	return o.src.space()
}

// Close closes the files and the origin.
func (o *overlay) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, f := range o.files {
		if f.base != nil {
			errs = append(errs, f.base.Close())
		}
	}
	o.files = make(map[string]*overlayFile)
	return errors.Join(append(errs, o.src.close())...)
}

func (f *overlayFile) Name() string { return f.name }
func (f *overlayFile) Size() int64  { return f.size }

// Close does nothing: another Open of the same name may use the file.
func (f *overlayFile) Close() error { return nil }

func (f *overlayFile) ReadAt(buf []byte, off int64) error {
	if err := engine.CheckRange(buf, off, f.size); err != nil {
		return &engine.IOError{Kind: engine.Read, Name: f.name, Off: off, Len: len(buf), Err: err}
	}
	if f.base == nil {
		clear(buf)
	} else if err := f.base.ReadAt(buf, off); err != nil {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for i := 0; len(f.blocks) > 0 && i < len(buf); i += blockSize {
		if b := f.blocks[(off+int64(i))/blockSize]; b != nil {
			copy(buf[i:], b)
		}
	}
	return nil
}

// Zero leaves alone what is zero already, so that it costs no memory.
func (f *overlayFile) Zero(int64, int64) error {
	return fmt.Errorf("%s: %w", f.name, errors.ErrUnsupported)
}

func (f *overlayFile) Submit(ops ...*engine.Op) {
	for _, op := range ops {
		go op.Finish(f.name, f.carryOut(op))
	}
}

func (f *overlayFile) carryOut(op *engine.Op) error {
	if err := op.Check(f.size); err != nil || op.Kind == engine.Sync {
		return err
	}
	if op.Kind == engine.Read {
		return f.ReadAt(op.Buf, op.Off)
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for i := 0; i < len(op.Buf); i += blockSize {
		f.blocks[(op.Off+int64(i))/blockSize] = slices.Clone(op.Buf[i : i+blockSize])
	}
	return nil
}
