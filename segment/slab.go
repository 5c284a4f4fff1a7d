package segment

import "math/bits"

// slab hands out runs of T by number instead of by pointer, a number being an R. T must hold
// no pointers: then the garbage collector never looks into the pages, whatever their number.
// Freed runs are kept for runs of the same class.
type slab[R uint32 | uint64, T any] struct {
	pages [][]T
	used  uint32 // elements of the last common page that are given away
	size  uint32 // elements of that page
	last  uint32 // number of that page
	free  [slabClasses][]R
	live  uint64 // elements in use, rounded up to classes
}

const (
	slabPage    = 1 << 16 // elements of a common page; a longer run has its own page
	slabFirst   = 1 << 8  // elements of the first page; each is twice as large as the last
	slabClasses = 8 * 32
)

// slabClass returns the class of runs of n elements and their length: eight classes
// for each doubling, so that at most a ninth of a run is idle.
func slabClass(n uint32) (class int, size uint32) {
	if n <= 8 {
		return int(n), n
	}
	shift := bits.Len32(n-1) - 4
	steps := (n-1)>>shift + 1 // 9..16
	return shift*8 + int(steps), steps << shift
}

// alloc returns a run of at least n elements, n > 0. Its contents are undefined.
func (s *slab[R, T]) alloc(n uint32) (ref R, size uint32) {
	class, size := slabClass(n)
	s.live += uint64(size)
	if l := s.free[class]; len(l) > 0 {
		s.free[class] = l[:len(l)-1]
		return l[len(l)-1], size
	}
	if size > slabPage {
		return R(s.add(size)) * slabPage, size
	}
	if s.used+size > s.size {
		s.retire()
		s.size = max(s.size*2, slabFirst)
		for s.size < size {
			s.size *= 2
		}
		s.size = min(s.size, slabPage)
		s.last, s.used = s.add(s.size), 0
	}
	ref = R(s.last)*slabPage + R(s.used)
	s.used += size
	return ref, size
}

// add makes a page of so many elements and returns its number.
func (s *slab[R, T]) add(size uint32) uint32 {
	if uint64(len(s.pages)) > uint64(^R(0))/slabPage {
		panic("BUG: more runs than there are numbers for")
	}
	s.pages = append(s.pages, make([]T, size))
	return uint32(len(s.pages) - 1)
}

// retire makes free runs of what is left of the last common page.
func (s *slab[R, T]) retire() {
	for s.used < s.size {
		left := s.size - s.used
		class, size := slabClass(left)
		for size > left { // the class below is the longest that fits
			class--
			size = classSize(class)
		}
		s.free[class] = append(s.free[class], R(s.last)*slabPage+R(s.used))
		s.used += size
	}
}

// classSize is the length of the runs of a class.
func classSize(class int) uint32 {
	if class <= 8 {
		return uint32(class)
	}
	return uint32((class-1)%8+9) << ((class - 9) / 8)
}

// at returns the first n elements of a run.
func (s *slab[R, T]) at(ref R, n uint32) []T {
	if n == 0 {
		return nil
	}
	p := s.pages[ref/slabPage]
	i := uint32(ref % slabPage)
	return p[i : i+n : i+n]
}

// release takes back a run that alloc made for n elements, or for a number of the same class.
func (s *slab[R, T]) release(ref R, n uint32) {
	if n == 0 {
		return
	}
	class, size := slabClass(n)
	s.live -= uint64(size)
	s.free[class] = append(s.free[class], ref)
}

// elements is the memory of all pages, in elements.
func (s *slab[R, T]) elements() uint64 {
	var n uint64
	for _, p := range s.pages {
		n += uint64(len(p))
	}
	return n
}
