package perf

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
)

// treeView lets placement look into a tree.
type treeView struct{ *state.State }

func (v treeView) Chunk(id chunk.ID) (placement.Want, bool) {
	c, ok := v.State.Chunk(id)
	return placement.Want{Version: c.Version, Min: c.Min, Goal: c.Goal, Leased: c.Lease != 0}, ok
}

// TestBytesPerFile holds what a master needs for a file of one chunk: with a
// name of usual length, its share of directories, and the places of two copies.
func TestBytesPerFile(t *testing.T) {
	const files, limit = 160_000, 150
	g := &grower{st: state.New(0), now: 1}
	g.begin()
	for i := range files {
		g.next(i)
	}
	if g.err != nil {
		t.Fatal(g.err)
	}
	plan := placement.New(placement.Config{}, treeView{g.st})
	for id := range treeServers {
		plan.ServerUp(0, placement.ServerInfo{ID: id, Total: 1 << 50, Free: 1 << 49})
		g.st.Chunks(func(c state.ChunkInfo) bool {
			plan.Report(0, id, []placement.Copy{{Chunk: c.ID, Version: c.Version}}, false)
			return true
		})
		plan.Report(0, id, nil, true)
	}
	tree, copies := float64(g.st.Memory())/files, float64(plan.Memory())/files
	t.Logf("%.1f bytes in the tree and %.1f for its copies", tree, copies)
	if tree+copies > limit {
		t.Errorf("a file takes %.1f bytes, %d are allowed", tree+copies, limit)
	}
	if st := plan.Stats(); st.Chunks != files || st.Copies != 2*files {
		t.Errorf("%+v", st)
	}
}

// TestTreeName: names are those of the distribution, and no two of a directory
// are the same.
func TestTreeName(t *testing.T) {
	r, sum := rand.New(rand.NewPCG(1, 2)), 0
	seen := map[string]bool{}
	for i := range 65536 {
		name := treeName(i, r)
		if seen[name] || len(name) < 4 || len(name) > 63 {
			t.Fatalf("name %q", name)
		}
		seen[name] = true
		sum += len(name)
	}
	if mean := float64(sum) / 65536; mean < 19 || mean > 22 {
		t.Errorf("names have %.1f bytes", mean)
	}
}

// TestGrowTree makes the directory of a master, with an image that lacks the end.
func TestGrowTree(t *testing.T) {
	r := newReport("test", "")
	if err := growTree(context.Background(), t.TempDir(), 20_000, 2<<20, r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 2 || r.Rows[0].Value < 4 {
		t.Errorf("%+v", r.Rows)
	}
}

// TestLags: a standby is behind by the time since the leader was beyond it.
func TestLags(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	w := &lagWatch{
		leader:   []lagSample{{at(0), 1}, {at(10), 5}, {at(20), 9}},
		standbys: []lagSample{{at(5), 1}, {at(15), 1}, {at(21), 5}, {at(30), 9}},
	}
	want := []time.Duration{0, 5 * time.Millisecond, time.Millisecond, 0}
	if got := w.lags(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
