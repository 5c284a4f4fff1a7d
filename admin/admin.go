// Package admin has every question and order that an operator has for a
// cluster, as Go functions. The command line and the web page are made of them.
// It calls the masters' client port over link and owns only its connection.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// dialTimeout bounds the connection to one master.
const dialTimeout = 3 * time.Second

// Client asks the leading master.
type Client struct {
	conn *link.Conn
	addr string
}

// Dial connects to the first of the masters that answers and accepts the key.
func Dial(ctx context.Context, masters []string, key []byte) (*Client, error) {
	var errs []error
	for _, addr := range masters {
		dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := link.Dial(dialCtx, "tcp", addr, link.Config{
			Key: key, Role: wire.RoleAdmin, Want: wire.RoleMaster, Client: "varve admin",
		}, nil)
		cancel()
		if err == nil {
			return &Client{conn, addr}, nil
		}
		errs = append(errs, fmt.Errorf("master %s: %w", addr, err))
	}
	if len(errs) == 0 {
		return nil, status.Errorf(status.Invalid, "no master is configured")
	}
	return nil, errors.Join(errs...)
}

// Addr is the master that is asked.
func (c *Client) Addr() string { return c.addr }

// Close ends the connection.
func (c *Client) Close() { c.conn.Close() }

// ask sends one question and decodes its answer.
func ask[Answer any](ctx context.Context, c *Client, what string, args any) (*Answer, error) {
	req := &wire.Admin{What: what}
	if args != nil {
		var err error
		if req.Args, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	var reply wire.AdminReply
	if err := c.conn.Call(ctx, req, nil, &reply); err != nil {
		return nil, err
	}
	answer := new(Answer)
	if err := json.Unmarshal(reply.JSON, answer); err != nil {
		return nil, fmt.Errorf("answer of master %s to %q: %w", c.addr, what, err)
	}
	return answer, nil
}

// Status is the whole cluster at a glance.
func (c *Client) Status(ctx context.Context) (*wire.Status, error) {
	return ask[wire.Status](ctx, c, wire.AskStatus, nil)
}

// Path finds the inode of an absolute path in the file system.
func (c *Client) Path(ctx context.Context, path string) (inode.Ino, error) {
	r, err := ask[wire.InoArgs](ctx, c, wire.AskPath, wire.PathArgs{Path: path})
	if err != nil {
		return 0, err
	}
	return inode.Ino(r.Ino), nil
}

// FileInfo tells where a file's chunks are.
func (c *Client) FileInfo(ctx context.Context, ino inode.Ino) (*wire.FileInfo, error) {
	return ask[wire.FileInfo](ctx, c, wire.AskFileInfo, wire.InoArgs{Ino: uint64(ino)})
}

// DirInfo gives the counters of everything below a directory.
func (c *Client) DirInfo(ctx context.Context, ino inode.Ino) (*wire.DirInfo, error) {
	return ask[wire.DirInfo](ctx, c, wire.AskDirInfo, wire.InoArgs{Ino: uint64(ino)})
}

// CheckFile counts a file's chunks by their valid copies.
func (c *Client) CheckFile(ctx context.Context, ino inode.Ino) (*wire.CheckFile, error) {
	return ask[wire.CheckFile](ctx, c, wire.AskCheckFile, wire.InoArgs{Ino: uint64(ino)})
}

// GetGoal asks for the goal of an inode or, recursive, counts goals below it.
func (c *Client) GetGoal(ctx context.Context, ino inode.Ino, recursive bool) (*wire.GoalReply, error) {
	return ask[wire.GoalReply](ctx, c, wire.AskGetGoal, wire.GoalArgs{Ino: uint64(ino), Recursive: recursive})
}

// SetGoal sets the goal (1..9 copies) of an inode or of everything below it.
func (c *Client) SetGoal(ctx context.Context, ino inode.Ino, goal uint8, recursive bool) (*wire.GoalReply, error) {
	return ask[wire.GoalReply](ctx, c, wire.AskSetGoal, wire.GoalArgs{Ino: uint64(ino), Goal: goal, Recursive: recursive})
}

// SaveImage makes the master write an image of its tree now.
func (c *Client) SaveImage(ctx context.Context) (*wire.SaveReply, error) {
	return ask[wire.SaveReply](ctx, c, wire.AskSnapshot, nil)
}
