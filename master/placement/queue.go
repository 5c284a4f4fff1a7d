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

// queue is a FIFO of slot numbers.
type queue struct {
	refs []uint32
	head int
}

func (q *queue) len() int { return len(q.refs) - q.head }

func (q *queue) push(ref uint32) {
	if q.head > 1024 && q.head*2 > len(q.refs) {
		q.refs = append(q.refs[:0], q.refs[q.head:]...)
		q.head = 0
	}
	q.refs = append(q.refs, ref)
}

func (q *queue) pop() uint32 {
	ref := q.refs[q.head]
	if q.head++; q.head == len(q.refs) {
		q.refs, q.head = q.refs[:0], 0
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
