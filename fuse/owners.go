package fuse

import (
	"context"
	"time"
)

// own notes that who locks through handle fh.
func (o *openInode) own(who owner, fh uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owners == nil {
		o.owners = make(map[owner]uint64)
	}
	o.owners[who] = fh
}

// frees is the number of times that locks of closed files were freed.
func (o *openInode) frees() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.freeings
}

// awaitFree returns when locks of a closed file have been freed more than since
// times, or false when that does not seem to happen. It is for somebody who was
// refused a lock: the holder may have closed its file already, but the kernel
// tells us so behind close(2).
func (o *openInode) awaitFree(ctx context.Context, who owner, since uint64) bool {
	o.mu.Lock()
	if o.freeings != since {
		o.mu.Unlock()
		return true
	}
	others := len(o.owners)
	if _, ok := o.owners[who]; ok {
		others--
	}
	if others == 0 && o.freeing == 0 {
		o.mu.Unlock()
		return false // the holder is not in this mount
	}
	if o.freed == nil {
		o.freed = make(chan struct{})
	}
	freed, busy := o.freed, o.freeing > 0
	o.mu.Unlock()
	if !busy {
		return within(releaseGrace, freed)
	}
	select {
	case <-freed:
	case <-ctx.Done():
	}
	return true
}

// releaseGrace is how long a RELEASE may take from the kernel to its handler.
const releaseGrace = time.Millisecond

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
	o.freeing++
	return left, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.freeing--
		o.freeings++
		if o.freed != nil {
			close(o.freed)
			o.freed = nil
		}
	}
}
