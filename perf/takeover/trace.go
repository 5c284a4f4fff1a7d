package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is something that a machine's log says about a failover.
type event struct {
	Ms    float64 `json:"ms"` // after the strike
	Where string  `json:"where"`
	What  string  `json:"what"`
}

// merge adds an event at the place where it belongs.
func merge(list []event, zero time.Time, e event, at time.Time) []event {
	e.Ms = float64(at.Sub(zero).Microseconds()) / 1e3
	i, _ := slices.BinarySearchFunc(list, e, func(a, b event) int { return int(1e3 * (a.Ms - b.Ms)) })
	return slices.Insert(list, i, e)
}

// telling are the lines of the logs that belong to a failover.
var telling = regexp.MustCompile(`msg="?(election|journal: |leading|this master|the master|handing|took the|dropped the|the right|all mounts|mount is back|a supervisor|another master|connected to the master|voters: |master is|chunkserver does|cannot|raft: .*(MsgVote|MsgPreVote|became|forgetting|campaign|rejected|transfer))`)

// trace reads what all machines said between two moments.
func (b *bench) trace(from, to time.Time) (list []event) {
	logs, _ := filepath.Glob(filepath.Join(b.dir, "*.log"))
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		where := strings.TrimSuffix(filepath.Base(name), ".log")
		where = strings.NewReplacer("-varve", "", "-mount", "").Replace(where)
		for s := bufio.NewScanner(f); s.Scan(); {
			at, text, ok := split(s.Text())
			if ok && !at.Before(from.Add(-time.Millisecond)) && at.Before(to) && telling.MatchString(text) {
				list = merge(list, from, event{Where: where, What: text}, at)
			}
		}
		f.Close()
	}
	return list
}

// split takes the time off a line of a log.
func split(line string) (at time.Time, text string, ok bool) {
	rest, ok := strings.CutPrefix(line, "time=")
	if !ok {
		return at, "", false
	}
	stamp, text, _ := strings.Cut(rest, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	_, text, _ = strings.Cut(text, " ") // the level
	return at, text, err == nil
}

// diskWatch syncs a page of a file again and again, to know what the disk does
// to the journals beside it.
type diskWatch struct {
	stop chan struct{}
	done chan struct{}
	mu   sync.Mutex
	all  []diskSync
}

type diskSync struct {
	at   time.Time
	took time.Duration
}

// diskPause is the time between two syncs.
const diskPause = 20 * time.Millisecond

func watchDisk(name string) (*diskWatch, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_SYNC, 0o600)
	if err != nil {
		return nil, err
	}
	d := &diskWatch{stop: make(chan struct{}), done: make(chan struct{})}
	page := make([]byte, 4096)
	go func() {
		defer close(d.done)
		defer f.Close()
		for {
			begun := time.Now()
			if _, err := f.WriteAt(page, 0); err != nil {
				return
			}
			d.mu.Lock()
			d.all = append(d.all, diskSync{begun, time.Since(begun)})
			d.mu.Unlock()
			select {
			case <-d.stop:
				return
			case <-time.After(diskPause):
			}
		}
	}()
	return d, nil
}

func (d *diskWatch) end() { close(d.stop); <-d.done }

// between gives the median and the longest sync of a time, in ms.
func (d *diskWatch) between(from, to time.Time) (median, longest float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ms []float64
	for _, s := range d.all {
		if s.at.Before(to) && s.at.Add(s.took).After(from) {
			ms = append(ms, float64(s.took.Microseconds())/1e3)
		}
	}
	if len(ms) == 0 {
		return 0, 0
	}
	slices.Sort(ms)
	return ms[len(ms)/2], ms[len(ms)-1]
}
