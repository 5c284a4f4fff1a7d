package system

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longest runs op again and again until stop is closed and returns how long the
// slowest took.
func longest(stop <-chan struct{}, op func() error) (worst time.Duration, err error) {
	for {
		select {
		case <-stop:
			return worst, nil
		default:
		}
		began := time.Now()
		if err := op(); err != nil {
			return worst, err
		}
		worst = max(worst, time.Since(began))
	}
}

// TestStall kills each chunkserver once under a program that writes and syncs,
// and one that reads past the page cache: neither waits for more than 3 s.
func TestStall(t *testing.T) {
	const most, size = 3 * time.Second, 4 << 20
	c := start(t)
	name := filepath.Join(c.mnt, "f")
	if err := os.WriteFile(name, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, victim := range []string{"chunkd1", "chunkd2", "chunkd3"} {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var all sync.WaitGroup
		watch := func(what string, op func() error) {
			all.Go(func() {
				worst, err := longest(stop, op)
				t.Logf("kill %s: %s took %v at most", victim, what, worst)
				if err != nil || worst > most {
					t.Errorf("kill %s: %s took %v, error %v", victim, what, worst, err)
				}
			})
		}
		var syncs atomic.Int64
		block := make([]byte, blockSize)
		watch("write and fsync", func() error {
			if _, err := f.WriteAt(block, syncs.Add(1)*blockSize%size); err != nil {
				return err
			}
			return f.Sync()
		})
		r, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		in, off := make([]byte, blockSize), int64(0)
		watch("read", func() error {
			off = (off + 37*blockSize) % size
			_, err := r.ReadAt(in, off)
			return err
		})
		c.kill(victim)
		c.until(30*time.Second, victim+" is back", func() bool { return len(c.processes(victim)) == 1 })
		done := syncs.Load()
		c.until(30*time.Second, "the writer has gone on", func() bool { return syncs.Load() > done+300 })
		close(stop)
		all.Wait()
		f.Close()
		r.Close()
		c.healed(time.Minute)
	}
}
