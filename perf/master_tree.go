package perf

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
)

// The large tree: directories of treeDir files, treeDir of them in a directory
// of the root. All chunks have the copies that two chunkservers tell.
const treeDir = 100

// treeServers are the chunkservers of the changelog.
var treeServers = map[chunk.Server]string{0xa1: "127.0.0.1:1", 0xa2: "127.0.0.1:2"}

// nameLengths is how long names are: shares of the 128,000 files below /usr of a
// Debian, in classes of four bytes from 4 on, per cent. The mean is 20.
var nameLengths = [...]int{10, 23, 16, 9, 9, 9, 4, 4, 4, 3, 3, 2, 2, 1, 1}

// treeName makes the name of file i, another one for each i.
func treeName(i int, r *rand.Rand) string {
	pick, class := r.IntN(100), 0
	for pick >= nameLengths[class] {
		pick -= nameLengths[class]
		class++
	}
	name := fmt.Appendf(nil, "%04x", uint16(i))
	for n := 4*class + 4 + r.IntN(4); len(name) < n; {
		name = append(name, "abcdefghijklmnopqrstuvwxyz._-"[r.IntN(29)])
	}
	return string(name)
}

// grower writes a changelog as a master would, at the speed of the disk: the
// state says what each entry gives, so that the next can refer to it.
type grower struct {
	st      *state.State
	log     *journal.Log // nil: nothing is logged
	batch   []byte
	waiting int
	index   uint64 // of the last entry committed
	term    uint64
	bytes   int64
	now     int64
	session uint64
	random  *rand.Rand
	upper   inode.Ino // the directories that files go to
	lower   inode.Ino
	err     error
}

// growBatch is how many bytes go into one log entry, growAhead how many of them
// are on their way.
const (
	growBatch = 512 << 10
	growAhead = 8
)

// growTree makes the directory of a master with files one-chunk files. Its image
// lacks the last tail bytes of the changelog.
func growTree(ctx context.Context, dir string, files int, tail int64, r *Report) (err error) {
	g := &grower{st: state.New(0), now: time.Now().UnixNano()}
	if err := g.open(dir); err != nil {
		return err
	}
	begun := time.Now()
	g.begin()
	defer func() {
		if e := g.log.Close(); err == nil {
			err = e
		}
	}()
	saved := false
	for i := 0; i < files && g.err == nil && ctx.Err() == nil; i++ {
		g.next(i)
		if left := float64(files-i) / float64(i+1); !saved && i%1000 == 0 && g.bytes > 0 && left*float64(g.bytes) <= float64(tail) {
			saved = true
			if err := g.save(dir); err != nil {
				return err
			}
		}
	}
	g.apply(&state.SessionClose{ID: g.session})
	g.settle()
	r.add("changelog of the files", float64(g.bytes)/1e6, "MB")
	r.add("files made from it", float64(files)/time.Since(begun).Seconds(), "files/s")
	if g.err == nil {
		g.err = ctx.Err()
	}
	return g.err
}

// begin makes what a tree has besides files.
func (g *grower) begin() {
	g.random = rand.New(rand.NewPCG(1, 2))
	g.apply(&state.SetCluster{ID: fmt.Sprintf("%032x", 1)})
	for _, id := range slices.Sorted(maps.Keys(treeServers)) {
		g.apply(&state.ServerSeen{ID: id, Addr: treeServers[id]})
	}
	g.session = g.apply(&state.SessionOpen{Host: "perf", Mount: "/"}).Session
}

// next makes file i, and the directories that begin with it.
func (g *grower) next(i int) {
	if i%(treeDir*treeDir) == 0 {
		g.upper = g.mkdir(inode.Root, fmt.Sprintf("dir-%06d", i/treeDir/treeDir))
	}
	if i%treeDir == 0 {
		g.lower = g.mkdir(g.upper, fmt.Sprintf("dir-%08d", i/treeDir))
	}
	g.file(g.lower, treeName(i, g.random), g.random)
}

func (g *grower) open(dir string) error {
	if err := firstImage(dir, g.st); err != nil {
		return err
	}
	log, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "log"), ID: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	g.log = log
	for lead := false; !lead; {
		select {
		case l := <-log.Leading():
			lead = l.Leader
		case list := <-log.Committed():
			g.took(list)
		}
	}
	return nil
}

// took notes what was committed.
func (g *grower) took(list []journal.Committed) {
	if list == nil && g.err == nil {
		g.err = fmt.Errorf("the changelog ended: %w", g.log.Err())
	}
	for _, c := range list {
		if c.Err != nil {
			g.err = c.Err
		}
		if c.Tag != nil {
			g.waiting--
		}
		g.index, g.term = c.Index, c.Term
	}
}

// apply carries out an operation and logs it.
func (g *grower) apply(op state.Op) state.Result {
	g.now += 1000
	e := state.Entry{Time: g.now, Session: g.session, Op: op}
	r := g.st.Apply(&e)
	if r.Code != 0 && g.err == nil {
		g.err = fmt.Errorf("%v: %w", op, r.Code)
	}
	g.batch = state.AppendEntry(g.batch, &e)
	if g.log == nil {
		g.batch = g.batch[:0]
	} else if len(g.batch) >= growBatch {
		g.propose()
	}
	return r
}

func (g *grower) propose() {
	for g.waiting >= growAhead && g.err == nil {
		g.took(<-g.log.Committed())
	}
	if g.err != nil || len(g.batch) == 0 {
		return
	}
	g.bytes += int64(len(g.batch))
	g.err = g.log.Propose(g.batch, g)
	g.batch = make([]byte, 0, growBatch+4096)
	g.waiting++
}

// settle waits until everything is in the changelog.
func (g *grower) settle() {
	g.propose()
	for g.waiting > 0 && g.err == nil {
		g.took(<-g.log.Committed())
	}
}

func (g *grower) mkdir(parent inode.Ino, name string) inode.Ino {
	return g.apply(&state.Make{Parent: parent, Name: name, What: inode.Dir, Mode: 0o755}).Ino
}

// file makes a file and commits what was written to its chunk, as a mount does.
func (g *grower) file(parent inode.Ino, name string, random *rand.Rand) {
	r := g.apply(&state.Make{
		Parent: parent, Name: name, What: inode.File, Mode: 0o644, Uid: 1000 + uint32(random.IntN(50)), Gid: 100, Lease: true,
	})
	if len(r.Chunks) == 0 {
		return
	}
	g.apply(&state.Commit{Files: []state.CommitFile{{
		Ino: r.Ino, Size: uint64(1 + random.IntN(1<<20)), Mtime: g.now,
		Ended: []state.LeaseEnd{{Chunk: r.Chunks[0].ID, Version: r.Chunks[0].Version, Written: true}},
	}}})
}

// save writes an image of now.
func (g *grower) save(dir string) error {
	g.settle()
	if g.err != nil {
		return g.err
	}
	view := g.st.Freeze()
	defer view.Release()
	if _, err := image.Save(dir, view, image.Meta{Index: g.index, Term: g.term, Time: time.Now().UnixNano()}, 1, nil); err != nil {
		return err
	}
	return g.log.Compact(g.index)
}

// firstImage makes the image that a changelog begins with.
func firstImage(dir string, st *state.State) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	view := st.Freeze()
	defer view.Release()
	_, err := image.Save(dir, view, image.Meta{Time: time.Now().UnixNano()}, 1, nil)
	return err
}
