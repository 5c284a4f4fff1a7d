package fuse

// own notes that who locks through handle fh. It returns a channel when locks
// of a closed handle are being freed, which is closed when they are.
func (o *openInode) own(who owner, fh uint64) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owners == nil {
		o.owners = make(map[owner]uint64)
	}
	o.owners[who] = fh
	if o.freeing == 0 {
		return nil
	}
	return o.freed
}

// owns says whether who may hold locks.
func (o *openInode) owns(who owner) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.owners[who]
	return ok
}

// disown forgets who, and says whether it may hold locks. As POSIX wants it,
// all record locks of a process on a file go with the first descriptor of that
// file which it closes, whichever they were taken through.
func (o *openInode) disown(who owner) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.owners[who]
	delete(o.owners, who)
	return ok
}

// leftovers forgets the owners whose last lock was taken through fh, and lists
// them: flock owners and OFD owners, whose locks end with their open file. The
// caller frees their locks and then calls freed.
func (o *openInode) leftovers(fh uint64) (left []owner, freed func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for who, through := range o.owners {
		if through == fh {
			left = append(left, who)
			delete(o.owners, who)
		}
	}
	if len(left) == 0 {
		return nil, func() {}
	}
	if o.freeing++; o.freeing == 1 {
		o.freed = make(chan struct{})
	}
	return left, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.freeing--; o.freeing == 0 {
			close(o.freed)
		}
	}
}
