package fuse

import (
	"sync"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
)

// handle is what the kernel's fh names: an open file or directory.
type handle struct {
	ino  inode.Ino
	file *client.File // nil for a directory
	dir  *client.Dir  // nil for a file

	open     *openInode // of a file
	direct   bool       // goes around the page cache
	writable bool
}

// handles is the table of what is open. Its numbers are dense and used again.
type handles struct {
	mu    sync.RWMutex
	slots []*handle // fh-1 is the index
	free  []uint64  // fh's that may be given out again
}

func (t *handles) add(h *handle) (fh uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		fh = t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[fh-1] = h
		return fh
	}
	t.slots = append(t.slots, h)
	return uint64(len(t.slots))
}

// get finds what fh names, nil when it names nothing.
func (t *handles) get(fh uint64) *handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if fh == 0 || fh > uint64(len(t.slots)) {
		return nil
	}
	return t.slots[fh-1]
}

// file is get for an open file.
func (t *handles) file(fh uint64) *handle {
	if h := t.get(fh); h != nil && h.file != nil {
		return h
	}
	return nil
}

// remove takes fh out of the table and returns what it named.
func (t *handles) remove(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	if fh == 0 || fh > uint64(len(t.slots)) || t.slots[fh-1] == nil {
		return nil
	}
	h := t.slots[fh-1]
	t.slots[fh-1] = nil
	t.free = append(t.free, fh)
	return h
}

// len is the number of open handles.
func (t *handles) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.slots) - len(t.free)
}

// all lists the handles that are open.
func (t *handles) all() []*handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var hs []*handle
	for _, h := range t.slots {
		if h != nil {
			hs = append(hs, h)
		}
	}
	return hs
}
