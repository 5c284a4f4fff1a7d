package perf

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/varvefs/varve/engine"
	"golang.org/x/sys/unix"
)

// FailoverOptions say how to load a mounted directory while somebody else kills
// what serves it.
type FailoverOptions struct {
	Dir      string
	Workers  int           // each in a directory of its own
	Data     int           // callers that read and write a file each, past the page cache
	Keep     int           // files that a caller leaves there at most; 0: all
	Sync     int           // one change in so many is followed by a sync of the directory; 0: none
	Pace     time.Duration // pause of a worker between two changes
	Duration time.Duration
	Record   string // file to write the FailoverRecord to
}

// FailoverRecord is what the load was told: names that were acknowledged to be
// there, and names that were acknowledged to be gone, below Dir.
type FailoverRecord struct {
	Begin  time.Time     `json:"begin"`
	Done   int           `json:"done"`   // changes acknowledged
	Failed int           `json:"failed"` // changes answered with an error
	Error  string        `json:"error"`  // the first of them
	Stalls []FailoverGap `json:"stalls"` // pauses of a worker of at least stallLeast, by time
	Data   []FailoverGap `json:"data"`   // the same of the callers that read and write
	Moved  int           `json:"moved"`  // their reads and writes
	There  []string      `json:"there"`
	Gone   []string      `json:"gone"`
}

// FailoverGap is a pause between two acknowledged changes of one worker.
type FailoverGap struct {
	Worker int       `json:"worker"`
	From   time.Time `json:"from"`
	Millis float64   `json:"ms"`
}

// FailoverCheck is what became of the acknowledged changes.
type FailoverCheck struct {
	Lost     []string `json:"lost"`     // acknowledged to be there, and are not
	Returned []string `json:"returned"` // acknowledged to be gone, and are there
}

// stallLeast is the shortest pause that is noted.
const stallLeast = 4 * time.Millisecond

// Failover makes, renames and removes files until the time is over, whatever
// errors it gets, and notes what was acknowledged.
func Failover(ctx context.Context, o FailoverOptions) (*FailoverRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	r := &FailoverRecord{Begin: time.Now()}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range o.Workers {
		dir := fmt.Sprintf("w%d", w)
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o755); err != nil {
			return nil, err
		}
		wg.Go(func() {
			part := failoverWorker(ctx, o, w, dir)
			mu.Lock()
			defer mu.Unlock()
			r.Done, r.Failed = r.Done+part.Done, r.Failed+part.Failed
			if r.Error == "" {
				r.Error = part.Error
			}
			r.Stalls, r.There, r.Gone = append(r.Stalls, part.Stalls...), append(r.There, part.There...), append(r.Gone, part.Gone...)
		})
	}
	for w := range o.Data {
		f, err := dataFile(filepath.Join(o.Dir, fmt.Sprintf("data%d", w)))
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer f.Close()
			part := dataWorker(ctx, o, w, f)
			mu.Lock()
			defer mu.Unlock()
			r.Failed, r.Moved = r.Failed+part.Failed, r.Moved+part.Moved
			if r.Error == "" {
				r.Error = part.Error
			}
			r.Data = append(r.Data, part.Data...)
		})
	}
	wg.Wait()
	byTime := func(a, b FailoverGap) int { return a.From.Compare(b.From) }
	slices.SortFunc(r.Stalls, byTime)
	slices.SortFunc(r.Data, byTime)
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return r, os.WriteFile(o.Record, b, 0o644)
}

