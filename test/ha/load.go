package ha

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// loadVariable makes the test binary a load.
const loadVariable = "VARVE_HA_LOAD"

// loadOrder is what the load is told.
type loadOrder struct {
	Mounts  []string // of one file system; workers are spread over them
	Out     string   // file for the history
	Stop    string   // it ends when this file is there
	Workers int
	Seed    uint64
}

// Kinds of operations on one path.
const (
	opCreate = iota // exclusive
	opRemove
	opLook
)

// Outcomes. An operation with any other error may have happened or not.
const (
	outYes = iota // created, removed, there
	outNo         // was there, was not there, not there
	outUnknown
)

// event is one operation of the load, for porcupine.
type event struct {
	Worker, Path, Kind, Out int
	Call, Return            int64 // ns since the load began
}

const (
	paths  = 6  // that the workers fight for
	tokens = 20 // that are moved between two directories
	pause  = 3 * time.Millisecond
)

// runLoad is the load's main function.
func runLoad(text string) error {
	var o loadOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	home := o.Mounts[0]
	for _, d := range []string{"paths", "a", "b"} {
		if err := os.MkdirAll(filepath.Join(home, d), 0o755); err != nil {
			return err
		}
	}
	for i := range tokens {
		if err := os.WriteFile(filepath.Join(home, "a", fmt.Sprint(i)), nil, 0o644); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var history []event
	var wg sync.WaitGroup
	begin := time.Now()
	for w := range o.Workers {
		wg.Go(func() {
			part := fight(&o, w, begin)
			mu.Lock()
			history = append(history, part...)
			mu.Unlock()
		})
	}
	fmt.Println("working")
	wg.Wait()
	b, err := json.Marshal(history)
	if err != nil {
		return err
	}
	return os.WriteFile(o.Out, b, 0o644)
}

// fight is one worker: it makes, removes and looks at paths that all the others
// use too, and moves tokens.
func fight(o *loadOrder, w int, begin time.Time) (part []event) {
	mount := o.Mounts[w%len(o.Mounts)]
	r := rand.New(rand.NewPCG(o.Seed, uint64(w)))
	for {
		if _, err := os.Stat(o.Stop); err == nil {
			return part
		}
		if r.IntN(4) == 0 {
			token := fmt.Sprint(r.IntN(tokens))
			from, to := "a", "b"
			if r.IntN(2) == 0 {
				from, to = to, from
			}
			// Whoever comes second finds nothing: no error of interest.
			_ = os.Rename(filepath.Join(mount, from, token), filepath.Join(mount, to, token))
			continue
		}
		e := event{Worker: w, Path: r.IntN(paths), Kind: r.IntN(3)}
		name := filepath.Join(mount, "paths", fmt.Sprint(e.Path))
		e.Call = int64(time.Since(begin))
		e.Out = outcome(e.Kind, name)
		e.Return = int64(time.Since(begin))
		part = append(part, e)
		time.Sleep(pause)
	}
}

func outcome(kind int, name string) int {
	var err error
	no := fs.ErrNotExist
	switch kind {
	case opCreate:
		no = fs.ErrExist
		var f *os.File
		if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			f.Close()
		}
	case opRemove:
		err = os.Remove(name)
	case opLook:
		_, err = os.Lstat(name)
	}
	switch {
	case err == nil:
		return outYes
	case errors.Is(err, no):
		return outNo
	}
	return outUnknown
}
