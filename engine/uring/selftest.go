//go:build giouring

package uring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// selfTestTimeout bounds each operation of the self-test. A ring that works needs
// milliseconds; a disk may be slow.
const selfTestTimeout = 30 * time.Second

// selfTest tries on a file without a name what has been seen to go wrong: a write in the
// submission entry that an fdatasync has used, a transfer that comes back short, a signal
// to the sleeping owner. The ring has one entry, so that everything meets in it.
func selfTest(scratch func(size int64) (*host.File, error)) error {
	own, err := startOwner(1)
	if err != nil {
		return err
	}
	hf, err := scratch(16 << 10)
	if err != nil {
		own.close()
		return err
	}
	t := &trial{own: own, file: &File{File: hf}}
	err = t.run()
	if errors.Is(err, errHangs) {
		return err // the ring and the file stay behind: the kernel may still use them
	}
	if e := hf.Close(); err == nil {
		err = e
	}
	own.close()
	return err
}

var errHangs = errors.New("an operation does not complete")

type trial struct {
	own  *owner
	file *File
}

func (t *trial) run() error {
	data, back := engine.Alloc(8192), engine.Alloc(8192)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	for round, kind := range []engine.Kind{engine.Write, engine.WriteSync, engine.Write} {
		data[0] = byte(round)
		if err := errors.Join(
			t.do(engine.Sync, nil, 0),
			t.do(kind, data, 0),
			t.do(engine.Sync, nil, 0),
			t.do(engine.Read, back, 0),
		); err != nil {
			return err
		}
		if !bytes.Equal(data, back) {
			return fmt.Errorf("what %v wrote reads back differently", kind)
		}
	}
	if err := unix.Ftruncate(t.file.Fd(), 8192); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if err := t.do(engine.Read, back, 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("a read across the end of the file returns %v", err)
	}
	return t.signal(data)
}

// signal interrupts the sleeping owner a few times and goes on.
func (t *trial) signal(data []byte) error {
	for range 3 {
		for deadline := time.Now().Add(selfTestTimeout); !t.own.asleep.Load(); {
			if time.Now().After(deadline) {
				return errHangs
			}
			time.Sleep(50 * time.Microsecond)
		}
		// The runtime uses SIGURG itself and ignores one that it did not ask for.
		if err := unix.Tgkill(unix.Getpid(), t.own.tid, syscall.SIGURG); err != nil {
			return fmt.Errorf("tgkill: %w", err)
		}
		if err := t.do(engine.Write, data, 0); err != nil {
			return fmt.Errorf("after a signal: %w", err)
		}
	}
	return nil
}

// do is engine.Do with a deadline, and always by the ring.
func (t *trial) do(kind engine.Kind, buf []byte, off int64) error {
	done := make(chan error, 1)
	op := &engine.Op{Kind: kind, Buf: buf, Off: off, Done: func(op *engine.Op) { done <- op.Err }}
	t.file.Enter(2) // one for the submission, as in File.Submit
	t.own.submit(t.file, []*engine.Op{op})
	t.file.Leave()
	select {
	case err := <-done:
		return err
	case <-time.After(selfTestTimeout):
		return errHangs
	}
}
