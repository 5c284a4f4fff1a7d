package state

import (
	"bytes"
	"testing"

	"github.com/varvefs/varve/inode"
)

// someOps is one op of each kind with all fields set.
func someOps() []Op {
	return []Op{
		&Nop{},
		&Make{1, "name", inode.Symlink, 0o644, 0o22, 1, 2, 3, "target", true, true, 7, 8},
		&Remove{1, "name", true, []uint64{1, 2}, 3},
		&Rename{1, "a", 2, "b", 3, []uint64{4}, 5},
		&Link{1, 2, "c"},
		&SetAttr{1, 2, 3, 4, 5, 6, -7, -8, 9, 10, 11},
		&SetMany{[]inode.Ino{1, 2}, SetGoal, 3, 4},
		&SetXattr{1, "user.x", []byte("value"), 1, true},
		&RemoveXattr{1, "user.x"},
		&Lease{1, 2, 3},
		&LeaseFail{1, 2, 3, 4},
		&Commit{[]CommitFile{{1, 2, 3, []uint32{4}, []LeaseEnd{{5, 6, 7, true}}, true, SetMode, 8, 9, 10, 11, 12}, {Ino: 9}}},
		&LeaseDrop{1, 2},
		&SessionOpen{"host", "/mnt", "/", true},
		&SessionClose{1},
		&ReleaseHold{[]inode.Ino{1, 2}},
		&ServerSeen{1, "addr", "labels"},
		&ServerForget{1},
		&SetCluster{"id"},
		&Reserve{3},
		&Leap{5},
		&Adopt{1, 2},
	}
}

// TestEntryCodec: every op survives the changelog, no code is used twice, and a
// shortened entry is an error.
func TestEntryCodec(t *testing.T) {
	seen := map[OpCode]bool{}
	var batch []byte
	for _, op := range someOps() {
		if seen[op.Code()] {
			t.Fatalf("code %d is used twice", op.Code())
		}
		seen[op.Code()] = true
		e := &Entry{Time: -5, Session: 6, Seq: 7, Done: 8, Op: op}
		b := AppendEntry(nil, e)
		batch = append(batch, b...)
		got, rest, err := DecodeEntry(b)
		if err != nil || len(rest) != 0 || got.String() != e.String() {
			t.Fatalf("%s became %s (%v)", e.String(), got.String(), err)
		}
		if again := AppendEntry(nil, &got); !bytes.Equal(b, again) {
			t.Fatalf("%s is encoded differently again", e.String())
		}
		for n := range b {
			if _, _, err := DecodeEntry(b[:n]); err == nil {
				t.Fatalf("%s in %d of %d bytes is taken", e.String(), n, len(b))
			}
		}
	}
	if int(OpAdopt) != len(seen) {
		t.Fatalf("%d of %d codes were tried", len(seen), OpAdopt)
	}
	list, err := DecodeBatch(batch)
	if err != nil || len(list) != len(seen) {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	if _, err := DecodeBatch(append(batch, 0xff, 0xff)); err == nil {
		t.Fatal("rubbish behind a batch is taken")
	}
}

// FuzzEntry decodes anything and applies what can be decoded to a small tree:
// nothing may panic, and the tree must stay whole.
func FuzzEntry(f *testing.F) {
	for _, op := range someOps() {
		f.Add(AppendEntry(nil, &Entry{Time: 1, Session: 1, Seq: 2, Done: 1, Op: op}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := DecodeBatch(b)
		if err != nil {
			return
		}
		s := New(0)
		must(t, s, 0, &SessionOpen{})
		d := must(t, s, 0, &Make{Parent: inode.Root, Name: "a", What: inode.Dir}).Ino
		must(t, s, 1, &Make{Parent: d, Name: "b", What: inode.File, Lease: true})
		var again []byte
		for i := range list {
			r := s.Apply(&list[i])
			_ = list[i].Line(&r)
			again = AppendEntry(again, &list[i])
		}
		if !bytes.Equal(b, again) {
			t.Fatal("the entries are encoded differently again")
		}
		checked(t, s)
	})
}

// FuzzLoader gives a Loader blocks that passed their checksums and are wrong all
// the same: it must refuse them or give a state that can be read.
func FuzzLoader(f *testing.F) {
	s := New(0)
	must(f, s, 0, &SessionOpen{})
	d := must(f, s, 0, &Make{Parent: inode.Root, Name: "a", What: inode.Dir}).Ino
	must(f, s, 1, &Make{Parent: d, Name: "b", What: inode.File, Lease: true})
	must(f, s, 1, &Make{Parent: d, Name: "c", What: inode.File, Hold: true})
	must(f, s, 1, &Remove{Parent: d, Name: "c", Hold: []uint64{1}})
	list := saved(f, s)
	for i := range list {
		f.Add(uint8(i), uint16(3), byte(0xff))
	}
	f.Fuzz(func(t *testing.T, block uint8, at uint16, flip byte) {
		l := NewLoader()
		for i, b := range list {
			bytes := append([]byte(nil), b.bytes...)
			if i == int(block)%len(list) && len(bytes) > 0 {
				bytes[int(at)%len(bytes)] ^= flip
			}
			if err := l.Block(b.section, bytes); err != nil {
				return
			}
		}
		got, err := l.Done(inTurn)
		if err != nil {
			return
		}
		got.Inodes(func(a inode.Attr) bool {
			got.Xattrs(a.Ino)
			got.Target(a.Ino)
			got.FileChunks(a.Ino, 0, 1<<31, func(ChunkSlot) bool { return true })
			got.ReadDir(a.Ino, 0, 0, func(name string, _ uint64, _ inode.Ino) bool { return true })
			return true
		})
		got.Chunks(func(ChunkInfo) bool { return true })
	})
}
