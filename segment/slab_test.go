package segment

import "testing"

func TestSlabClasses(t *testing.T) {
	prev := 0
	for n := uint32(1); n < 200000; n++ {
		class, size := slabClass(n)
		if size < n || size > n+n/8+1 {
			t.Fatalf("a run of %d gets %d elements", n, size)
		}
		if classSize(class) != size {
			t.Fatalf("class %d of %d: size %d, classSize says %d", class, n, size, classSize(class))
		}
		if class != prev && class != prev+1 {
			t.Fatalf("class %d of %d follows %d", class, n, prev)
		}
		prev = class
	}
}

func TestSlabRunsDoNotOverlap(t *testing.T) {
	var s slab[uint32, uint32]
	type run struct{ ref, n uint32 }
	var runs []run
	for i := uint32(0); i < 3000; i++ {
		n := i*7919%3000 + 1
		if i%500 == 0 {
			n = slabPage + i
		}
		ref, size := s.alloc(n)
		if size < n {
			t.Fatalf("%d elements for %d", size, n)
		}
		b := s.at(ref, n)
		for j := range b {
			b[j] = i
		}
		runs = append(runs, run{ref, n})
		if i%3 == 2 { // free one, so that runs are used again
			s.release(runs[len(runs)/2].ref, runs[len(runs)/2].n)
			runs[len(runs)/2] = run{}
		}
	}
	for i, r := range runs {
		for _, v := range s.at(r.ref, r.n) {
			if v != uint32(i) {
				t.Fatalf("run %d holds %d", i, v)
			}
		}
	}
	for _, r := range runs {
		s.release(r.ref, r.n)
	}
	if s.live != 0 {
		t.Fatalf("%d elements in use after all are released", s.live)
	}
}

// TestSlabNumbersEnd: a slab that has given away all numbers does not give them away again.
func TestSlabNumbersEnd(t *testing.T) {
	var s slab[uint32, struct{}]
	seen := make(map[uint32]bool)
	defer func() {
		if recover() == nil || len(seen) != 1<<16 {
			t.Errorf("it ends after %d pages", len(seen))
		}
	}()
	for {
		ref, _ := s.alloc(slabPage + 1)
		if seen[ref] {
			t.Fatalf("run %d is given away twice", ref)
		}
		seen[ref] = true
	}
}