// failoverWorker runs one worker: of four files it makes, it renames two and removes one.
func failoverWorker(ctx context.Context, o FailoverOptions, w int, dir string) *FailoverRecord {
	r := &FailoverRecord{}
	there := map[string]bool{} // acknowledged to be there (true) or gone (false); names in doubt are not in it
	last := time.Now()
	change := func(do func() error) bool {
		err := do()
		now := time.Now()
		if err != nil {
			r.Failed++
			if r.Error == "" {
				r.Error = err.Error()
			}
			return false
		}
		r.Done++
		if gap := now.Sub(last) - o.Pace; gap >= stallLeast {
			r.Stalls = append(r.Stalls, FailoverGap{Worker: w, From: last, Millis: float64(gap.Microseconds()) / 1e3})
		}
		last = now
		return true
	}
	home, err := os.Open(filepath.Join(o.Dir, dir))
	if err != nil {
		r.Failed, r.Error = 1, err.Error()
		return r
	}
	defer home.Close()
	made := []string{}
	gone := func(name string) {
		delete(there, name) // in doubt
		if change(func() error { return os.Remove(filepath.Join(o.Dir, name)) }) {
			there[name] = false
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		name := filepath.Join(dir, fmt.Sprintf("f%07d", i))
		path := filepath.Join(o.Dir, name)
		if change(func() error { return makeEmpty(path) }) {
			there[name] = true
		}
		time.Sleep(o.Pace)
		if !there[name] || ctx.Err() != nil {
			continue
		}
		switch i % 4 {
		case 0, 1:
			delete(there, name)
			if change(func() error { return os.Rename(path, path+".r") }) {
				there[name], there[name+".r"] = false, true
				made = append(made, name+".r")
			}
		case 2:
			gone(name)
		default:
			made = append(made, name)
		}
		time.Sleep(o.Pace)
		if o.Keep > 0 && len(made) > o.Keep {
			gone(made[0])
			made = made[1:]
			time.Sleep(o.Pace)
		}
		if o.Sync > 0 && i%o.Sync == 0 {
			change(home.Sync)
			time.Sleep(o.Pace)
		}
	}
	for name, yes := range there {
		if yes {
			r.There = append(r.There, name)
		} else {
			r.Gone = append(r.Gone, name)
		}
	}
	return r
}

// dataSize is the size of a file that is read and written, dataPiece of one read or write.
const (
	dataSize  = 1 << 20
	dataPiece = 4096
)

// dataFile makes a file whose bytes are all there: what is read and written
// afterwards has its place already, and changes no metadata but times.
func dataFile(path string) (*os.File, error) {
	if err := os.WriteFile(path, make([]byte, dataSize), 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		err = f.Sync()
	}
	return f, err
}

// dataWorker writes and reads pieces of a file in turn.
func dataWorker(ctx context.Context, o FailoverOptions, w int, f *os.File) *FailoverRecord {
	r := &FailoverRecord{}
	buf := engine.Alloc(dataPiece)
	defer engine.Free(buf)
	last := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		off := int64(i*dataPiece) % dataSize
		var err error
		if i%2 == 0 {
			_, err = f.WriteAt(buf, off)
		} else {
			_, err = f.ReadAt(buf, off)
		}
		now := time.Now()
		switch gap := now.Sub(last) - o.Pace; {
		case err != nil:
			r.Failed++
			r.Error = cmp.Or(r.Error, err.Error())
		case i > 0 && gap >= stallLeast:
			r.Data = append(r.Data, FailoverGap{Worker: w, From: last, Millis: float64(gap.Microseconds()) / 1e3})
		}
		r.Moved++
		last = now
		time.Sleep(o.Pace)
	}
	return r
}

func makeEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// ReadFailoverRecord reads what Failover has written.
func ReadFailoverRecord(name string) (*FailoverRecord, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := new(FailoverRecord)
	return r, json.Unmarshal(b, r)
}

// Check looks for the acknowledged changes below dir, which should be a mount
// that has cached nothing.
func (r *FailoverRecord) Check(dir string) (*FailoverCheck, error) {
	c := &FailoverCheck{}
	is := func(name string) (bool, error) {
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	for _, name := range r.There {
		ok, err := is(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			c.Lost = append(c.Lost, name)
		}
	}
	for _, name := range r.Gone {
		ok, err := is(name)
		if err != nil {
			return nil, err
		}
		if ok {
			c.Returned = append(c.Returned, name)
		}
	}
	return c, nil
}

// Worst is the longest stall of a change that touches the time from..to, in milliseconds.
func (r *FailoverRecord) Worst(from, to time.Time) float64 { return Longest(r.Stalls, from, to).Millis }

// Longest is the longest of the gaps that touch the time from..to.
func Longest(gaps []FailoverGap, from, to time.Time) (worst FailoverGap) {
	for _, g := range gaps {
		if g.From.Before(to) && g.End().After(from) && g.Millis > worst.Millis {
			worst = g
		}
	}
	return worst
}

// End is when the worker went on.
func (g FailoverGap) End() time.Time {
	return g.From.Add(time.Duration(g.Millis * float64(time.Millisecond)))
}
