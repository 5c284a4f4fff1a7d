package locks

import (
	"fmt"
	"testing"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"pgregory.net/rapid"
)

func owner(n uint64) Owner { return Owner{Session: n, Number: 1} }

func posix(o uint64, ty Type, start, end uint64) Request {
	return Request{Ino: 7, Lock: Lock{Owner: owner(o), Pid: uint32(o), Type: ty, Start: start, End: end}}
}

func waiting(r Request, token uint64) Request {
	r.Wait, r.Token, r.Tag = true, token, fmt.Sprint(token)
	return r
}

func mustSet(t *testing.T, tab *Table, r Request, want status.Code) []Woken {
	t.Helper()
	code, woken := tab.Set(r)
	if code != want {
		t.Fatalf("Set(%+v) = %v, want %v", r, code, want)
	}
	return woken
}

func TestRangesConflictOnlyWhereTheyMeet(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 99), status.OK)
	mustSet(t, tab, posix(2, Write, 100, 199), status.OK)
	mustSet(t, tab, posix(2, Read, 99, 99), status.NotWaited)
	mustSet(t, tab, posix(1, Write, 100, 100), status.NotWaited)
	mustSet(t, tab, posix(1, Read, 0, 99), status.OK)
	mustSet(t, tab, posix(2, Read, 0, 50), status.OK)
	mustSet(t, tab, posix(1, Write, 51, 99), status.OK)
	mustSet(t, tab, posix(1, Write, 50, 99), status.NotWaited)
}

func TestUnlockSplits(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 99), status.OK)
	mustSet(t, tab, posix(1, Free, 40, 59), status.OK)
	if held, _ := tab.Len(); held != 2 {
		t.Fatalf("%d locks after a hole was made, want 2", held)
	}
	mustSet(t, tab, posix(2, Write, 40, 59), status.OK)
	mustSet(t, tab, posix(2, Write, 39, 39), status.NotWaited)
	mustSet(t, tab, posix(2, Free, 0, ^uint64(0)), status.OK)
	mustSet(t, tab, posix(1, Write, 40, 59), status.OK)
	if held, _ := tab.Len(); held != 1 {
		t.Fatalf("%d locks after the hole was closed, want 1", held)
	}
}

func TestTestNamesTheHolder(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 10, 19), status.OK)
	r := posix(2, Read, 0, 15)
	if l, held := tab.Test(&r); !held || l.Pid != 1 || l.Start != 10 || l.End != 19 || l.Type != Write {
		t.Fatalf("Test = %+v, %v", l, held)
	}
	r = posix(1, Read, 0, 15)
	if _, held := tab.Test(&r); held {
		t.Fatal("an owner conflicts with itself")
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 9), status.OK)
	mustSet(t, tab, waiting(posix(2, Write, 0, 9), 20), status.Again)
	mustSet(t, tab, waiting(posix(3, Read, 0, 9), 30), status.Again)
	woken := mustSet(t, tab, posix(1, Free, 0, 9), status.OK)
	if len(woken) != 1 || woken[0].Tag != "20" || woken[0].Code != status.OK {
		t.Fatalf("woken %+v, want the first waiter", woken)
	}
	woken = mustSet(t, tab, posix(2, Read, 0, 9), status.OK)
	if len(woken) != 1 || woken[0].Tag != "30" {
		t.Fatalf("woken %+v by a downgrade, want the reader", woken)
	}
}

func TestCancel(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 9), status.OK)
	mustSet(t, tab, waiting(posix(2, Write, 0, 9), 20), status.Again)
	if tag, ok := tab.Cancel(2, 20); !ok || tag != "20" {
		t.Fatalf("Cancel = %v, %v", tag, ok)
	}
	if _, ok := tab.Cancel(2, 20); ok {
		t.Fatal("cancelled twice")
	}
	if woken := mustSet(t, tab, posix(1, Free, 0, 9), status.OK); len(woken) != 0 {
		t.Fatalf("a cancelled request was woken: %+v", woken)
	}
	if held, waits := tab.Len(); held != 0 || waits != 0 || len(tab.files) != 0 {
		t.Fatalf("left over: %d held, %d waiting, %d files", held, waits, len(tab.files))
	}
}

func TestDeadlockOfThree(t *testing.T) {
	tab := New()
	on := func(ino uint64, r Request) Request { r.Ino = inode.Ino(ino); return r }
	for i := uint64(1); i <= 3; i++ {
		mustSet(t, tab, on(i, posix(i, Write, 0, 9)), status.OK)
	}
	mustSet(t, tab, waiting(on(2, posix(1, Write, 0, 9)), 1), status.Again)
	mustSet(t, tab, waiting(on(3, posix(2, Write, 0, 9)), 2), status.Again)
	mustSet(t, tab, waiting(on(1, posix(3, Write, 0, 9)), 3), status.Deadlock)
	woken := mustSet(t, tab, on(3, posix(3, Free, 0, 9)), status.OK)
	if len(woken) != 1 || woken[0].Tag != "2" {
		t.Fatalf("woken %+v", woken)
	}
}

