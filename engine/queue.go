package engine

import "sync/atomic"

// This file is for backends.

// Check reports why op cannot run on a file of size bytes, or nil.
func (op *Op) Check(size int64) error {
	if op.Kind == Sync {
		return nil
	}
	if op.Kind > Sync {
		return ErrRange
	}
	return CheckRange(op.Buf, op.Off, size)
}

// CheckRange reports why buf cannot be transferred at off of a file of size bytes, or nil.
func CheckRange(buf []byte, off, size int64) error {
	if len(buf) == 0 || off&(Align-1) != 0 || !Aligned(buf) {
		return ErrMisaligned
	}
	if off < 0 || off > size-int64(len(buf)) {
		return ErrRange
	}
	return nil
}

// Finish ends op: it names the file in err and calls Done. The backend must not touch
// op afterwards.
func (op *Op) Finish(name string, err error) {
	if err != nil {
		err = &IOError{Kind: op.Kind, Name: name, Off: op.Off, Len: len(op.Buf), Err: err}
	}
	op.Err = err
	op.next, op.target = nil, nil
	op.Done(op)
}

// Target is what the op was queued with: the backend's file.
func (op *Op) Target() any { return op.target }

// List is a queue of ops in order, linked through the ops themselves. It is not safe
// for concurrent use. The zero List is empty.
type List struct {
	head, tail *Op
}

// Empty reports whether the list has no op.
func (l *List) Empty() bool { return l.head == nil }

// Push appends op for the backend's file target.
func (l *List) Push(target any, op *Op) {
	op.target, op.next = target, nil
	if l.tail == nil {
		l.head = op
	} else {
		l.tail.next = op
	}
	l.tail = op
}

// Pop removes the oldest op; nil when there is none.
func (l *List) Pop() *Op {
	op := l.head
	if op == nil {
		return nil
	}
	if l.head = op.next; l.head == nil {
		l.tail = nil
	}
	op.next = nil
	return op
}

// Inbox is a queue that many goroutines fill without a lock and one empties. The zero
// Inbox is empty.
type Inbox struct {
	head atomic.Pointer[Op] // newest first
}

// Put adds ops for the backend's file target.
func (q *Inbox) Put(target any, ops ...*Op) {
	if len(ops) == 0 {
		return
	}
	for i, op := range ops {
		op.target = target
		if i > 0 {
			op.next = ops[i-1]
		}
	}
	first, last := ops[0], ops[len(ops)-1]
	for {
		old := q.head.Load()
		first.next = old
		if q.head.CompareAndSwap(old, last) {
			return
		}
	}
}

// Empty reports whether there is nothing to take.
func (q *Inbox) Empty() bool { return q.head.Load() == nil }

// Take moves everything in the inbox to the end of l, oldest first.
func (q *Inbox) Take(l *List) {
	op := q.head.Swap(nil)
	if op == nil {
		return
	}
	newest := op
	var older *Op // the part already turned round
	for op != nil {
		next := op.next
		op.next = older
		older, op = op, next
	}
	if l.tail == nil {
		l.head = older
	} else {
		l.tail.next = older
	}
	l.tail = newest
}
