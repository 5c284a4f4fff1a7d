package voters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Images gives images to other voters. Its methods are called from any goroutine.
type Images interface {
	// Newest names the newest image that is durable here; the error is
	// fs.ErrNotExist when there is none.
	Newest() (Image, error)
	// Open opens the file of the image of entry index.
	Open(index uint64) (*os.File, error)
}

// Image is one image file.
type Image struct {
	Path  string
	Index uint64 // last entry that it holds
	Term  uint64 // of that entry
	Size  int64
}

const (
	readSize = 1 << 20 // bytes of one ImageRead
	// pace bounds the bytes per second of one transfer, so that it leaves disk
	// and network to those who write the log meanwhile.
	pace       = 200 << 20
	partSuffix = ".part"
)

// serveImage answers ImageAsk and ImageRead. Files are read in a goroutine of
// the request: the connection is used for nothing else.
func (n *Net) serveImage(r *link.Request) {
	if n.cfg.Images == nil || r.Notice {
		r.Free()
		r.Fail(status.Errorf(status.NotFound, "no images here"))
		return
	}
	if r.Kind == wire.KindImageAsk {
		var ask wire.ImageAsk
		err := r.Decode(&ask)
		r.Free()
		if err != nil {
			r.Fail(err)
			return
		}
		n.wg.Go(func() { n.offer(r, ask) })
		return
	}
	var read wire.ImageRead
	err := r.Decode(&read)
	r.Free()
	if err != nil || read.Len == 0 || read.Len > wire.MaxData {
		r.Fail(status.Errorf(status.BadMessage, "read of %d bytes", read.Len))
		return
	}
	n.wg.Go(func() { n.give(r, read) })
}

func (n *Net) offer(r *link.Request, ask wire.ImageAsk) {
	im, err := n.cfg.Images.Newest()
	if err != nil || im.Index < ask.Index {
		r.Fail(status.Errorf(status.NotFound, "the newest image holds entry %d, %d is wanted", im.Index, ask.Index))
		return
	}
	r.Reply(&wire.ImageOffer{Index: im.Index, Term: im.Term, Size: uint64(im.Size)}, nil, nil)
}

func (n *Net) give(r *link.Request, read wire.ImageRead) {
	f, err := n.cfg.Images.Open(read.Index)
	if err != nil {
		r.Fail(status.Errorf(status.NotFound, "image of entry %d: %v", read.Index, err))
		return
	}
	defer f.Close()
	b := make([]byte, read.Len)
	k, err := f.ReadAt(b, int64(read.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		r.Fail(status.Errorf(status.IO, "%v", err))
		return
	}
	r.Reply(nil, b[:k], nil)
}

// Fetch gets an image that holds at least the entries up to index from the voter
// at addr and puts it into dir under a name of its own; place gives it its final
// name. What an interrupted Fetch of the same image left is taken up again.
func (n *Net) Fetch(ctx context.Context, addr string, index uint64, dir string) (*wire.ImageOffer, string, error) {
	conn, err := link.Dial(ctx, "tcp", addr, n.linkConfig(), nil)
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	var offer wire.ImageOffer
	if err := conn.Call(ctx, &wire.ImageAsk{Index: index}, nil, &offer); err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("fetch.%016x%s", offer.Index, partSuffix))
	dropOthers(dir, path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", err
	}
	err = n.pull(ctx, conn, f, &offer)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, "", fmt.Errorf("image of entry %d from %s: %w", offer.Index, addr, err)
	}
	return &offer, path, nil
}

// dropOthers removes what transfers of other images left.
func dropOthers(dir, keep string) {
	stale, err := filepath.Glob(filepath.Join(dir, "fetch.*"+partSuffix))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	for _, path := range stale {
		if path != keep {
			_ = os.Remove(path) // it only takes room
		}
	}
}

// pull reads what f lacks. Whether the bytes are right is checked by whoever
// loads the image: it carries its own sums.
func (n *Net) pull(ctx context.Context, conn *link.Conn, f *os.File, offer *wire.ImageOffer) error {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if at > int64(offer.Size) {
		at = 0
	}
	if at > 0 {
		n.cfg.Log.Info("voters: image transfer goes on", "index", offer.Index, "offset", at)
	}
	begun, first := time.Now(), at
	b := make([]byte, readSize)
	dirty := 0
	for at < int64(offer.Size) {
		k, err := conn.CallData(ctx, &wire.ImageRead{Index: offer.Index, Offset: uint64(at), Len: readSize}, b, nil)
		if err != nil {
			return err
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := f.WriteAt(b[:k], at); err != nil {
			return err
		}
		at += int64(k)
		if dirty += k; dirty >= 32*readSize { // little at a time: the log is on the same disk
			dirty = 0
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if early := time.Duration(at-first)*time.Second/pace - time.Since(begun); early > 0 {
			select {
			case <-time.After(early):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return f.Truncate(int64(offer.Size))
}

// Fetcher gets an image when the log says that it needs one, one at a time.
type Fetcher struct {
	Net   *Net
	Dir   string
	Adopt func(dir, path string) (index, term uint64, err error) // checks it and gives it its final name
	Done  func(index, term uint64)                               // it is there

	busy atomic.Bool
}

// Fetch sets a transfer going, unless one is under way. It does not block.
func (f *Fetcher) Fetch(from, index uint64) {
	if f.busy.Swap(true) {
		return
	}
	n := f.Net
	addr := n.addrOf(from)
	n.wg.Go(func() {
		defer f.busy.Store(false)
		n.cfg.Log.Info("voters: fetching an image", "from", addr, "index", index)
		_, path, err := n.Fetch(n.ctx, addr, index, f.Dir)
		if err == nil {
			var at, term uint64
			if at, term, err = f.Adopt(f.Dir, path); err == nil {
				f.Done(at, term)
				return
			}
		}
		if n.ctx.Err() == nil {
			n.cfg.Log.Warn("voters: no image yet", "from", addr, "err", err)
		}
	})
}

// addrOf is where a voter is reached; "" when it is not known.
func (n *Net) addrOf(id uint64) string {
	n.mu.Lock()
	p := n.peers[id]
	n.mu.Unlock()
	if p == nil {
		return ""
	}
	return p.address()
}
