package client

import (
	"context"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/wire"
)

// truncateTo carries out a SetAttr that sets the size or times of a file of
// which there may be unwritten data here. What lies behind the new size is
// dropped, nothing is under way while the master cuts, and no Commit can tell
// the old size afterwards. out (may be nil) receives the answer.
func (n *node) truncateTo(ctx context.Context, set *wire.SetAttr, out *Node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.frozen || n.early > 0 {
		n.c.early.push()
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	cut := set.Valid&wire.SetSize != 0
	if err := n.claim(ctx); err != nil {
		return err
	}
	d := n.data
	if cut {
		n.frozen = true
		defer func() {
			n.frozen = false
			n.cond.Broadcast()
		}()
		for n.writers > 0 || n.readers > 0 {
			if err := n.await(ctx); err != nil {
				n.unclaim()
				return err
			}
		}
		ctx = context.WithoutCancel(ctx) // half a cut is none
		if err := d.cutTo(ctx, set.Size); err != nil {
			n.unclaim()
			return err
		}
	}
	n.mu.Unlock()
	var reply wire.AttrReply
	err := n.c.ses.do(context.WithoutCancel(ctx), set, &reply, func(k *call, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if err == nil {
			n.wasSet(k, set, &reply, out)
		}
		n.unclaim()
	})
	n.mu.Lock()
	if err != nil && n.c.ctx.Err() != nil {
		n.unclaim()
	}
	if gone(err) {
		n.bury()
	}
	return err
}

// cutTo drops unwritten data behind size and waits until nothing is under way.
// n.mu is held before and after.
func (d *fileData) cutTo(ctx context.Context, size uint64) error {
	n := d.n
	for index, w := range d.chunks {
		from := uint64(0)
		if base := uint64(index) * chunk.Size; size > base {
			from = size - base
		}
		if from < chunk.Size {
			w.dirty.cut(uint32(from), chunk.Size)
		}
	}
	d.dropCached(size, ^uint64(0))
	for !d.quiet() {
		for _, w := range d.chunks {
			if len(w.dirty) > 0 && w.anyReady() || w.again || len(w.broken) > 0 {
				w.kick()
			}
		}
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// quiet says whether nothing is under way and nobody is about to send.
func (d *fileData) quiet() bool {
	for _, w := range d.chunks {
		if w.working || w.flying > 0 || w.again || len(w.broken) > 0 {
			return false
		}
	}
	return true
}

// wasSet takes over the answer to a SetAttr. mu is held; it runs on the read goroutine.
func (n *node) wasSet(k *call, set *wire.SetAttr, reply *wire.AttrReply, out *Node) {
	d := n.data
	n.grant(k, reply.Rights, 0)
	if set.Valid&wire.SetSize != 0 {
		d.wasCut(set.Size) // even where the size grows: the master cuts what is leased all the same
		n.attr.Size = set.Size
		n.attr.Mtime = reply.Attr.Mtime
		d.changed, d.grown = false, false
		d.baseSize, d.baseTime, d.exposed = reply.Attr.Size, reply.Attr.Mtime, false
	} else if set.Valid&(wire.SetMtime|wire.SetMtimeNow) != 0 {
		n.attr.Mtime = reply.Attr.Mtime
		d.baseTime = reply.Attr.Mtime
		d.changed = d.grown
	}
	busy := d.committing
	d.committing = false // the reply is newer than what is here, but for what is still changed
	answer := n.seen(&reply.Attr)
	d.committing = busy
	if out != nil && !k.abandoned() {
		*out = answer
	}
}

// wasCut adapts the chunks to a new size. n.mu is held.
func (d *fileData) wasCut(size uint64) {
	for index := range d.layout {
		if uint64(index)*chunk.Size >= size {
			delete(d.layout, index)
		} else if uint64(index+1)*chunk.Size > size {
			delete(d.layout, index)
		}
	}
	for index, w := range d.chunks {
		base := uint64(index) * chunk.Size
		if base+chunk.Size <= size {
			continue
		}
		if base >= size {
			w.drop()
			w.held, w.trimmed = false, false
			delete(d.chunks, index)
			continue
		}
		keep := uint32(size - base)
		w.forget(keep)
		// The master counts only the bytes up to here from now on: they have to
		// be cut off on the replicas before anything is written behind them.
		if w.held {
			w.loc.Valid = min(w.loc.Valid, keep)
			w.trimmed = false
		}
	}
	d.ahead = 0
}

// forget drops what is behind off of the data that is kept until it is durable.
func (w *leased) forget(off uint32) {
	keep := w.sent[:0]
	for _, e := range w.sent {
		switch {
		case e.off >= off:
			w.heavy -= int64(len(e.data))
			e.release()
			continue
		case e.end() > off:
			w.heavy -= int64(len(e.data))
			e.trim = false
			e.shorten(off)
			w.heavy += int64(len(e.data))
		}
		keep = append(keep, e)
	}
	clear(w.sent[len(keep):])
	w.sent = keep
}
