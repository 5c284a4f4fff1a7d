package client

import (
	"context"
	"errors"
)

// Caller is whom a call is made for. The calls of this package ask their context for
// it, with CallerKey{}; there need not be one.
type Caller interface {
	// Waits is called each time before a call waits for something: an answer of a
	// server, a right, memory, a disk. It must return quickly and may be called more
	// than once, with locks of this package held. It lets a caller that answers many
	// requests on one goroutine make another one only when that is needed.
	Waits()
	// WaitsDisk is called in its place before a read from a disk of this host, which
	// mostly ends before another goroutine would have begun, and HasRead behind it.
	WaitsDisk()
	HasRead()
	// Over is closed when nobody wants to know what became of a call, though it may
	// have been carried out.
	Over() <-chan struct{}
}

// CallerKey is the key of a context's Caller.
type CallerKey struct{}

// ErrKilled is the error of a context whose program is being killed: it is not to wait any
// longer. Of a change that a master may know already the call still returns what became of
// it, unless the Caller is Over: until then everybody else here has to reckon with both.
var ErrKilled = errors.New("the program is being killed")

func caller(ctx context.Context) Caller {
	c, _ := ctx.Value(CallerKey{}).(Caller)
	return c
}

// Waits tells the Caller that a call begins to wait.
func Waits(ctx context.Context) {
	if c := caller(ctx); c != nil {
		c.Waits()
	}
}

// fromDisk carries out a read from a disk of this host.
func fromDisk(ctx context.Context, read func() error) error {
	c := caller(ctx)
	if c == nil {
		return read()
	}
	c.WaitsDisk()
	defer c.HasRead()
	return read()
}

// doomed says whether the program for which a call is made is being killed.
func doomed(ctx context.Context) bool { return errors.Is(ctx.Err(), ErrKilled) }
