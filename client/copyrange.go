package client

import (
	"context"

	"github.com/varvefs/varve/status"
)

// CopyRange copies up to size bytes from one file to another, or within one, as
// copy_file_range(2), and returns how many there were. Holes become zeros.
func (c *Client) CopyRange(ctx context.Context, in *File, offIn int64, out *File, offOut int64, size int64) (int64, error) {
	if offIn < 0 || offOut < 0 || size < 0 {
		return 0, status.Invalid
	}
	if in.n == out.n && offIn < offOut+size && offOut < offIn+size {
		return 0, status.Invalid // as the kernel says of overlapping ranges
	}
	buf := make([]byte, min(size, 4*blockSize))
	done := int64(0)
	for done < size {
		n, err := in.ReadAt(ctx, buf[:min(int64(len(buf)), size-done)], offIn+done)
		if err != nil || n == 0 {
			return done, partly(done, err)
		}
		for p := buf[:n]; len(p) > 0; {
			k, err := out.WriteAt(ctx, p[:min(len(p), blockSize)], offOut+done, WriteFlags{})
			if err != nil {
				return done, partly(done, err)
			}
			done += int64(k)
			p = p[k:]
		}
	}
	return done, nil
}

// partly hides an error behind what was done before it.
func partly(done int64, err error) error {
	if done > 0 {
		return nil
	}
	return err
}
