package locks

// deadlock tells whether r, if it waited for the locks in its way on f, would
// wait for itself: it follows owners that are waited for to the locks that
// these wait for in turn.
func (t *Table) deadlock(f *file, r *Request) bool {
	seen := map[Owner]bool{}
	stack := blockers(nil, f, &r.Lock)
	for len(stack) > 0 {
		o := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if o == r.Owner {
			return true
		}
		if seen[o] {
			continue
		}
		seen[o] = true
		for _, w := range t.owner[o] {
			next := t.files[t.waits[w]]
			for i := range next.waiting {
				if q := &next.waiting[i]; q.Owner == o && q.Token == w.token {
					stack = blockers(stack, next, &q.Lock)
				}
			}
		}
	}
	return false
}

// blockers appends the owners of all locks in want's way.
func blockers(to []Owner, f *file, want *Lock) []Owner {
	for i := range f.held {
		if f.held[i].conflicts(want) {
			to = append(to, f.held[i].Owner)
		}
	}
	return to
}
