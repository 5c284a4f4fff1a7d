package chunkd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// disk is one directory, or block device, with its store.
type disk struct {
	path    string
	log     *slog.Logger
	dir     os.FileInfo // the directory or device as it was opened
	id      uint64
	backend string
	eng     engine.Disk
	store   *segment.Store // nil: could not be opened
	watched chan struct{}  // closed when watch has ended
	reads   lane

	owner owner

	bad     atomic.Uint64 // damaged chunks found since start
	failure atomic.Pointer[string]
	refused atomic.Pointer[string] // why it was not taken back, last
	gone    atomic.Bool            // its directory is not there, or could not be opened: it may come back
	once    sync.Once
	closed  sync.Once
}

// owner is told what happens to a disk. lost runs once, in a goroutine of its own.
type owner interface {
	lost(*disk)
	damaged(*disk, ...chunk.ID)
}

// ok tells whether the disk serves.
func (d *disk) ok() bool { return d.failure.Load() == nil }

// check looks at an error of the store: a disk that has failed is taken out of
// service. It returns err.
func (d *disk) check(err error) error {
	if status.CodeOf(err) == status.DiskFailed {
		d.fail(err)
	}
	return err
}

func (d *disk) markFailed(err error) {
	text := err.Error()
	d.failure.CompareAndSwap(nil, &text)
}

// fail takes the disk out of service: from now on its chunks are not found.
func (d *disk) fail(err error) {
	d.once.Do(func() {
		d.markFailed(err)
		d.log.Error("disk has failed, its chunks are lost to this server", "dir", d.path, "err", err)
		go d.owner.lost(d)
	})
}

// chunks lists what the disk has, failed or not.
func (d *disk) chunks() []wire.Copy {
	var list []wire.Copy
	if d.store != nil {
		d.store.Chunks(func(id chunk.ID, info segment.Info) bool {
			list = append(list, wire.Copy{Chunk: id, Version: info.Version, Length: info.Length})
			return true
		})
	}
	return list
}

// probe notices a directory that was removed, unmounted or mounted over: open
// descriptors would go on working, and nothing would be there after a restart.
func (d *disk) probe() {
	now, err := os.Stat(d.path)
	leave := func(why error) {
		d.gone.Store(true)
		d.fail(why)
	}
	switch {
	case err != nil:
		leave(fmt.Errorf("it cannot be reached any more: %w", err))
	case !os.SameFile(now, d.dir):
		leave(errors.New("something else is in the place of what was opened"))
	default:
		if files, err := d.eng.List(); err == nil && len(files) == 0 {
			leave(errors.New("the files in the directory are gone"))
		}
	}
}

// state is what the master and the status page are told.
func (d *disk) state() wire.Disk {
	w := wire.Disk{Path: d.path, ID: d.id, Backend: d.backend, Damaged: d.bad.Load()}
	if why := d.failure.Load(); why != nil {
		w.Failed, w.Error = true, (*why)[:min(len(*why), 1024)]
		return w
	}
	sp := d.store.Space()
	w.Total, w.Used, w.Free, w.Chunks = sp.Total, sp.Used, sp.Free, sp.Chunks
	if why, slow := d.store.Slow(); slow {
		w.Slow, w.Error = true, why
	}
	sc := d.store.Scrubbed()
	w.Scrub = wire.Scrub{Passes: sc.Passes, Done: sc.Segment, All: sc.Segments, Found: sc.Found}
	if !sc.Finished.IsZero() {
		w.Scrub.Finished = sc.Finished.UnixNano()
	}
	return w
}

// watch reads what the store has to announce, until it is closed.
func (d *disk) watch() {
	defer close(d.watched)
	for e := range d.store.Events() {
		switch e.Kind {
		case segment.Damaged:
			d.log.Error("stored bytes are damaged", "dir", d.path, "chunk", e.Chunk, "err", e.Err)
			d.owner.damaged(d, e.Chunk)
		case segment.Lost:
			// Any chunk of this disk may lack its last change, and nothing else would
			// tell: all its copies are doubtful until they are replaced.
			copies := d.chunks()
			d.log.Error("a part of the log is unreadable, all copies on this disk are doubtful", "dir", d.path, "copies", len(copies), "err", e.Err)
			ids := make([]chunk.ID, len(copies))
			for i := range copies {
				ids[i] = copies[i].Chunk
			}
			d.owner.damaged(d, ids...)
		case segment.Failed:
			d.fail(e.Err)
		}
	}
}

func (d *disk) close() error {
	var err error
	d.closed.Do(func() {
		if d.store != nil {
			err = d.store.Close()
			<-d.watched
		}
		if d.eng != nil {
			err = errors.Join(err, d.eng.Close())
		}
		switch {
		case err == nil:
		case d.ok():
			err = fmt.Errorf("disk %s: %w", d.path, err)
		default: // what was to be said of it has been said
			d.log.Info("failed disk closed", "dir", d.path, "err", err)
			err = nil
		}
	})
	return err
}
