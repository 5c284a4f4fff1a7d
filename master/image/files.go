package image

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/owner"
)

// An image is called image. and its index in 16 hexadecimal digits.
const (
	prefix    = "image."
	tmpSuffix = ".tmp"
)

// File is one image in a directory.
type File struct {
	Path  string
	Index uint64
	Size  int64 // bytes
}

// Save writes an image into dir, atomically and durably, and removes all but the
// keep newest (at least one). A failed Save leaves the older images alone. rest,
// unless nil, is called again and again with the time that was worked since the last
// call, and may wait: whoever serves on the same processors and disk needs them too.
func Save(dir string, v *state.View, m Meta, keep int, rest func(worked time.Duration)) (File, error) {
	out := File{Path: filepath.Join(dir, fmt.Sprintf("%s%016x", prefix, m.Index)), Index: m.Index}
	tmp := out.Path + tmpSuffix
	f, err := createDirect(tmp)
	if err != nil {
		return out, fmt.Errorf("write image: %w", err)
	}
	f.rest, f.resumed = rest, time.Now()
	if err = owner.Give(f.File); err == nil {
		err = Write(f, v, m)
	}
	if err == nil {
		err = f.finish()
	}
	if info, e := f.Stat(); e == nil {
		out.Size = info.Size()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, out.Path)
	}
	if err != nil {
		_ = os.Remove(tmp) // the error that matters is the first one
		return out, fmt.Errorf("write image %s: %w", out.Path, err)
	}
	if err := syncDir(dir); err != nil {
		return out, fmt.Errorf("write image %s: %w", out.Path, err)
	}
	return out, clean(dir, max(keep, 1))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// clean removes old images and what an interrupted Save left.
func clean(dir string, keep int) error {
	list, err := List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range list[min(keep, len(list)):] {
		errs = append(errs, os.Remove(f.Path))
	}
	stale, err := filepath.Glob(filepath.Join(dir, prefix+"*"+tmpSuffix))
	errs = append(errs, err)
	for _, path := range stale {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

// List names the images of dir, newest first.
func List(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var list []File
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || len(digits) != 16 {
			continue
		}
		index, err := strconv.ParseUint(digits, 16, 64)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in the meantime
		}
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		list = append(list, File{Path: filepath.Join(dir, e.Name()), Index: index, Size: info.Size()})
	}
	slices.SortFunc(list, func(a, b File) int {
		if a.Index > b.Index {
			return -1
		}
		return 1
	})
	return list, nil
}

// Load reads the newest image of dir that is whole; those that are not are
// logged. With no image at all the error is fs.ErrNotExist; when all are damaged
// it names each.
func Load(dir string, log *slog.Logger) (*state.State, Meta, File, error) {
	list, err := List(dir)
	if err != nil {
		return nil, Meta{}, File{}, err
	}
	if len(list) == 0 {
		return nil, Meta{}, File{}, fmt.Errorf("no image in %s: %w", dir, fs.ErrNotExist)
	}
	var errs []error
	for _, f := range list {
		s, m, err := readFile(f)
		if err == nil {
			return s, m, f, nil
		}
		errs = append(errs, err)
		log.Error("image cannot be used; trying an older one", "err", err)
	}
	return nil, Meta{}, File{}, errors.Join(errs...)
}

// LoadAt reads the image of one entry.
func LoadAt(dir string, index uint64) (*state.State, Meta, File, error) {
	list, err := List(dir)
	if err != nil {
		return nil, Meta{}, File{}, err
	}
	for _, f := range list {
		if f.Index == index {
			s, m, err := readFile(f)
			return s, m, f, err
		}
	}
	return nil, Meta{}, File{}, fmt.Errorf("no image of entry %d in %s: %w", index, dir, fs.ErrNotExist)
}

// Adopt makes a file that came from elsewhere, in dir, one of its images: it is
// checked as a whole and gets its final name, durably. A damaged one is removed.
func Adopt(dir, path string) (File, Meta, error) {
	r, err := os.Open(path)
	if err != nil {
		return File{}, Meta{}, fmt.Errorf("adopt image: %w", err)
	}
	m, err := Verify(r)
	info, e := r.Stat()
	r.Close()
	if err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path) // the error that matters is the first one
		return File{}, m, fmt.Errorf("adopt image %s: %w", path, err)
	}
	out := File{Path: filepath.Join(dir, fmt.Sprintf("%s%016x", prefix, m.Index)), Index: m.Index, Size: info.Size()}
	if err := os.Rename(path, out.Path); err != nil {
		return out, m, fmt.Errorf("adopt image: %w", err)
	}
	return out, m, syncDir(dir)
}

// Prune removes all images but the keep newest (at least one) and those that are
// younger than age.
func Prune(dir string, keep int, age time.Duration) error {
	list, err := List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range list[min(max(keep, 1), len(list)):] {
		if info, err := os.Stat(f.Path); err == nil && time.Since(info.ModTime()) >= age {
			errs = append(errs, os.Remove(f.Path))
		}
	}
	return errors.Join(errs...)
}

// MetaOf reads what an image says about itself, without checking the rest.
func MetaOf(f File) (Meta, error) {
	r, err := os.Open(f.Path)
	if err != nil {
		return Meta{}, err
	}
	defer r.Close()
	d := newDecoder(r)
	var m Meta
	if err := d.header(); err != nil {
		return m, err
	}
	_, payload, err := d.block()
	if err == nil {
		err = codec.Decode(payload, &m)
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", f.Path, err)
	}
	return m, nil
}

func readFile(f File) (*state.State, Meta, error) {
	r, err := openAhead(f.Path)
	if err != nil {
		return nil, Meta{}, fmt.Errorf("read image: %w", err)
	}
	defer r.Close()
	s, m, err := Read(r)
	if err == nil && m.Index != f.Index {
		err = &DamageError{sectionMeta, fmt.Sprintf("it holds index %d, its name says %d", m.Index, f.Index)}
	}
	if err != nil {
		return nil, Meta{}, fmt.Errorf("read image %s: %w", f.Path, err)
	}
	return s, m, nil
}
