package client

import "context"

type waitKey struct{}

// OnWait makes a context that has f called by the calls it is given to, each time
// before they wait for something: an answer of a server, a right, memory, a disk.
// f must return quickly and may be called more than once, with locks of this
// package held. It lets a caller that answers many requests on one goroutine make
// another one only when that is needed.
func OnWait(ctx context.Context, f func()) context.Context { return &waitContext{ctx, f} }

// waitContext is not made by context.WithValue, so that making one costs little.
type waitContext struct {
	context.Context
	f func()
}

// Value is context.Context's.
func (w *waitContext) Value(key any) any {
	if _, mine := key.(waitKey); mine {
		return w.f
	}
	return w.Context.Value(key)
}

// Waits tells whoever asked for it with OnWait that a call begins to wait.
func Waits(ctx context.Context) {
	if f, ok := ctx.Value(waitKey{}).(func()); ok {
		f()
	}
}
