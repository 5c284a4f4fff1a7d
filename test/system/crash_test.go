package system

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
)

const blockSize = 4096

// block fills b with the bytes that block i of the file has in a generation.
// Every 8-byte word is different, so that torn or moved bytes show.
func block(b []byte, name string, gen, i int) {
	seed := uint64(chunk.Sum([]byte(name)))<<32 | uint64(gen)<<20 | uint64(i)
	r := rand.New(rand.NewPCG(seed, 1))
	for o := 0; o+8 <= len(b); o += 8 {
		binary.LittleEndian.PutUint64(b[o:], r.Uint64())
	}
}

// worker makes, overwrites, syncs, renames and removes files in a directory of
// its own, and remembers what was acknowledged. One goroutine at a time owns it.
type worker struct {
	dir   string
	rng   *rand.Rand
	files map[string]*known // by present name
	next  int
}

// known is what must be true of a file.
type known struct {
	content string // name under which its blocks were made
	blocks  int    // acknowledged size
	gen     int    // generation that fsync acknowledged; 0: none
	tries   []int  // generations begun since then; none of them was acknowledged
	fate    string // change of the name in flight: "", "remove", or the new name
	born    bool   // creation was acknowledged
}

func newWorker(dir string, seed uint64) *worker {
	return &worker{dir: dir, rng: rand.New(rand.NewPCG(seed, 7)), files: map[string]*known{}}
}

// run works until an operation fails, as all do once the daemons are dead.
func (w *worker) run() error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	for {
		if err := w.step(); err != nil {
			return err
		}
	}
}

func (w *worker) step() error {
	name := w.pick()
	switch p := w.rng.IntN(10); {
	case name == "" || p < 3:
		w.next++
		name = "f" + strconv.Itoa(w.next)
		w.files[name] = &known{content: name, blocks: 1 + w.rng.IntN(40)}
		return w.write(name)
	case p < 7:
		return w.write(name)
	case p < 9:
		return w.rename(name)
	default:
		return w.remove(name)
	}
}

func (w *worker) pick() string {
	for name := range w.files {
		return name
	}
	return ""
}

// write writes the next generation over the whole file and syncs it.
func (w *worker) write(name string) error {
	k := w.files[name]
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	k.born = true
	gen := k.gen + len(k.tries) + 1
	k.tries = append(k.tries, gen)
	b := make([]byte, blockSize)
	for _, i := range w.rng.Perm(k.blocks) {
		block(b, k.content, gen, i)
		if _, err := f.WriteAt(b, int64(i)*blockSize); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	k.gen, k.tries = gen, nil
	return nil
}

func (w *worker) rename(name string) error {
	k := w.files[name]
	w.next++
	k.fate = "r" + strconv.Itoa(w.next)
	if err := os.Rename(filepath.Join(w.dir, name), filepath.Join(w.dir, k.fate)); err != nil {
		return err
	}
	delete(w.files, name)
	w.files[k.fate] = k
	k.fate = ""
	return nil
}

func (w *worker) remove(name string) error {
	w.files[name].fate = "remove"
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		return err
	}
	delete(w.files, name)
	return nil
}

// check compares the directory with what was acknowledged, then takes over
// what it found so that the next round can go on.
func (w *worker) check() error {
	entries, err := os.ReadDir(w.dir)
	if errors.Is(err, fs.ErrNotExist) && len(w.files) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	found := map[string]*known{}
	for name, k := range w.files {
		at, err := k.settle(name, there)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(w.dir, name), err)
		}
		if at == "" {
			continue
		}
		delete(there, at)
		if err := k.verify(filepath.Join(w.dir, at)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(w.dir, at), err)
		}
		found[at] = k
	}
	for name := range there {
		return fmt.Errorf("%s is there, but was removed or never made", filepath.Join(w.dir, name))
	}
	w.files = found
	return nil
}

// settle finds the name that the file has now: "" when it may be gone and is.
func (k *known) settle(name string, there map[string]bool) (string, error) {
	fate := k.fate
	k.fate = ""
	switch {
	case there[name] && fate != "" && fate != "remove" && there[fate]:
		return "", fmt.Errorf("is there under its old name and as %s", fate)
	case there[name]:
		return name, nil
	case fate == "remove" || !k.born:
		return "", nil
	case fate != "" && there[fate]:
		return fate, nil
	}
	return "", errors.New("is gone, but was acknowledged")
}

// verify reads the file: every block is whole and of the generation that was
// synced, or of the one that was being written.
func (k *known) verify(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if k.gen > 0 && len(data) != k.blocks*blockSize {
		return fmt.Errorf("has %d bytes, %d were synced", len(data), k.blocks*blockSize)
	}
	want, zero := make([]byte, blockSize), make([]byte, blockSize)
	for i := 0; i*blockSize < len(data); i++ {
		got := data[i*blockSize : min(len(data), (i+1)*blockSize)]
		match := func(gen int) bool {
			block(want, k.content, gen, i)
			return string(got) == string(want[:len(got)])
		}
		if k.gen > 0 && match(k.gen) || slices.ContainsFunc(k.tries, match) || k.gen == 0 && string(got) == string(zero[:len(got)]) {
			continue
		}
		return fmt.Errorf("block %d is neither of generation %d (synced) nor of %v (being written)", i, k.gen, k.tries)
	}
	return nil
}

// TestKillEverything kills every process at random moments and starts again:
// what was fsynced or acknowledged by metadata is there, nothing is mixed or
// resurrected. VARVE_ROUNDS sets the number of rounds.
func TestKillEverything(t *testing.T) {
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("VARVE_ROUNDS")); err == nil {
		rounds = n
	}
	if testing.Short() {
		rounds = 1
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	c := start(t)
	var workers []*worker
	for i := range 4 {
		workers = append(workers, newWorker(filepath.Join(c.mnt, "w"+strconv.Itoa(i)), seed+uint64(i)))
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for _, w := range workers {
			wg.Go(func() { w.run() })
		}
		time.Sleep(time.Duration(200+rng.IntN(1500)) * time.Millisecond) // the moment of death is the point of the test
		c.killAll()
		wg.Wait()
		c.up()
		for _, w := range workers {
			if err := w.check(); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
		}
	}
	c.healed(time.Minute)
}
