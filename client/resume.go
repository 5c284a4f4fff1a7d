package client

import (
	"context"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// resume finishes what an earlier process at this mount point has left behind
// when it was killed: it takes up that process's session, sends the changes that
// were answered but perhaps not logged (those that were are recognised by their
// numbers), and ends the session, so that nobody has to wait until it expires.
func (c *Client) resume(ctx context.Context, log *intents) error {
	session, list, err := log.pending()
	if err != nil {
		c.log.Error("the intent log is damaged: changes of the last moment before a crash may be lost", "err", err, "readable", len(list))
	}
	if session == 0 {
		return nil
	}
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		for _, addr := range c.cfg.Masters {
			if err = c.resumeAt(ctx, addr, session, list); err == nil {
				return nil
			}
			if hopeless(err) {
				return err
			}
		}
		if ctx.Err() != nil || !c.sleep(ctx, wait) {
			return err
		}
	}
}

func (c *Client) resumeAt(ctx context.Context, addr string, session uint64, list []wire.Message) error {
	conn, err := link.Dial(ctx, "tcp", addr, c.linkConfig(wire.RoleMaster), &resumeDesk{})
	if err != nil {
		return err
	}
	defer conn.Close()
	open := &wire.SessionOpen{
		Session: session, Try: uint64(time.Now().UnixNano()), Host: c.cfg.Host, Mount: c.cfg.Mount, Path: c.cfg.Path,
		ReadOnly: c.cfg.ReadOnly, Held: heldBy(list),
	}
	var reply wire.SessionReply
	switch err := conn.Call(ctx, open, nil, &reply); {
	case status.CodeOf(err) == status.Stale:
		if len(list) > 0 {
			c.log.Error("the session of the process that was killed here has expired: these changes are lost",
				"session", session, "changes", len(list), "first", list[0])
		}
		return nil
	case err != nil:
		return err
	}
	if err := c.replay(ctx, conn, list); err != nil {
		return err
	}
	c.log.Info("finished what a killed process has left", "session", session, "changes", len(list))
	return conn.Call(ctx, &wire.SessionClose{}, nil, &wire.Empty{})
}

// replayed numbers changes that went with a Commit and had none of their own.
const replayed = 1 << 62

// replay sends the changes one after the other.
func (c *Client) replay(ctx context.Context, conn *link.Conn, list []wire.Message) error {
	for i, m := range list {
		once := m.(changing).OnceOf()
		if once.Done = 0; once.Seq == 0 {
			once.Seq = replayed + uint64(i)
		}
		var reply wire.Message
		switch m.(type) {
		case *wire.Remove:
			reply = &wire.RemoveReply{}
		case *wire.Rename:
			reply = &wire.RenameReply{}
		case *wire.SetAttr:
			reply = &wire.AttrReply{}
		default:
			reply = &wire.EntryReply{}
		}
		err := conn.Call(ctx, m, nil, reply)
		switch {
		case err == nil:
		case conn.Err() != nil || again(err) || ctx.Err() != nil:
			return err
		case status.CodeOf(err) == status.Stale, m.Kind() == wire.KindSetAttr && gone(err):
			// Its answer had come before the end, or the file is gone since.
		default:
			c.log.Error("a change of before the crash is lost", "change", m, "err", err)
		}
	}
	return nil
}

// heldBy lists the directories that the changes are in: while the session
// has W on them nobody else can be in the way.
func heldBy(list []wire.Message) (held []wire.Held) {
	seen := make(map[inode.Ino]bool)
	add := func(ino inode.Ino) {
		if !seen[ino] && len(held) < maxHeld {
			seen[ino] = true
			held = append(held, wire.Held{Ino: ino, Rights: inode.R | inode.W | inode.D})
		}
	}
	for _, m := range list {
		switch m := m.(type) {
		case *wire.Make:
			add(m.Parent)
		case *wire.Remove:
			add(m.Parent)
		case *wire.Rename:
			add(m.Parent)
			add(m.NewParent)
		case *wire.SetAttr:
			add(m.Ino)
		}
	}
	return held
}

// resumeDesk answers recalls while a dead process's session is being ended: it
// has nothing open and nothing cached.
type resumeDesk struct{}

// Opened does nothing.
func (*resumeDesk) Opened(*link.Conn) {}

// Closed does nothing.
func (*resumeDesk) Closed(*link.Conn, error) {}

// Serve refuses a recall: the master waits until the session has ended, which
// is soon, and so never sees a directory without the changes that are due.
func (*resumeDesk) Serve(_ *link.Conn, r *link.Request) { r.Free() }
