package segment

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/varvefs/varve/engine"
)

// checkpoint prints the checkpoint of a slot, if there is one. With verify it checks all its
// pages. A damaged checkpoint is a damage like others: the store does without.
func (p *inspector) checkpoint(src *origin, slot int) error {
	f, err := src.open(checkpointName(slot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	v := checkpointView{Slot: slot}
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	if err := f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	c, err := decodeCheckpoint(b)
	if err == errBlank {
		return nil // made, and not yet completed for the first time
	}
	if err == nil {
		v.Generation, v.LSN, v.Completed, v.Bytes, v.Pages, v.Segments = c.generation, c.lsn, c.at, c.bytes, c.pages, c.segments
		for _, m := range c.durable {
			v.Durable = append(v.Durable, m.seq)
		}
		if c.disk != p.super.id.Disk {
			err = fmt.Errorf("it is of disk %016x", c.disk)
		} else if p.verify {
			err = verifyPages(f, &c)
		}
	}
	if err != nil {
		v.Damage = err.Error()
		p.damages++
	}
	if p.json {
		p.object(v)
		return nil
	}
	p.printf("checkpoint %d: generation %d lsn %d completed at %d, %d pages of %d bytes, %d segments, durable %d\n", slot, v.Generation, v.LSN,
		v.Completed, v.Pages, v.Bytes, v.Segments, v.Durable)
	if v.Damage != "" {
		p.printf("  DAMAGED: %s\n", v.Damage)
	}
	return nil
}

// verifyPages reads and checks all pages of a checkpoint.
func verifyPages(f *readOnly, c *checkpoint) error {
	first := make([]byte, blockSize)
	off := int64(blockSize)
	for n := range c.pages {
		if err := f.ReadAt(first, off); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		size, err := pageSize(first, c.generation, n)
		if err != nil {
			return err
		}
		if int64(size) > f.Size()-off {
			return fmt.Errorf("page %d of %d bytes ends behind the file", n, size)
		}
		page := make([]byte, size)
		if err := f.ReadAt(page, off); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		if _, _, err := checkPage(page, n); err != nil {
			return err
		}
		off += (int64(size) + blockSize - 1) &^ (blockSize - 1)
	}
	return nil
}
