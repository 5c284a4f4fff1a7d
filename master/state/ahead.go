package state

import "math/bits"

// A large tree is in no processor's cache: to find a name in it means to wait for
// memory three or four times in a row, and so does each split of the index of
// names. What many entries will look at is therefore loaded for some of them at
// once, which takes hardly longer than for one.

// aheadOf is how many entries are looked ahead: about as many loads as a processor
// has under way at a time.
const aheadOf = 16

// ApplyAll carries out entries one after the other, as Apply does, and tells each
// what came of it. When there are many it is quicker.
func (s *State) ApplyAll(list []Entry, each func(*Result)) {
	for len(list) > 0 {
		n := min(len(list), aheadOf)
		if n > 1 {
			s.foresee(list[:n])
		}
		for i := range n {
			r := s.Apply(&list[i])
			each(&r)
		}
		list = list[n:]
	}
}

// lookAhead is what foresee works with.
type lookAhead struct {
	hash   [2 * aheadOf]uint64 // of names that will be looked for
	n      int
	chains [3 * aheadOf]uint32 // edges to be loaded next, 0: none left
	loaded uint32              // the sum of what was loaded, so that it is
}

// maxChain bounds how far lists are followed; nearly all are shorter.
const maxChain = 5

// foresee loads what some entries will look at. It changes nothing, and finds
// something else than they do where they depend on each other.
func (s *State) foresee(list []Entry) {
	a, fresh := &s.ahead, 0
	a.n = 0
	for i := range list {
		switch o := list[i].Op.(type) {
		case *Make:
			a.name(s, uint32(o.Parent), o.Name)
			fresh++
		case *Remove:
			a.name(s, uint32(o.Parent), o.Name)
		case *Rename:
			a.name(s, uint32(o.Parent), o.Name)
			a.name(s, uint32(o.NewParent), o.NewName)
			fresh++
		case *Link:
			a.name(s, uint32(o.Parent), o.Name)
			fresh++
		}
	}
	x := &s.names
	if x.buckets == 0 {
		return
	}
	n := 0
	for _, h := range a.hash[:a.n] {
		a.chains[n] = x.first(h)
		n++
	}
	names := n // behind them are the lists that will be split
	if x.count+uint32(fresh) >= x.buckets*indexLoad {
		old := x.buckets &^ (1 << (bits.Len32(x.buckets) - 1))
		for b := old; b < min(old+uint32(fresh+1)/2, x.buckets); b++ {
			a.chains[n] = x.heads.read(b >> pageShift)[b&pageMask]
			n++
		}
	}
	a.follow(s, n, names)
}

// name notes a name that will be looked for.
func (a *lookAhead) name(s *State, dir uint32, name string) {
	a.hash[a.n] = s.hashName(dir, name)
	a.n++
}

// follow loads the records of n lists, all first ones, all second ones and so on. Of
// those from names on it also loads the names, whose hashes a split wants to know.
func (a *lookAhead) follow(s *State, n, names int) {
	var bytes [aheadOf]*byte
	for range maxChain {
		left := false
		for i := range n {
			slot := a.chains[i]
			if slot == 0 {
				continue
			}
			e := s.edges.at(slot)
			a.chains[i] = e.next
			left = left || e.next != 0
			if i >= names && e.length > 0 {
				bytes[i-names] = &s.nameOf(e)[0]
			}
		}
		for i := range bytes {
			if bytes[i] != nil {
				a.loaded += uint32(*bytes[i])
				bytes[i] = nil
			}
		}
		if !left {
			return
		}
	}
}
