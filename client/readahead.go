package client

import "sync"

const (
	seqSlack   = 4 * blockSize // how far a read may be from where the last ended and still be sequential
	aheadFirst = 2 * blockSize // first window
	startsFrom = 32 << 10      // a first read of so much at offset 0 is taken for the start of a stream
)

// readAhead watches one File for sequential reads. The kernel's own requests
// come several at a time and out of order.
type readAhead struct {
	mu     sync.Mutex
	next   int64 // end of what was read
	run    int   // reads in sequence
	window int64
	upto   int64 // end of what was asked for ahead
	off    bool  // the File is closed
}

// see notes a read and tells whether it goes through blocks, and the range
// that is worth reading ahead (empty: from == to).
func (r *readAhead) see(off, n, size, most int64) (blocks bool, from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n >= size || r.off {
		return false, 0, 0 // the whole file in one go
	}
	switch {
	case r.next == 0 && off == 0:
		r.run = 0
		if n >= startsFrom {
			r.run = 1
		}
	case off >= r.next-seqSlack && off <= r.next+seqSlack && n >= 4096 && (off == r.next || n >= startsFrom):
		r.run++
	default:
		r.run, r.window, r.upto = 0, 0, 0
	}
	end := off + n
	forward := end > r.next
	if forward || r.run == 0 {
		r.next = end
	}
	if r.run == 0 || r.run < 3 && n < startsFrom {
		return false, 0, 0
	}
	if r.run < 2 {
		return true, 0, 0
	}
	if forward && (r.window == 0 || r.next+r.window/2 > r.upto) {
		r.window = min(max(aheadFirst, 2*r.window), most)
	}
	from = max(end, r.upto)
	to = min(end+r.window, size)
	if to <= from {
		return true, 0, 0
	}
	r.upto = to
	return true, from, to
}

func (r *readAhead) stop() {
	r.mu.Lock()
	r.off = true
	r.mu.Unlock()
}
