package engine

import (
	"runtime"
	"sync"
	"testing"
)

func TestAlloc(t *testing.T) {
	for _, n := range []int{1, 512, 4095, 4096, 4097, 20000, 64 << 10, 1<<20 + 4096, 8 << 20, 8<<20 + 1, 20 << 20} {
		for range 3 {
			b := Alloc(n)
			want := (n + Align - 1) / Align * Align
			if len(b) != want || !Aligned(b) {
				t.Fatalf("Alloc(%d) has length %d, aligned %v", n, len(b), Aligned(b))
			}
			if n >= 5*Align && cap(b) > want+want/4 {
				t.Errorf("Alloc(%d) takes %d bytes", n, cap(b))
			}
			Free(b[:Align])
		}
	}
	if Alloc(0) != nil {
		t.Error("Alloc(0) is not nil")
	}
	Free(nil)
}

func TestFreeRefusesStrangers(t *testing.T) {
	for name, b := range map[string][]byte{
		"not aligned":        Alloc(8192)[100:],
		"of no class's size": Alloc(8 * Align)[Align : 2*Align : 6*Align+1],
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a buffer that is %s was taken", name)
				}
			}()
			Free(b)
		}()
	}
}

func TestInbox(t *testing.T) {
	var q Inbox
	var l List
	const senders, each = 4, 1000
	var wg sync.WaitGroup
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; i < each; i += 2 {
				q.Put(s, &Op{Off: int64(i)}, &Op{Off: int64(i + 1)})
			}
		}()
	}
	var next [senders]int64
	for got := 0; got < senders*each; {
		q.Take(&l)
		op := l.Pop()
		if op == nil {
			runtime.Gosched()
			continue
		}
		s := op.Target().(int)
		if op.Off != next[s] {
			t.Fatalf("op %d of sender %d came when %d was next", op.Off, s, next[s])
		}
		next[s]++
		got++
	}
	wg.Wait()
	if !q.Empty() || !l.Empty() || l.Pop() != nil {
		t.Error("something is left")
	}
	q.Put(0)
	q.Take(&l)
	l.Push(1, &Op{Off: 7})
	q.Put(2, &Op{Off: 8})
	q.Take(&l)
	if a, b := l.Pop(), l.Pop(); a.Off != 7 || b.Off != 8 || !l.Empty() {
		t.Error("what is taken does not come after what was pushed")
	}
}

func TestKindString(t *testing.T) {
	for k, want := range []string{"read", "write", "write-sync", "sync", "kind-4"} {
		if got := Kind(k).String(); got != want {
			t.Errorf("kind %d is %q, want %q", k, got, want)
		}
	}
}
