package chunkd

import (
	"context"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// digestBlock is the unit of DigestReply.Blocks in bytes.
const digestBlock = 64 << 10

// digest makes the DigestReply of a copy from what is on disk. The copy takes
// no more writes at its present version.
func (s *Server) digest(ctx context.Context, id chunk.ID) (*wire.DigestReply, error) {
	var d *disk
	err := s.fence.shut(id, func() (v chunk.Version, err error) {
		var info segment.Info
		d, info, err = s.shelf.find(id)
		return info.Version, err
	})
	if err != nil {
		return nil, err
	}
	if err := d.store.Sync([]chunk.ID{id}); err != nil {
		return nil, d.check(err)
	}
	info, ok := d.store.Stat(id)
	if !ok {
		return nil, status.Errorf(status.NoChunk, "chunk %v", id)
	}
	reply := &wire.DigestReply{Version: info.Version, Length: info.Length, Writes: info.Writes}
	buf := engine.Alloc(copyBlock)
	defer engine.Free(buf)
	for off := uint32(0); off < info.Length && ctx.Err() == nil; off += copyBlock {
		b := buf[:min(copyBlock, info.Length-off)]
		if _, err := d.store.Read(id, info.Version, info.Version, off, b, nil); err != nil {
			s.readFailed(d, id, err)
			return nil, err
		}
		for len(b) > 0 {
			n := min(digestBlock, len(b))
			reply.Blocks = append(reply.Blocks, chunk.Sum(b[:n]))
			b = b[n:]
		}
	}
	return reply, ctx.Err()
}
