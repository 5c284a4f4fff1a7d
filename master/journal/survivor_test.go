package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/varvefs/varve/master/journal/files"
)

// widened is the logs of three voters, in closed directories, to which two learners
// were added that never came: changes of the membership that no image holds.
func widened(t *testing.T) (dirs map[uint64]string) {
	t.Helper()
	_, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	propose := func(text string, n int) {
		t.Helper()
		if err := lead.Propose([]byte(text), nil); err != nil {
			t.Fatal(err)
		}
		for _, v := range voters {
			eventually(t, "all have all", func() bool { return v.count() == n })
		}
	}
	propose("before", 1)
	for id := uint64(5); id <= 6; id++ {
		done := make(chan error, 1)
		lead.Change(Member{ID: id, Addr: fmt.Sprintf("host%d:9419", id), Learner: true, Founder: id}, false, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, v := range voters {
			eventually(t, "it is a member", func() bool { m := v.Members(); return m.Has(id, id) })
		}
	}
	propose("behind", 2)
	dirs = map[uint64]string{}
	for _, v := range voters {
		dirs[v.cfg.ID] = v.cfg.Dir
	}
	for _, v := range voters {
		mustClose(t, v.Log)
	}
	return dirs
}

// outlived opens a log that has survived, and tells what is in it.
func outlived(t *testing.T, cfg Config) ([]string, Status) {
	t.Helper()
	l := mustOpen(t, cfg)
	if !l.isLeader() {
		t.Fatal("a single voter does not lead")
	}
	got := texts(collect(t, l, caughtUp(l)))
	s := l.Status()
	mustClose(t, l)
	return got, s
}

// A log in which the membership changed behind its image survives the others, again and
// again, with its own number; and others can be added to it.
func TestSurvive(t *testing.T) {
	for id, dir := range widened(t) {
		cfg := config(dir)
		cfg.ID = 0
		before := identityOf(t, dir)
		if n, err := Number(dir); n != id || err != nil {
			t.Fatalf("number %d, %v; it is that of voter %d", n, err, id)
		}
		will, err := Survey(cfg, 0)
		if err != nil || will.Number != id || will.ID != id || len(will.Members.List) != 5 || will.NewTerm != will.Term+epochGap+1 {
			t.Fatalf("%+v, %v", will, err)
		}
		if !slices.Equal(before, identityOf(t, dir)) {
			t.Fatal("a look has changed the membership")
		}
		term := uint64(0)
		for range 3 {
			s, err := Survive(cfg, 0)
			if err != nil || s.ID != id || s.Last < will.Last || s.NewTerm <= term+epochGap {
				t.Fatalf("%+v, %v", s, err)
			}
			cfg.ID = id
			got, now := outlived(t, cfg)
			if !slices.Equal(got, []string{"before", "behind"}) || now.Term <= s.NewTerm {
				t.Fatalf("%v is left, term %d", got, now.Term)
			}
			cfg.ID, term = 0, now.Term
		}
		if s, err := Survive(cfg, 1_000_000); err != nil || s.NewTerm != 1_000_001 {
			t.Fatalf("%+v, %v", s, err)
		}
		joined(t, id, dir)
	}
}

func identityOf(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, membersName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// joined adds a voter to the one that has survived.
func joined(t *testing.T, id uint64, dir string) {
	t.Helper()
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	one := w.startWith(t, id, dir, func(c *Config) { c.Peers = []uint64{id} })
	eventually(t, "the only voter leads", func() bool { return one.isLeader() && one.count() == 2 })
	next := w.startWith(t, 7, t.TempDir(), func(c *Config) { c.Peers, c.Await = []uint64{7}, true })
	one.Change(Member{ID: 7, Learner: true, Founder: next.Self()}, false, nil)
	eventually(t, "it is a member", func() bool { m := one.Members(); return m.Has(7, next.Self()) })
	next.Found(one.Members())
	eventually(t, "it votes and has all", func() bool {
		m := next.Members()
		k, _ := m.Find(7)
		return k.Founder != 0 && !k.Learner && next.count() == 2
	})
	if m := next.Members(); len(m.List) != 2 {
		t.Errorf("members %+v: those of the old majority are back", m)
	}
	mustClose(t, one.Log)
	mustClose(t, next.Log)
}

// A single voter whose process ended between deciding about a member and making it
// one starts nevertheless.
func TestVoidChange(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	one := w.startWith(t, 1, t.TempDir(), func(c *Config) { c.Peers = []uint64{1} })
	eventually(t, "the only voter leads", one.isLeader)
	before := identityOf(t, one.cfg.Dir)
	one.Change(Member{ID: 5, Learner: true, Founder: 5}, false, nil)
	eventually(t, "it is a member", func() bool { m := one.Members(); return m.Has(5, 5) })
	mustClose(t, one.Log)
	if err := os.WriteFile(filepath.Join(one.cfg.Dir, membersName), before, 0o600); err != nil {
		t.Fatal(err)
	}
	outlived(t, config(one.cfg.Dir))
	outlived(t, config(one.cfg.Dir))
}

// mortal is a directory that no longer takes anything after so many changes.
type mortal struct {
	files.Host
	left *int
}

var errDead = errors.New("the process has ended")

func (m mortal) step() error {
	if *m.left--; *m.left < 0 {
		return errDead
	}
	return nil
}

func (m mortal) Replace(name string, b []byte) error {
	return unless(m.step(), func() error { return m.Host.Replace(name, b) })
}
func (m mortal) Fill(name string, size int64) error {
	return unless(m.step(), func() error { return m.Host.Fill(name, size) })
}
func (m mortal) Rename(from, to string) error {
	return unless(m.step(), func() error { return m.Host.Rename(from, to) })
}
func (m mortal) Remove(name string) error {
	return unless(m.step(), func() error { return m.Host.Remove(name) })
}

func (m mortal) Open(name string, direct bool) (files.File, error) {
	f, err := m.Host.Open(name, direct)
	return mortalFile{f, m}, err
}

func unless(err error, do func() error) error {
	if err == nil {
		err = do()
	}
	return err
}

type mortalFile struct {
	files.File
	m mortal
}

func (f mortalFile) Write(b []byte, off int64) error {
	return unless(f.m.step(), func() error { return f.File.Write(b, off) })
}

func (f mortalFile) WriteSync(b []byte, off int64) error {
	return unless(f.m.step(), func() error { return f.File.WriteSync(b, off) })
}

// Wherever Survive is interrupted, the log is the old voter's as it was, or that of
// a single voter in an epoch far above; and it can be said again.
func TestSurviveInterrupted(t *testing.T) {
	dirs := widened(t)
	old := identityOf(t, dirs[2])
	kept, changed := 0, 0
	for left := 0; ; left++ {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(dirs[2])); err != nil {
			t.Fatal(err)
		}
		cfg := config(dir)
		cfg.ID = 0
		was, err := Survey(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		budget := left
		cfg.Files = mortal{files.Host(dir), &budget}
		_, err = Survive(cfg, 0)
		whole := budget >= 0
		if whole && err != nil {
			t.Fatal(err)
		}
		cfg.Files = nil
		now, err := Survey(cfg, 0)
		if err != nil {
			t.Fatalf("after %d changes: %v", left, err)
		}
		if slices.Equal(identityOf(t, dir), old) {
			kept++
			if now.Term != was.Term || now.Last != was.Last || len(now.Members.List) != 5 {
				t.Fatalf("after %d changes: half a recovery, %+v", left, now)
			}
		} else if changed++; now.Term < was.Term+epochGap || len(now.Members.List) != 1 {
			t.Fatalf("after %d changes: half a recovery, %+v", left, now)
		} else {
			cfg.ID = 2 // no more is needed
			if got, s := outlived(t, cfg); len(got) != 2 || s.Term <= was.Term+epochGap {
				t.Fatalf("after %d changes: %v, term %d", left, got, s.Term)
			}
			cfg.ID = 0
		}
		if _, err := Survive(cfg, 0); err != nil {
			t.Fatalf("after %d changes, again: %v", left, err)
		}
		cfg.ID = 2
		if got, _ := outlived(t, cfg); !slices.Equal(got, []string{"before", "behind"}) {
			t.Fatalf("after %d changes: %v is left", left, got)
		}
		if whole {
			break
		}
	}
	if kept == 0 || changed < 2 {
		t.Errorf("interrupted %d times before and %d times behind the step that counts", kept, changed)
	}
}

// What root makes of the log of somebody else, that one can open.
func TestSurviveKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives files away; needs root")
	}
	const nobody = 65534
	dir := widened(t)[1]
	give := func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, nobody, nobody))
	}
	if err := filepath.WalkDir(dir, give); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LOCK", "room"} { // whoever makes them anew
		_ = os.Remove(filepath.Join(dir, name))
	}
	cfg := config(dir)
	cfg.ID = 0
	if _, err := Survive(cfg, 0); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		info, e := d.Info()
		if err = errors.Join(err, e); err == nil && info.Sys().(*syscall.Stat_t).Uid != nobody {
			t.Errorf("%s is not its directory's owner's", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
