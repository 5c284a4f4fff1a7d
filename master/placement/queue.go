package placement

// Places where a slot can wait, most urgent first. A slot is in at most one of
// them by slot.place; entries elsewhere that it left behind are passed over.
const (
	placeNone    uint8 = iota
	placeHot           // one valid copy left
	placeVerify        // a copy must be asked for its version
	placeHotLate       // in delayed, and was hot
	placeUnder         // fewer valid copies than the goal
	placeExcess        // more copies than the goal, or bad ones that can go
	placeLate          // in delayed
	places
)

// queueBlock is how many slot numbers lie together, 16 KiB.
const queueBlock = 4096

// queue is a FIFO of slot numbers. It can have tens of millions for a moment, when a server
// has gone: it grows without a copy, and gives back what it has been emptied of.
type queue struct {
	blocks     []*[queueBlock]uint32
	head, tail int // the first in the first block; the next free one in the last
	n          int
}

func (q *queue) len() int { return q.n }

func (q *queue) push(ref uint32) {
	if len(q.blocks) == 0 || q.tail == queueBlock {
		q.blocks, q.tail = append(q.blocks, new([queueBlock]uint32)), 0
	}
	q.blocks[len(q.blocks)-1][q.tail] = ref
	q.tail++
	q.n++
}

func (q *queue) pop() uint32 {
	ref := q.blocks[0][q.head]
	q.head++
	q.n--
	switch {
	case q.n == 0:
		q.blocks, q.head, q.tail = q.blocks[len(q.blocks)-1:], 0, 0
	case q.head == queueBlock:
		q.blocks[0] = nil
		q.blocks, q.head = q.blocks[1:], 0
	}
	return ref
}

// late is a slot that is to be looked at again at due.
type late struct {
	due int64
	ref uint32
}

// heap has the earliest first.
type heap []late

func (h *heap) push(e late) {
	*h = append(*h, e)
	for i := len(*h) - 1; i > 0; {
		up := (i - 1) / 2
		if (*h)[up].due <= (*h)[i].due {
			return
		}
		(*h)[up], (*h)[i] = (*h)[i], (*h)[up]
		i = up
	}
}

func (h *heap) pop() late {
	top := (*h)[0]
	n := len(*h) - 1
	(*h)[0] = (*h)[n]
	*h = (*h)[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return top
		}
		if c+1 < n && (*h)[c+1].due < (*h)[c].due {
			c++
		}
		if (*h)[i].due <= (*h)[c].due {
			return top
		}
		(*h)[i], (*h)[c] = (*h)[c], (*h)[i]
		i = c
	}
}
