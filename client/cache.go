package client

import (
	"bytes"
	"sync"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/link"
)

// cache holds blocks of files that were read ahead. A block is good as long as
// R is held and nothing in it was written: dropR, write and truncate drop it.
// No block is made where unwritten data lies, so that none can miss it later.
type cache struct {
	limit int64
	unit  uint64 // bytes of the file that a block stands for

	mu    sync.Mutex
	bytes int64
	files map[*fileData]map[uint64]*block
	byUse lru[block]
}

// block is unit bytes of a file, or up to its end. What it holds is their data, or the
// places where a chunkserver of this host has them.
type block struct {
	d     *fileData
	index uint64 // file offset / unit
	size  int64  // bytes that count against the limit

	// Guarded by cache.mu.
	links[block]
	users   int
	dropped bool

	ready  chan struct{} // closed when the following are set
	piece  piece
	places *placeMap
	err    error
}

// piece is data from a chunkserver. What it is shorter than was asked for reads as zeros.
type piece struct {
	data  []byte
	reply *link.Reply // owns data; may be nil
	mem   []byte      // of package engine, with data in it; may be nil
}

func (p *piece) free() {
	if p.reply != nil {
		p.reply.Free()
	}
	engine.Free(p.mem)
	p.reply, p.data, p.mem = nil, nil, nil
}

// copyTo copies the bytes from off on to p.
func (p *piece) copyTo(dst []byte, off uint32) {
	n := 0
	if int(off) < len(p.data) {
		n = copy(dst, p.data[off:])
	}
	clear(dst[n:])
}

func newCache(limit int64, unit uint64) *cache {
	return &cache{
		limit: limit, unit: unit, files: make(map[*fileData]map[uint64]*block),
		byUse: lru[block]{of: func(b *block) *links[block] { return &b.links }},
	}
}

// size is the memory in use, in bytes.
func (c *cache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// get returns a block for one use. With size > 0 it is made if need be: made
// then tells the caller to load it. The caller holds the node's mu.
func (c *cache) get(d *fileData, index uint64, size int64) (b *block, made bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b = c.files[d][index]
	if b == nil {
		if size == 0 {
			return nil, false
		}
		b = &block{d: d, index: index, size: size, ready: make(chan struct{})}
		if c.files[d] == nil {
			c.files[d] = make(map[uint64]*block)
		}
		c.files[d][index] = b
		c.bytes += size
		made = true
	} else {
		c.byUse.unlink(b)
	}
	c.byUse.front(b)
	b.users++
	for c.bytes > c.limit && c.byUse.oldest != b {
		c.remove(c.byUse.oldest)
	}
	return b, made
}

// hold adds a use to a block that is in use.
func (c *cache) hold(b *block) {
	c.mu.Lock()
	b.users++
	c.mu.Unlock()
}

// put ends a use.
func (c *cache) put(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.users--
	if b.users == 0 && b.dropped {
		b.piece.free()
	}
}

// keepSmall is the size of a file, in bytes, up to which what was written stays
// in the cache: a small file is often read soon after it was made, and takes as
// long to ask for as a big one.
const keepSmall = 64 << 10

// keep puts the bytes of a whole small file into the cache when they have become
// durable, before their buffer goes. n.mu is held.
func (d *fileData) keep(w *leased, e *extent) {
	n := d.n
	if e.zero || w.index != 0 || e.off != 0 || uint64(e.n) != n.attr.Size || e.n > keepSmall || len(w.dirty) > 0 || len(w.sent) > 1 || n.dead || n.orphan {
		return
	}
	b, made := n.c.cache.get(d, 0, int64(e.n))
	if made {
		b.piece.data = bytes.Clone(e.data)
		close(b.ready)
	}
	if b != nil {
		n.c.cache.put(b)
	}
}

// grow changes what a block counts for.
func (c *cache) grow(b *block, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.dropped {
		c.bytes += size - b.size
	}
	b.size = size
}

// failed drops a block that could not be loaded.
func (c *cache) failed(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.dropped {
		c.remove(b)
	}
}

// drop forgets the blocks that overlap off..end of a file. The caller holds the node's mu.
func (c *cache) drop(d *fileData, off, end uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	blocks := c.files[d]
	if len(blocks) == 0 || end <= off {
		return
	}
	first, last := off/c.unit, (end-1)/c.unit
	if last-first > uint64(len(blocks)) {
		for i, b := range blocks {
			if i >= first && i <= last {
				c.remove(b)
			}
		}
		return
	}
	for i := first; i <= last; i++ {
		if b := blocks[i]; b != nil {
			c.remove(b)
		}
	}
}

// forget drops all blocks of a file.
func (c *cache) forget(d *fileData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.files[d] {
		c.remove(b)
	}
}

// dropCached forgets the cached bytes off..end of a file, and where they lie. n.mu is held.
func (d *fileData) dropCached(off, end uint64) {
	d.n.c.cache.drop(d, off, end)
	d.n.c.maps.drop(d, off, end)
}

// forgetCached forgets all cached bytes of a node, and where they lie. mu is held, or
// nobody else can have the node.
func (n *node) forgetCached() {
	if n.data != nil {
		n.c.cache.forget(n.data)
		n.c.maps.forget(n.data)
	}
}

func (c *cache) remove(b *block) {
	c.byUse.unlink(b)
	blocks := c.files[b.d]
	delete(blocks, b.index)
	if len(blocks) == 0 {
		delete(c.files, b.d)
	}
	c.bytes -= b.size
	b.dropped = true
	if b.users == 0 {
		b.piece.free()
	}
}
