package perf

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

// masterLoad is what clients have seen.
type masterLoad struct {
	changes []time.Duration // of changes, each answered when it was committed
	reads   []time.Duration
	time    time.Duration
	cpu     map[string]float64 // by role, microseconds a change
}

func (l *masterLoad) rate() float64 { return float64(len(l.changes)) / l.time.Seconds() }

// masterClient is a mount that makes, looks up, renames and removes files in a
// directory of its own, one request at a time.
type masterClient struct {
	conn *link.Conn
	dir  inode.Ino
	seq  uint64
	got  masterLoad
}

// readOne is how many changes a client makes for each of its reads.
const readOne = 3

// loadFor has o.Clients clients work while during runs.
func loadFor(ctx context.Context, o *MasterOptions, key masterSecret, p *masterProcess, round int, during func(context.Context) error) (*masterLoad, error) {
	clients := make([]*masterClient, o.Clients)
	run := time.Now().UnixNano() // the tree may have been measured before
	for i := range clients {
		c, err := newMasterClient(ctx, p.clients, key, fmt.Sprintf("run-%d-round-%d-client-%d", run, round, i))
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		clients[i] = c
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	errs := make(chan error, len(clients))
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			if err := c.work(working); err != nil {
				errs <- err
			}
		})
	}
	begun := time.Now()
	err := during(ctx)
	took := time.Since(begun)
	stop()
	wg.Wait()
	select {
	case e := <-errs:
		return nil, e
	default:
	}
	sum := &masterLoad{time: took}
	for _, c := range clients {
		sum.changes, sum.reads = append(sum.changes, c.got.changes...), append(sum.reads, c.got.reads...)
	}
	return sum, err
}

// newMasterClient opens a session and makes a directory.
func newMasterClient(ctx context.Context, addr string, key masterSecret, name string) (*masterClient, error) {
	c := &masterClient{}
	var err error
	c.conn, err = dialMaster(ctx, addr, key, wire.RoleMount, link.HandlerFunc(giveBack))
	if err != nil {
		return nil, err
	}
	if err := c.conn.Call(ctx, &wire.SessionOpen{Host: "perf", Mount: "/" + name}, nil, &wire.SessionReply{}); err != nil {
		return nil, err
	}
	var made wire.EntryReply
	err = c.conn.Call(ctx, &wire.Make{Once: c.once(), Parent: inode.Root, Name: name, What: inode.Dir, Mode: 0o755}, nil, &made)
	c.dir = made.Attr.Ino
	return c, err
}

// giveBack answers the recalls of rights, none of which a client uses.
func giveBack(_ *link.Conn, r *link.Request) {
	r.Free()
	r.Reply(&wire.RecallReply{}, nil, nil)
}

func (c *masterClient) once() wire.Once {
	c.seq++
	return wire.Once{Seq: c.seq, Done: c.seq - 1}
}

// work makes, renames and removes files until the time is over.
func (c *masterClient) work(ctx context.Context) error {
	for i := 0; ; i++ {
		a, b := fmt.Sprintf("name-of-file-%d", i), fmt.Sprintf("other-name-of-file-%d", i)
		var made wire.EntryReply
		for k, step := range []func() error{
			func() error {
				return c.call(&wire.Make{Once: c.once(), Parent: c.dir, Name: a, What: inode.File, Mode: 0o644}, &made)
			},
			func() error {
				return c.call(&wire.Rename{Once: c.once(), Parent: c.dir, Name: a, NewParent: c.dir, NewName: b}, &wire.RenameReply{})
			},
			func() error {
				return c.call(&wire.Remove{Once: c.once(), Parent: c.dir, Name: b, Ino: made.Attr.Ino}, &wire.RemoveReply{})
			},
			func() error { return c.call(&wire.Lookup{Parent: c.dir, Name: a}, &wire.EntryReply{}) },
		} {
			if ctx.Err() != nil {
				return nil
			}
			begun := time.Now()
			if err := step(); err != nil {
				return err
			}
			took := time.Since(begun)
			if k < readOne {
				c.got.changes = append(c.got.changes, took)
			} else {
				c.got.reads = append(c.got.reads, took)
			}
		}
	}
}

func (c *masterClient) call(req, reply wire.Message) error {
	return c.conn.Call(context.Background(), req, nil, reply)
}

// reportCopies is how many copies a chunkserver tells at once, as a real one.
const reportCopies = 4096

// enrol plays a chunkserver that comes to a master.
func enrol(ctx context.Context, p *masterProcess, key masterSecret, id chunk.Server) (*link.Conn, error) {
	c, err := dialMaster(ctx, p.ports, key, wire.RoleChunkd, link.HandlerFunc(func(_ *link.Conn, r *link.Request) {
		r.Free()
		r.Reply(&wire.Empty{}, nil, nil)
	}))
	if err != nil {
		return nil, err
	}
	reg := &wire.Register{Server: id, Addr: treeServers[id], Disks: []wire.Disk{{Path: "/d", ID: uint64(id), Total: 1 << 50, Free: 1 << 49}}}
	return c, c.Call(ctx, reg, nil, &wire.RegisterReply{})
}

// tellCopies says that a chunkserver has a copy of each of the first n chunks.
func tellCopies(ctx context.Context, c *link.Conn, n int) error {
	for at := 0; at < n; at += reportCopies {
		report := &wire.Report{Copies: make([]wire.Copy, min(reportCopies, n-at)), Last: at+reportCopies >= n}
		for i := range report.Copies {
			report.Copies[i] = wire.Copy{Chunk: chunk.ID(at + i + 1), Version: 1, Length: 4096}
		}
		if err := c.Call(ctx, report, nil, &wire.Empty{}); err != nil {
			return err
		}
	}
	return nil
}
