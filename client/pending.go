package client

import (
	"context"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

type Client struct{}
type File struct{}
type Dir struct{}

func Connect(ctx context.Context, cfg Config) (*Client, error) { return nil, status.Unsupported }
func (c *Client) SetNotifier(n Notifier)                       {}
func (c *Client) Close(ctx context.Context) error              { return status.Unsupported }
func (c *Client) Root() inode.Ino                              { return 0 }
func (c *Client) Lookup(ctx context.Context, parent inode.Ino, name string) (Node, error) {
	return Node{}, status.Unsupported
}
func (c *Client) GetAttr(ctx context.Context, ino inode.Ino) (Node, error) {
	return Node{}, status.Unsupported
}
func (c *Client) SetAttr(ctx context.Context, ino inode.Ino, set wire.SetAttr) (Node, error) {
	return Node{}, status.Unsupported
}
func (c *Client) Make(ctx context.Context, m wire.Make) (Node, error) {
	return Node{}, status.Unsupported
}
func (c *Client) Create(ctx context.Context, m wire.Make, flags uint32) (Node, *File, error) {
	return Node{}, nil, status.Unsupported
}
func (c *Client) Remove(ctx context.Context, parent inode.Ino, name string, dir bool) error {
	return status.Unsupported
}
func (c *Client) Rename(ctx context.Context, parent inode.Ino, name string, newParent inode.Ino, newName string, flags uint32) error {
	return status.Unsupported
}
func (c *Client) Link(ctx context.Context, ino, parent inode.Ino, name string) (Node, error) {
	return Node{}, status.Unsupported
}
func (c *Client) Readlink(ctx context.Context, ino inode.Ino) ([]byte, error) {
	return nil, status.Unsupported
}
func (c *Client) OpenFile(ctx context.Context, ino inode.Ino, flags uint32) (*File, error) {
	return nil, status.Unsupported
}
func (c *Client) OpenDir(ctx context.Context, ino inode.Ino) (*Dir, error) {
	return nil, status.Unsupported
}
func (c *Client) GetXattr(ctx context.Context, ino inode.Ino, name string) ([]byte, error) {
	return nil, status.Unsupported
}
func (c *Client) SetXattr(ctx context.Context, ino inode.Ino, name string, value []byte, flags uint32, kill bool) error {
	return status.Unsupported
}
func (c *Client) RemoveXattr(ctx context.Context, ino inode.Ino, name string) error {
	return status.Unsupported
}

// ListXattr returns the names, each ended by a zero byte.
func (c *Client) ListXattr(ctx context.Context, ino inode.Ino) ([]byte, error) {
	return nil, status.Unsupported
}
func (c *Client) StatFS(ctx context.Context) (wire.StatFSReply, error) {
	return wire.StatFSReply{}, status.Unsupported
}
func (c *Client) Lock(ctx context.Context, l wire.Lock) (wire.LockReply, error) {
	return wire.LockReply{}, status.Unsupported
}
func (c *Client) CopyRange(ctx context.Context, in *File, offIn int64, out *File, offOut int64, n int64) (int64, error) {
	return 0, status.Unsupported
}
func (d *Dir) Ino() inode.Ino    { return 0 }
func (d *Dir) Parent() inode.Ino { return 0 }
func (d *Dir) Read(ctx context.Context, cookie uint64, each func(DirEntry) bool) error {
	return status.Unsupported
}
func (d *Dir) Close() error { return nil }

func (f *File) Ino() inode.Ino { return 0 }
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, status.Unsupported
}
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, flags WriteFlags) (int, error) {
	return 0, status.Unsupported
}
func (f *File) Flush(ctx context.Context) error               { return status.Unsupported }
func (f *File) Sync(ctx context.Context, datasync bool) error { return status.Unsupported }
func (f *File) Close() error                                  { return nil }
func (f *File) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	return status.Unsupported
}
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	return 0, status.Unsupported
}
func (f *File) KeepCache() bool { return false }
