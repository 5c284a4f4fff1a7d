// Package admin has every question and order that an operator has for a
// cluster, as Go functions. The command line and the web page are made of them.
// It calls the masters' client port over link and owns only its connection.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	dialTimeout   = 3 * time.Second       // of the connection to one master
	leaderWait    = 3 * time.Second       // for one of several masters to lead
	leaderAgain   = 50 * time.Millisecond // between two rounds through the masters
	fixedWait     = time.Second           // for the own address of a master known by a virtual one
	maxCandidates = 16
)

// Client asks the leading master.
type Client struct {
	// Waiting, if it is set, is called when a question is asked, and what it returns when
	// the answer is there: for somebody who is told that it takes long.
	Waiting func() (answered func())

	conn *link.Conn
	addr string
	who  wire.WhoReply // what the master said of itself and the others
}

// Dial connects to the master that leads. The masters given name the others, so
// that one address is enough. When none leads within a few seconds, it is one
// that answers: it can tell the status, and nothing else.
func Dial(ctx context.Context, masters []string, key []byte) (*Client, error) {
	if len(masters) == 0 {
		return nil, status.Errorf(status.Invalid, "no master is configured")
	}
	masters = slices.Clone(masters)
	for deadline := time.Now().Add(leaderWait); ; {
		c, leads, err := dialRound(ctx, &masters, key)
		if leads || c == nil || time.Now().After(deadline) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, nil
		case <-time.After(leaderAgain):
		}
		c.Close()
	}
}

// dialRound tries all masters once, also those it hears of on the way. It
// returns the leader, or else the first one that answers.
func dialRound(ctx context.Context, masters *[]string, key []byte) (first *Client, leads bool, err error) {
	var errs []error
	for i := 0; i < len(*masters); i++ {
		c, err := dialOne(ctx, (*masters)[i], key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if c.who.Leads {
			if first != nil {
				first.Close()
			}
			return c, true, nil
		}
		for _, addr := range c.who.Masters {
			if !slices.Contains(*masters, addr) && len(*masters) < maxCandidates {
				*masters = append(*masters, addr)
			}
		}
		if first == nil {
			first = c
		} else {
			c.Close()
		}
	}
	if first != nil {
		return first, false, nil
	}
	return nil, false, errors.Join(errs...)
}

func dialOne(ctx context.Context, addr string, key []byte) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := link.Dial(ctx, "tcp", addr, link.Config{
		Key: key, Role: wire.RoleAdmin, Want: wire.RoleMaster, Client: "varve admin",
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", addr, err)
	}
	c := &Client{conn: conn, addr: addr}
	if err := conn.Call(ctx, &wire.Who{}, nil, &c.who); err != nil {
		conn.Close()
		return nil, fmt.Errorf("master %s: %w", addr, err)
	}
	return c, nil
}

// Addr is the master that is asked.
func (c *Client) Addr() string { return c.addr }

// Close ends the connection.
func (c *Client) Close() { c.conn.Close() }

// ask sends one question and decodes its answer.
func ask[Answer any](ctx context.Context, c *Client, what string, args any) (*Answer, error) {
	if c.Waiting != nil {
		defer c.Waiting()()
	}
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

// ForgetServer removes a chunkserver (its identity or address) that is not
// connected and will not come back; force: also with the only copies of chunks.
func (c *Client) ForgetServer(ctx context.Context, server string, force bool) (*wire.ForgetReply, error) {
	server, err := c.serverAt(ctx, server)
	if err != nil {
		return nil, err
	}
	return ask[wire.ForgetReply](ctx, c, wire.AskForget, wire.ForgetArgs{Server: server, Force: force})
}

// SaveImage makes the master write an image of its tree now.
func (c *Client) SaveImage(ctx context.Context) (*wire.SaveReply, error) {
	return ask[wire.SaveReply](ctx, c, wire.AskSnapshot, nil)
}

// Handover makes the leading master hand over to another one: id, or 0 for the
// best standby. It returns when the other one leads and serves.
func (c *Client) Handover(ctx context.Context, id uint64, key []byte) (*wire.HandoverReply, time.Duration, error) {
	c, done := c.fixed(ctx, key)
	defer done()
	begun := time.Now()
	r, err := ask[wire.HandoverReply](ctx, c, wire.AskHandover, wire.VoterArgs{ID: id})
	if err != nil {
		return nil, 0, err
	}
	for {
		next, err := dialOne(ctx, r.Addr, key)
		if err == nil {
			next.Close()
			if next.who.Leads && next.who.Epoch > r.Epoch {
				return r, time.Since(begun), nil
			}
		}
		select {
		case <-ctx.Done():
			return r, 0, fmt.Errorf("master %s does not lead yet: %w", r.Addr, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fixed is a client of the same master by an address that stays with it, if it can
// be had: a virtual one moves in the middle of a handover, and the answer is lost.
func (c *Client) fixed(ctx context.Context, key []byte) (own *Client, done func()) {
	if !slices.Contains(c.who.Masters, c.addr) {
		ctx, cancel := context.WithTimeout(ctx, fixedWait)
		defer cancel()
		for _, addr := range c.who.Masters {
			own, err := dialOne(ctx, addr, key)
			if err != nil {
				continue
			}
			if own.who.Leads && own.who.Epoch == c.who.Epoch {
				return own, own.Close
			}
			own.Close()
		}
	}
	return c, func() {}
}

// AddVoter makes a master or metalogger that runs at addr (its port for other
// voters) a member of the quorum. It votes when it has the changelog.
func (c *Client) AddVoter(ctx context.Context, id uint64, addr string) error {
	_, err := ask[wire.VoterArgs](ctx, c, wire.AskAddVoter, wire.VoterArgs{ID: id, Addr: addr})
	return err
}

// RemoveVoter takes a master or metalogger out of the quorum.
func (c *Client) RemoveVoter(ctx context.Context, id uint64) error {
	_, err := ask[wire.VoterArgs](ctx, c, wire.AskDropVoter, wire.VoterArgs{ID: id})
	return err
}
