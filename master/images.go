package master

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/owner"
	"github.com/varvefs/varve/status"
)

// images is what the loop knows of the images on disk. An image is written by a
// goroutine of its own from a frozen view, while the loop goes on.
type images struct {
	dir    string
	last   image.File
	at     time.Time // when the last one was begun
	index  uint64    // log entries when it was begun
	bytes  uint64    // of log entries applied since then
	active bool
	asked  []func(image.File, error) // who wants to know of the next one
	hurry  chan struct{}             // closed when the master stops: nobody is served any more
}

// imageRest is how many times as long as it works the writer of an image rests: the
// loop, whose callers wait, has the processors and the disk for most of the time. An
// image of ten million files takes ten seconds then instead of three, once in 256 MiB
// of changelog.
const imageRest = 2

// rest is for image.Save.
func (im *images) rest(worked time.Duration) {
	t := time.NewTimer(imageRest * worked)
	defer t.Stop()
	select {
	case <-t.C:
	case <-im.hurry:
	}
}

// openState reads the newest image, or makes the first one for an empty
// directory. The changelog goes on behind it.
func openState(dir string, now time.Time, log *slog.Logger) (*state.State, image.Meta, image.File, error) {
	if err := owner.MkdirAll(dir, 0o750); err != nil {
		return nil, image.Meta{}, image.File{}, err
	}
	st, meta, file, err := image.Load(dir, log)
	if !errors.Is(err, fs.ErrNotExist) {
		return st, meta, file, err
	}
	if logs, _ := filepath.Glob(filepath.Join(dir, "log", "*")); len(logs) > 0 {
		return nil, meta, file, fmt.Errorf("there is a changelog in %s, but no image in %s that it belongs to; "+
			"put an image.* back", filepath.Join(dir, "log"), dir)
	}
	return firstImage(dir, now)
}

// firstImage makes the image that is before the first entry of every changelog: it
// is the same with every master, and the first entries make a cluster of it.
func firstImage(dir string, now time.Time) (*state.State, image.Meta, image.File, error) {
	st := state.New(0)
	meta := image.Meta{Time: now.UnixNano()}
	view := st.Freeze()
	defer view.Release()
	file, err := image.Save(dir, view, meta, 1, nil)
	return st, meta, file, err
}

// imageTick begins an image when one is due.
func (l *loop) imageTick() {
	entries := l.index - l.images.index
	if entries == 0 || l.images.active {
		return
	}
	// A leader leaves it to a standby, which has nobody waiting, unless none does it.
	patience := 1
	if l.helm.Leading() && l.net != nil {
		patience = 2
	}
	if entries >= uint64(patience)*l.cfg.ImageEntries || l.now.Sub(l.images.at) >= time.Duration(patience)*l.cfg.ImageEvery ||
		l.images.bytes >= uint64(patience)*l.cfg.ImageBytes {
		l.saveImage(nil)
	}
}

// saveImage begins to write an image of this moment; done (may be nil) is told
// on the loop. While one is being written, done waits for the one after it.
func (l *loop) saveImage(done func(image.File, error)) {
	im := l.images
	if done != nil {
		im.asked = append(im.asked, done)
	}
	if im.active {
		return
	}
	asked := im.asked
	im.asked = nil
	im.active, im.at, im.index, im.bytes = true, l.now, l.index, 0
	view := l.st.Freeze()
	meta := image.Meta{Index: l.index, Term: l.term, Time: l.now.UnixNano()}
	cfg, in, log, met := l.cfg, l.in, l.log, l.met
	l.background.Go(func() {
		begun := time.Now()
		file, err := writeImage(cfg, view, meta, log, im.rest)
		met.imageSeconds.UpdateDuration(begun)
		in.post(func(l *loop) { l.imageSaved(file, err, time.Since(begun), asked) })
	})
}

// writeImage saves a view and then lets go of the log entries that it holds.
func writeImage(cfg Config, view *state.View, meta image.Meta, log *journal.Log, rest func(time.Duration)) (image.File, error) {
	file, err := image.Save(cfg.Dir, view, meta, cfg.ImagesKept, rest)
	view.Release()
	if err != nil {
		return file, fmt.Errorf("write image: %w", err)
	}
	// The log must still join the oldest image that is kept, should the newer
	// ones turn out to be damaged.
	all, err := image.List(cfg.Dir)
	if err != nil || len(all) == 0 {
		return file, err
	}
	return file, log.Compact(all[len(all)-1].Index)
}

// imageSaved takes note of a new image.
func (l *loop) imageSaved(file image.File, err error, took time.Duration, asked []func(image.File, error)) {
	l.images.active = false
	if err != nil {
		l.slog.Error("no image of the tree could be written; the changelog grows until one can", "err", err)
		l.images.at = l.now
	} else {
		l.images.last = file
		l.slog.Info("image written", "file", file.Path, "index", file.Index, "bytes", file.Size, "took", took.Round(time.Millisecond))
	}
	for _, done := range asked {
		done(file, err)
	}
	if len(l.images.asked) > 0 {
		l.saveImage(nil)
	}
}

// finalImage writes an image at a clean stop, so that the next start is quick.
func (l *loop) finalImage() {
	if l.index == l.images.last.Index || l.err != nil {
		return
	}
	view := l.st.Freeze()
	meta := image.Meta{Index: l.index, Term: l.term, Time: time.Now().UnixNano()}
	if _, err := writeImage(l.cfg, view, meta, l.log, nil); err != nil && status.CodeOf(err) != status.Closed {
		l.slog.Error("no image could be written at the end; the changelog has everything", "err", err)
	}
}
