package image

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// pipe hands blocks to a goroutine, so that two processors share the work of
// reading an image.
type pipe struct {
	visit func(section string, payload []byte) error
	full  chan piece
	empty chan []byte
	done  chan struct{} // closed when the goroutine has ended
	err   error         // read it after done
}

type piece struct {
	section string
	payload []byte
	buf     []byte // where the payload lies
}

// pipeDepth is how many blocks may wait.
const pipeDepth = 32

func newPipe(visit func(string, []byte) error) *pipe {
	p := &pipe{visit: visit, full: make(chan piece, pipeDepth), empty: make(chan []byte, pipeDepth), done: make(chan struct{})}
	go p.run()
	return p
}

func (p *pipe) run() {
	defer close(p.done)
	for b := range p.full {
		if err := p.visit(b.section, b.payload); err != nil {
			p.err = &DamageError{Section: b.section, Reason: err.Error()}
			return
		}
		select {
		case p.empty <- b.buf:
		default:
		}
	}
}

// room gives a buffer to read a block into.
func (p *pipe) room() []byte {
	select {
	case b := <-p.empty:
		return b
	default:
		return nil
	}
}

// give hands a block on, and the buffer that it lies in. After an error it takes
// no more; the error is end's.
func (p *pipe) give(section string, payload, buf []byte) error {
	select {
	case p.full <- piece{section, payload, buf}:
		return nil
	case <-p.done:
		return p.err
	}
}

// end waits until all blocks are taken apart.
func (p *pipe) end() error {
	close(p.full)
	<-p.done
	return p.err
}

// together runs checks on all processors, and gives the first error in their order.
func together(checks []func() error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(checks))
	for range min(len(checks), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(checks)); i = next.Add(1) - 1 {
				errs[i] = checks[i]()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