func TestFlock(t *testing.T) {
	tab := New()
	flock := func(o uint64, ty Type) Request {
		return Request{Ino: 7, Flock: true, Lock: Lock{Owner: owner(o), Type: ty}}
	}
	mustSet(t, tab, posix(9, Write, 0, ^uint64(0)), status.OK) // another kind: does not count
	mustSet(t, tab, flock(1, Read), status.OK)
	mustSet(t, tab, flock(2, Read), status.OK)
	mustSet(t, tab, flock(3, Write), status.NotWaited)
	// Both readers upgrade: the first gives its lock up and waits, the second gets it.
	mustSet(t, tab, waiting(flock(1, Write), 10), status.Again)
	mustSet(t, tab, waiting(flock(2, Write), 20), status.OK)
	woken := mustSet(t, tab, flock(2, Free), status.OK)
	if len(woken) != 1 || woken[0].Tag != "10" {
		t.Fatalf("woken %+v", woken)
	}
}

func TestFailedFlockConversionWakesOthers(t *testing.T) {
	tab := New()
	flock := func(o uint64, ty Type) Request {
		return Request{Ino: 7, Flock: true, Lock: Lock{Owner: owner(o), Type: ty}}
	}
	mustSet(t, tab, flock(1, Read), status.OK)
	mustSet(t, tab, flock(2, Read), status.OK)
	if woken := mustSet(t, tab, flock(1, Write), status.NotWaited); len(woken) != 0 {
		t.Fatalf("woken %+v", woken)
	}
	mustSet(t, tab, flock(2, Write), status.OK) // the reader's lock is gone
}

func TestDropWaits(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 9), status.OK)
	mustSet(t, tab, waiting(posix(2, Write, 0, 9), 21), status.Again)
	mustSet(t, tab, waiting(posix(2, Read, 0, 3), 20), status.Again)
	mustSet(t, tab, waiting(posix(3, Read, 0, 3), 30), status.Again)
	if tags := tab.DropWaits(2); fmt.Sprint(tags) != "[20 21]" {
		t.Fatalf("dropped %v", tags)
	}
	if held, waits := tab.Len(); held != 1 || waits != 1 {
		t.Fatalf("left %d held, %d waiting", held, waits)
	}
}

func TestSessionDeath(t *testing.T) {
	tab := New()
	mustSet(t, tab, posix(1, Write, 0, 9), status.OK)
	mustSet(t, tab, posix(1, Write, 20, 29), status.OK)
	mustSet(t, tab, waiting(posix(2, Write, 0, 29), 20), status.Again)
	mustSet(t, tab, waiting(Request{Ino: 7, Lock: Lock{Owner: Owner{1, 2}, Type: Read, End: 5}}, 11), status.Again)
	woken := tab.CloseSession(1)
	if len(woken) != 2 || woken[0] != (Woken{"11", status.Interrupted}) || woken[1] != (Woken{"20", status.OK}) {
		t.Fatalf("woken %+v", woken)
	}
	if held, waits := tab.Len(); held != 1 || waits != 0 {
		t.Fatalf("left %d held, %d waiting", held, waits)
	}
	if woken := tab.Forget(7); len(woken) != 0 || len(tab.files) != 0 {
		t.Fatalf("Forget woke %+v and left %d files", woken, len(tab.files))
	}
}

// TestAgainstBytes compares the table with one cell per byte and owner.
func TestAgainstBytes(t *testing.T) {
	const size, owners = 12, 3
	rapid.Check(t, func(t *rapid.T) {
		tab := New()
		var model [owners][size]Type
		for o := range model {
			for b := range model[o] {
				model[o][b] = Free
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			o := rapid.IntRange(0, owners-1).Draw(t, "owner")
			ty := Type(rapid.IntRange(0, 2).Draw(t, "type"))
			start := rapid.IntRange(0, size-1).Draw(t, "start")
			end := rapid.IntRange(start, size-1).Draw(t, "end")
			want := status.OK
			for p := range model {
				for b := start; b <= end && p != o && ty != Free; b++ {
					if model[p][b] != Free && (model[p][b] == Write || ty == Write) {
						want = status.NotWaited
					}
				}
			}
			r := posix(uint64(o), ty, uint64(start), uint64(end))
			if code, _ := tab.Set(r); code != want {
				t.Fatalf("Set(%+v) = %v, want %v; held %+v", r, code, want, tab.files[r.key()])
			}
			if want == status.OK {
				for b := start; b <= end; b++ {
					model[o][b] = ty
				}
			}
			checkAgainst(t, tab, model[:])
		}
	})
}

func checkAgainst[B ~[12]Type](t *rapid.T, tab *Table, model []B) {
	runs := 0
	for o := range model {
		last := Free
		for b, ty := range model[o] {
			if ty != Free && ty != last {
				runs++
			}
			last = ty
			// A stranger's write lock on the byte meets a lock just when the model has one.
			r := posix(uint64(100), Write, uint64(b), uint64(b))
			_, held := tab.Test(&r)
			any := false
			for p := range model {
				any = any || model[p][b] != Free
			}
			if held != any {
				t.Fatalf("byte %d: held %v, model %v", b, held, any)
			}
		}
	}
	if held, _ := tab.Len(); held != runs {
		t.Fatalf("%d locks are held, the model has %d runs", held, runs)
	}
}
