package segment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/chunk"
)

// Report is what Check found. Sizes are bytes.
type Report struct {
	Dir      string   `json:"dir"`
	Disk     string   `json:"disk"`
	Server   string   `json:"server"`
	Cluster  string   `json:"cluster"`
	Chunks   uint64   `json:"chunks"`
	Live     uint64   `json:"live_bytes"`
	Capacity uint64   `json:"capacity_bytes"`
	Segments uint32   `json:"segments"`
	Damages  uint64   `json:"damages"`
	Damaged  []string `json:"damaged_chunks,omitempty"`
	Problems []string `json:"problems,omitempty"` // of the log, as sentences
	Took     float64  `json:"seconds"`
}

// Check opens the store in dir, or on a device, as a start would, reads and checks all that it holds, and
// changes nothing: what recovery writes stays in memory. The store must not be in use.
// The error is of the store as a whole; damage is in the report. at (may be nil) is
// called before each segment, of which there are so many.
func Check(dir string, at func(n, segments uint32)) (*Report, error) {
	if at == nil {
		at = func(uint32, uint32) {}
	}
	began := time.Now()
	s, done, err := openOffline(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	rep := &Report{Dir: dir}
	damaged := make(map[chunk.ID]bool)
	var reading sync.WaitGroup
	reading.Go(func() {
		for e := range s.Events() {
			if e.Kind == Damaged {
				damaged[e.Chunk] = true
			} else {
				rep.Problems = append(rep.Problems, e.Err.Error())
			}
		}
	})
	rep.Damages = s.scrubAll(at)
	id, sp := s.Identity(), s.Space()
	rep.Disk, rep.Server, rep.Cluster = fmt.Sprintf("%016x", id.Disk), id.Server.String(), id.Cluster
	rep.Chunks, rep.Live, rep.Capacity, rep.Segments = sp.Chunks, sp.Used, sp.Total, s.Scrubbed().Segments
	err = done()
	reading.Wait()
	for id := range damaged {
		rep.Damaged = append(rep.Damaged, id.String())
	}
	slices.Sort(rep.Damaged)
	rep.Damages = max(rep.Damages, uint64(len(rep.Damaged)+len(rep.Problems)))
	rep.Took = time.Since(began).Seconds()
	return rep, err
}

// openOffline opens the store in dir without changing anything on disk.
func openOffline(dir string, log *slog.Logger) (*Store, func() error, error) {
	unlock, err := lockShared(dir)
	if err != nil {
		return nil, nil, err
	}
	src, err := openOrigin(dir)
	if err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	d := newOverlay(src)
	s, err := Open(Config{Disk: d, Log: log, offline: true})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", dir, err), d.Close(), unlock())
	}
	return s, func() error { return errors.Join(s.abandon(), d.Close(), unlock()) }, nil
}

// abandon ends a store that is offline, without making anything durable.
func (s *Store) abandon() error {
	s.mu.Lock()
	s.closing = true
	close(s.stop)
	close(s.events)
	s.unlock()
	return s.closeFiles()
}

// lockShared refuses a directory or device that a chunkserver has open, and keeps it from being
// opened. A directory that was never locked, or may not be, is taken as it is.
func lockShared(dir string) (func() error, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	name, flags := dir, os.O_RDONLY
	switch {
	case info.IsDir():
		name = filepath.Join(dir, ".lock")
	case info.Mode().Type() != 0: // a block device: the kernel knows who has it
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(name, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is in use, mounted or taken by a running chunkserver; stop it first", dir)
	}
	if err != nil {
		return func() error { return nil }, nil
	}
	if flags != os.O_RDONLY {
		return f.Close, nil
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return nil, errors.Join(fmt.Errorf("%s is in use by a running chunkserver; stop it first", dir), f.Close())
	}
	return f.Close, nil
}

// These are the objects of the JSON form of InspectIndex.
type (
	chunkView struct {
		Chunk   chunk.ID      `json:"chunk"`
		Version chunk.Version `json:"version"`
		Writes  uint32        `json:"writes"`
		Length  uint32        `json:"length"`
		Extents []extentView  `json:"extents"`
	}
	extentView struct {
		Off     uint32 `json:"off"`
		Len     uint32 `json:"len"`
		Segment uint32 `json:"segment"`
		Pos     uint32 `json:"pos"`
		Zero    bool   `json:"zero,omitempty"`
	}
)

// InspectIndex prints where the bytes of each chunk of the store in dir lie, as a start
// would find it: as text, or as JSON with one object a line. only restricts it to one
// chunk, 0: all. It changes nothing.
func InspectIndex(dir string, w io.Writer, asJSON bool, only chunk.ID) error {
	s, done, err := openOffline(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	var ids []chunk.ID
	s.Chunks(func(id chunk.ID, _ Info) bool {
		if only == 0 || id == only {
			ids = append(ids, id)
		}
		return true
	})
	slices.Sort(ids)
	for _, id := range ids {
		if err = s.viewOf(id).print(w, asJSON); err != nil {
			break
		}
	}
	if only != 0 && len(ids) == 0 {
		err = fmt.Errorf("%s holds no chunk %v", dir, only)
	}
	return errors.Join(err, done())
}

func (s *Store) viewOf(id chunk.ID) *chunkView {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.index.find(id)
	v := &chunkView{Chunk: id, Version: r.version, Writes: r.writes, Length: r.length, Extents: []extentView{}}
	for _, e := range s.index.unpacked(&r.body) {
		v.Extents = append(v.Extents, extentView{e.off, e.len, e.seg, e.pos, e.zero()})
	}
	return v
}

func (v *chunkView) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(v)
	}
	if _, err := fmt.Fprintf(w, "chunk %v version %d writes %d length %d extents %d\n", v.Chunk, v.Version, v.Writes, v.Length, len(v.Extents)); err != nil {
		return err
	}
	for _, e := range v.Extents {
		what := "data"
		if e.Zero {
			what = "zero"
		}
		if _, err := fmt.Fprintf(w, "  %s %d+%d segment %d at %d\n", what, e.Off, e.Len, e.Segment, e.Pos); err != nil {
			return err
		}
	}
	return nil
}
