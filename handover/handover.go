// Package handover passes open descriptors from one process of a host to another one.
//
// chunkd opens a [Desk] and promises descriptors to a mount (Desk.Promise), which it tells
// name, ticket and proof of the promise on their authenticated connection; client takes them
// ([Take]). The socket is an abstract unix one: it can be reached from the same network
// namespace only, so that a mount in another container, or behind an address that only looks
// like this host's, finds nobody there and reads over the network. Nobody gets anything
// without a ticket, which is random, is good once and only for a moment, and was told to
// nobody but the mount; nor without being root or the desk's own user. Whoever has taken the
// name before the desk did cannot show the proof.
//
// A Desk owns its listener and its promises (mu, a leaf). Take owns nothing.
package handover

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxFiles is the most descriptors of one promise. The kernel takes 253 in a message.
	MaxFiles = 64

	ticketLife  = 10 * time.Second
	ticketsMax  = 1024            // promises that nobody has taken yet
	visitTime   = 2 * time.Second // longest time of one visit
	visitorsMax = 64              // at the same time
)

// Secret is a ticket, or a proof.
type Secret [32]byte

// Promise is what the taker must know.
type Promise struct {
	Socket string // name, for Take
	Ticket Secret
	Proof  Secret
}

// Desk hands out what was promised.
type Desk struct {
	name     string
	ln       *net.UnixListener
	uid      uint32
	visitors chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex
	promises map[Secret]*promise
}

type promise struct {
	proof Secret
	open  func() ([]int, error)
	until time.Time
}

// Open listens under a new random name.
func Open() (*Desk, error) {
	var b [8]byte
	rand.Read(b[:])
	name := "@varve-lend-" + hex.EncodeToString(b[:])
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for local readers: %w", err)
	}
	d := &Desk{name: name, ln: ln, uid: uint32(os.Geteuid()), visitors: make(chan struct{}, visitorsMax), promises: make(map[Secret]*promise)}
	d.wg.Add(1)
	go d.accept()
	return d, nil
}

// Promise makes a promise. When it is kept, open is called, once, for the descriptors;
// they are closed after they were sent. There may be at most MaxFiles.
func (d *Desk) Promise(open func() ([]int, error)) (Promise, error) {
	p := Promise{Socket: d.name}
	rand.Read(p.Ticket[:])
	rand.Read(p.Proof[:])
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.promises) >= ticketsMax {
		for t, old := range d.promises {
			if now.After(old.until) {
				delete(d.promises, t)
			}
		}
		if len(d.promises) >= ticketsMax {
			return p, fmt.Errorf("%d promised handovers were not taken", len(d.promises))
		}
	}
	d.promises[p.Ticket] = &promise{proof: p.Proof, open: open, until: now.Add(ticketLife)}
	return p, nil
}

// Close ends the desk and waits for those at it.
func (d *Desk) Close() error {
	err := d.ln.Close()
	d.wg.Wait()
	return err
}

func (d *Desk) accept() {
	defer d.wg.Done()
	for {
		c, err := d.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, say
			continue
		}
		select {
		case d.visitors <- struct{}{}:
		default:
			c.Close()
			continue
		}
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			d.serve(c)
			c.Close()
			<-d.visitors
		}()
	}
}

// serve answers one visitor. Whatever is wrong with him, he is told nothing.
func (d *Desk) serve(c *net.UnixConn) {
	c.SetDeadline(time.Now().Add(visitTime))
	if uid, err := peer(c); err != nil || uid != 0 && uid != d.uid {
		return
	}
	var ticket Secret
	if _, err := io.ReadFull(c, ticket[:]); err != nil {
		return
	}
	d.mu.Lock()
	p := d.promises[ticket]
	delete(d.promises, ticket)
	d.mu.Unlock()
	if p == nil || time.Now().After(p.until) {
		return
	}
	fds, err := p.open()
	defer closeAll(fds)
	if err != nil || len(fds) > MaxFiles {
		return
	}
	c.WriteMsgUnix(p.proof[:], unix.UnixRights(fds...), nil) // a visitor who has gone has gone
}

// peer is the user at the other end.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		err = e
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// Take fetches n promised descriptors, which the caller closes.
func Take(ctx context.Context, p Promise, n int) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "unix", p.Socket)
	if err != nil {
		return nil, fmt.Errorf("take descriptors: %w", err)
	}
	defer nc.Close()
	c := nc.(*net.UnixConn)
	if until, ok := ctx.Deadline(); ok {
		c.SetDeadline(until)
	}
	if _, err := c.Write(p.Ticket[:]); err != nil {
		return nil, fmt.Errorf("take descriptors: %w", err)
	}
	var proof Secret
	oob := make([]byte, unix.CmsgSpace(4*MaxFiles))
	got, k, flags, _, err := c.ReadMsgUnix(proof[:], oob) // sets MSG_CMSG_CLOEXEC
	if err != nil {
		return nil, fmt.Errorf("take descriptors: %w", err)
	}
	fds, err := received(oob[:k])
	switch {
	case err != nil:
	case got != len(proof) || subtle.ConstantTimeCompare(proof[:], p.Proof[:]) != 1:
		err = errors.New("who listens there did not promise them")
	case flags&unix.MSG_CTRUNC != 0 || len(fds) != n:
		err = fmt.Errorf("%d of %d came; is the limit of open files (ulimit -n) reached?", len(fds), n)
	}
	if err != nil {
		closeAll(fds)
		return nil, fmt.Errorf("take descriptors: %w", err)
	}
	return fds, nil
}

// received lists the descriptors that came with a message.
func received(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
