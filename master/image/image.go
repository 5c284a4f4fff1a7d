// Package image keeps the metadata on disk: one file holds a whole state.State
// as it was behind one entry of the changelog. The format is in FORMAT.md.
//
// The master's loop freezes its state and hands the View to a goroutine that
// calls Save; at start the master calls Load and applies the changelog from
// Meta.Index on. The package owns the files image.* of its directory and
// nothing in memory; Save must not be called twice at the same time.
package image

import (
	"io"
	"log/slog"

	"github.com/varvefs/varve/master/state"
)

// Meta says which moment an image holds.
type Meta struct {
	Index uint64 // of the last entry of the changelog that is in it
	Term  uint64 // of that entry
	Time  int64  // when it was written, nanoseconds since 1970
}

// File is one image in a directory.
type File struct {
	Path  string
	Index uint64
	Size  int64 // bytes
}

// Write writes an image. It reads v only, so that the state may go on.
func Write(w io.Writer, v *state.View, m Meta) error { panic("not yet") }

// Read reads an image and checks all of it. Damage is a *DamageError.
func Read(r io.Reader) (*state.State, Meta, error) { panic("not yet") }

// Save writes an image into dir, atomically and durably, and removes all but the
// keep newest (at least one).
func Save(dir string, v *state.View, m Meta, keep int) (File, error) { panic("not yet") }

// Load reads the newest image of dir that is whole; those that are not are
// logged. With no image at all the error is fs.ErrNotExist.
func Load(dir string, log *slog.Logger) (*state.State, Meta, File, error) { panic("not yet") }

// List names the images of dir, newest first.
func List(dir string) ([]File, error) { panic("not yet") }

// Dump writes an image as text, a line an inode, for varve inspect image.
func Dump(w io.Writer, r io.Reader) error { panic("not yet") }

// DamageError says where an image is damaged.
type DamageError struct {
	Section string
	Reason  string
}

func (e *DamageError) Error() string {
	return "image is damaged in section " + e.Section + ": " + e.Reason
}
