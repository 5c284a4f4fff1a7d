package state

// INVARIANT: the tallies of a directory, per goal, are the sum of the weights of
// all inodes whose first name is below it; a tally of nothing does not exist.

func (w *weight) add(o *weight) {
	w.files += o.files
	w.dirs += o.dirs
	w.symlinks += o.symlinks
	w.others += o.others
	w.chunks += o.chunks
	w.length += o.length
	w.size += o.size
}

func (w *weight) sub(o *weight) {
	w.files -= o.files
	w.dirs -= o.dirs
	w.symlinks -= o.symlinks
	w.others -= o.others
	w.chunks -= o.chunks
	w.length -= o.length
	w.size -= o.size
}

// above gives the directory in which an inode's first name is, 0: none.
func (s *State) above(slot uint32) uint32 {
	edge := s.firstName(s.inodes.at(slot))
	if edge == 0 {
		return 0
	}
	return s.edges.at(edge).parent
}

// lift adds w to the tallies of dir and of all directories above it.
func (s *State) lift(dir uint32, goal uint8, w *weight) {
	for ; dir != 0; dir = s.above(dir) {
		rec := s.inodes.at(dir).ext
		t := s.dirs.at(rec).tally
		for t != 0 && s.tallies.at(t).goal != goal {
			t = s.tallies.at(t).next
		}
		if t == 0 {
			t = s.tallies.alloc()
			d := s.dirs.mut(rec)
			*s.tallies.mut(t) = tallyRec{goal: goal, next: d.tally}
			d.tally = t
		}
		s.tallies.mut(t).add(w)
	}
}

// sink takes w off the tallies of dir and of all directories above it.
func (s *State) sink(dir uint32, goal uint8, w *weight) {
	for ; dir != 0; dir = s.above(dir) {
		rec := s.inodes.at(dir).ext
		prev, t := uint32(0), s.dirs.at(rec).tally
		for s.tallies.at(t).goal != goal {
			prev, t = t, s.tallies.at(t).next
		}
		rest := s.tallies.mut(t)
		rest.sub(w)
		if rest.weight != (weight{}) {
			continue
		}
		next := rest.next
		s.tallies.release(t, tallyRec{})
		if prev != 0 {
			s.tallies.mut(prev).next = next
		} else {
			s.dirs.mut(rec).tally = next
		}
	}
}

// move takes the subtree of an inode off the tallies of one directory and adds
// it to those of another; 0: none.
func (s *State) move(slot, from, to uint32) {
	if from == to {
		return
	}
	n := s.inodes.at(slot)
	goal := n.goal
	w := s.weigh(slot)
	s.shift(goal, &w, from, to)
	if w.dirs == 0 {
		return
	}
	for t := s.dirs.at(n.ext).tally; t != 0; {
		rec := *s.tallies.at(t)
		s.shift(rec.goal, &rec.weight, from, to)
		t = rec.next
	}
}

func (s *State) shift(goal uint8, w *weight, from, to uint32) {
	if from != 0 {
		s.sink(from, goal, w)
	}
	if to != 0 {
		s.lift(to, goal, w)
	}
}

// reweigh corrects the tallies above a file whose weight was old.
func (s *State) reweigh(slot uint32, old weight) {
	w := s.weigh(slot)
	if w == old {
		return
	}
	dir, goal := s.above(slot), s.inodes.at(slot).goal
	if dir == 0 {
		return
	}
	// Adding first keeps the tally from being freed and made again.
	s.lift(dir, goal, &w)
	s.sink(dir, goal, &old)
}

func (s *State) freeTallies(dir uint32) {
	for t := s.dirs.at(dir).tally; t != 0; {
		next := s.tallies.at(t).next
		s.tallies.release(t, tallyRec{})
		t = next
	}
}
