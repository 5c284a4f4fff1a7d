package image

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
		case p.empty <- b.payload:
		default:
		}
	}
}

// give hands a copy of a block on. After an error it takes no more; the error is end's.
func (p *pipe) give(section string, payload []byte) error {
	var buf []byte
	select {
	case buf = <-p.empty:
	default:
	}
	select {
	case p.full <- piece{section, append(buf[:0], payload...)}:
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
