package client

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Early changes. A mount that holds W on a directory alone knows its names: it
// makes, removes and renames there at once, notes the change in its intent log,
// and tells the master a moment later, in the order in which the changes were
// made. Nobody else can see the directory before W was recalled, and a recall is
// answered when all of its changes have been logged by the master. fsync of a
// file or directory waits for that, too. When this process is killed, the next
// one reads the intent log and finishes (see intents.go); when the whole machine
// dies, changes of the last moment may be lost unless they were synced, as in any
// file system.
//
// Order. The master carries out one mount's changes as they come, but for those
// that must wait until another mount has given up what it holds on an inode
// (remove, rename: "slow"). So a change waits here until no slow one speaks of
// the same name, and one that needs a directory empty or at rest waits until
// nothing inside it is under way. A change in line never waits for another mount
// that could in turn wait for this one's line: what a recall of a file needs (its
// data, its size, its times) does not go through the line.

const (
	maxEarly    = 4096 // early changes that are not yet logged
	numbersMost = 1024 // inode numbers asked for at a time
	numbersLow  = 256  // below this more are asked for
)

// earlyChange is one change that was answered and is not yet logged.
type earlyChange struct {
	req    wire.Message             // with Once and Early
	intent int                      // place in the intent log
	names  []earlyName              // that it makes, removes or moves
	quiet  *node                    // a directory in which nothing may be under way; nil: none
	slow   bool                     // the master may have to wait for other mounts
	done   func(k *call, err error) // on the read goroutine
	reply  wire.Message
}

type earlyName struct {
	dir  *node
	name string
}

// early is the line of early changes. Its mu is taken with a node's mu held,
// never the other way round.
type early struct {
	c     *Client
	wake  chan struct{}
	hurry chan struct{} // somebody waits

	mu      sync.Mutex
	log     *intents // nil: every change waits for the master
	line    []*earlyChange
	held    bool               // the first in line must wait for what is under way
	open    int                // in line or under way
	names   map[earlyName]int  // changes in line or under way, by name
	slow    map[earlyName]int  // slow changes under way
	inside  map[*node]int      // changes under way, by directory
	alone   map[*node]struct{} // directories with W, pinned
	numbers []inode.Ino        // for new inodes
	asking  bool               // a Reserve is in work
}

func newEarly(c *Client, log *intents) *early {
	return &early{
		c: c, log: log, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		names: make(map[earlyName]int), slow: make(map[earlyName]int),
		inside: make(map[*node]int), alone: make(map[*node]struct{}),
	}
}

// openEarly opens the intent log and finishes what a killed process has left in
// it. Without a log every change waits for the master.
func (c *Client) openEarly(ctx context.Context) error {
	c.early = newEarly(c, nil)
	if c.cfg.Intents == "" || c.cfg.ReadOnly {
		return nil
	}
	log, err := openIntents(c.cfg.Intents)
	if err != nil {
		c.log.Warn("changes of names will wait for the master", "err", err)
		return nil
	}
	if err := c.resume(ctx, log); err != nil {
		log.close()
		return err
	}
	c.early.log = log
	return nil
}

// close closes the intent log; clean: nothing in it will be needed again.
func (e *early) close(clean bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.log == nil {
		return
	}
	if clean {
		e.log.begin(0)
	}
	e.log.close()
	e.log = nil
}

// ready says whether another change can be made early.
func (e *early) ready() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open < maxEarly && e.log.room()
}

// number takes an inode number for a new inode.
func (e *early) number() (inode.Ino, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.numbers) < numbersLow && !e.asking {
		e.asking = e.c.spawn(e.reserve)
	}
	if len(e.numbers) == 0 {
		return 0, false
	}
	ino := e.numbers[0]
	e.numbers = e.numbers[1:]
	return ino, true
}

// reserve asks the master for inode numbers.
func (e *early) reserve() {
	session := e.c.ses.id.Load()
	var reply wire.ReserveReply
	err := e.c.ses.do(e.c.ctx, &wire.Reserve{Count: numbersMost}, &reply, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking = false
	if err != nil {
		e.c.log.Warn("no inode numbers were reserved", "err", err)
		return
	}
	if e.c.ses.id.Load() != session {
		return
	}
	e.numbers = append(e.numbers, reply.Inos...)
}

// disown forgets the numbers: the master may not know them as this session's. It
// does not when a backup took the place of its directory.
func (e *early) disown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.numbers = nil
}

// add puts a change that has been made here behind the others. The mu of the
// directory is held, so that the line has the order of what was seen there.
func (e *early) add(a *earlyChange) {
	e.c.ses.number(a.req)
	e.mu.Lock()
	a.intent = e.log.add(a.req)
	e.line = append(e.line, a)
	e.open++
	for _, k := range a.names {
		e.names[k]++
	}
	n := len(e.line)
	e.mu.Unlock()
	e.c.met.early.Inc()
	switch n {
	case 1:
		select {
		case e.wake <- struct{}{}:
		default:
		}
	case gatherMost:
		e.push()
	}
}

// Changes that nobody waits for gather until there are gatherMost of them, or for
// gatherTime: a hundred in one go cost everybody less than one after the other.
const (
	gatherTime = 5 * time.Millisecond
	gatherMost = 128
)

// push makes the line leave now: somebody waits for it.
func (e *early) push() {
	select {
	case e.hurry <- struct{}{}:
	default:
	}
}

// send hands the line to the session until the client is closed.
func (e *early) send() {
	gather := time.NewTimer(gatherTime)
	defer gather.Stop()
	for {
		select {
		case <-e.c.ctx.Done():
			return
		case <-e.hurry:
		case <-e.wake:
			gather.Reset(gatherTime)
			select {
			case <-e.c.ctx.Done():
				return
			case <-e.hurry:
			case <-gather.C:
			}
		}
		sent := 0
		for a := e.next(); a != nil; a = e.next() {
			if !e.c.ses.begin(e.call(a)) {
				return
			}
			if sent++; sent%gatherMost == 0 {
				e.c.ses.flush()
			}
		}
		e.c.ses.flush()
	}
}

func (e *early) call(a *earlyChange) *call {
	return &call{
		req: a.req, reply: a.reply, early: true,
		install: func(k *call, err error) { e.over(a); a.done(k, err) },
	}
}

// next takes the first change out of the line if it may be sent now.
func (e *early) next() *earlyChange {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.line) == 0 {
		e.line = nil
		return nil
	}
	a := e.line[0]
	e.held = a.quiet != nil && e.inside[a.quiet] > 0
	for _, k := range a.names {
		e.held = e.held || e.slow[k] > 0
	}
	if e.held {
		return nil
	}
	e.line[0] = nil
	e.line = e.line[1:]
	e.depart(a)
	return a
}

// depart notes that a change is under way, over that it is no longer.
func (e *early) depart(a *earlyChange) {
	for _, k := range a.names {
		e.inside[k.dir]++
		if a.slow {
			e.slow[k]++
		}
	}
}

func (e *early) over(a *earlyChange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open--
	e.log.done(a.intent)
	for _, k := range a.names {
		less(e.names, k)
		less(e.inside, k.dir)
		if a.slow {
			less(e.slow, k)
		}
	}
	if e.held {
		e.push()
	}
}

func less[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] == 0 {
		delete(m, k)
	}
}

// concerns says whether the master may know an older meaning of a name.
func (e *early) concerns(dir *node, name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[earlyName{dir, name}] > 0
}

// begin starts the intent log of a new session.
func (e *early) begin(session uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.log == nil {
		return
	}
	e.log.begin(session)
	if !e.asking {
		e.asking = e.c.spawn(e.reserve)
	}
}

// drainLongest is the pause between two looks whether a line is empty that has not
// been for long, since no master is there mostly. The first ones are short.
const drainLongest = 20 * time.Millisecond

// drain waits until no early change is left.
func (e *early) drain(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(wait+wait/8, drainLongest) {
		e.mu.Lock()
		open := e.open
		e.mu.Unlock()
		if open == 0 {
			return nil
		}
		e.push()
		if !e.c.sleep(ctx, wait) {
			return status.Errorf(status.Timeout, "%d changes have not reached a master", open)
		}
	}
}

// lost fails what is still in line: the session has ended. What is under way is
// failed by the session.
func (e *early) lost() {
	e.mu.Lock()
	line := e.line
	e.line, e.numbers = nil, nil
	for _, a := range line {
		e.depart(a)
	}
	e.mu.Unlock()
	for _, a := range line {
		k := &call{req: a.req, reply: a.reply}
		e.over(a)
		a.done(k, status.Errorf(status.Stale, "%T: its session was ended", a.req))
	}
}

// begun adds to or takes from the count of early changes that speak of n. mu is held.
func (n *node) begun(d int) {
	n.early += d
	if n.early == 0 {
		n.cond.Broadcast()
	}
}

// settle waits until the master knows all early changes that speak of the nodes.
// A change that is not made early must not overtake them. A nil node is one that
// is not known here: it may be any.
func (c *Client) settle(ctx context.Context, nodes ...*node) error {
	for _, n := range nodes {
		if n == nil {
			if err := c.early.drain(ctx); err != nil {
				return err
			}
			continue
		}
		n.mu.Lock()
		err := n.awaitLogged(ctx)
		n.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitLogged waits until the master knows all early changes that speak of n. mu
// is held before and after.
func (n *node) awaitLogged(ctx context.Context) error {
	for n.early > 0 {
		n.c.early.push()
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ask is session.do about an inode that the master must know already.
func (n *node) ask(ctx context.Context, req, reply wire.Message, install func(*call, error)) error {
	n.mu.Lock()
	for n.making {
		n.c.early.push()
		if err := n.await(ctx); err != nil {
			n.mu.Unlock()
			return err
		}
	}
	n.mu.Unlock()
	return n.c.ses.do(ctx, req, reply, install)
}

// settleRename is settle for all that a Rename may speak of.
func (c *Client) settleRename(ctx context.Context, p, q *node, req *wire.Rename) error {
	moved, gone := c.victim(p, req.Name), c.victim(q, req.NewName)
	err := c.settle(ctx, p, q, moved, gone)
	for _, n := range []*node{moved, gone} {
		if n != nil {
			n.unpin()
		}
	}
	return err
}

// wanted says whether W on directories is of use.
func (e *early) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log != nil
}

// changeable says whether names in the directory may be changed early. mu is held.
func (n *node) changeable() bool {
	return n.can(inode.W) && n.can(inode.D) && n.known && !n.orphan && !n.dead && n.directory().listing == 0
}

// renamed notes in a directory's attributes that its names have changed. mu is held.
func (n *node) renamed(now int64, entries, links int) {
	n.attr.Mtime, n.attr.Ctime = now, now
	n.attr.Size += uint64(entries)
	n.attr.Nlink += uint32(links)
	n.dir.used = n.c.now()
	n.dir.changes++
}

// spoilt reports an early change that the master refused: something that both
// should have known alike they do not. What is known here of the directory is
// dropped, and fsync of the directory tells. n.mu is not held.
func (n *node) spoilt(what wire.Message, err error) {
	n.c.log.Error("a change that was answered before the master knew of it is lost",
		"directory", uint64(n.ino), "change", what, "err", err)
	if m, ok := what.(*wire.Make); ok && m.Ino != 0 && status.CodeOf(err) == status.Stale {
		n.c.early.disown()
	}
	n.c.met.spoilt.Inc()
	n.mu.Lock()
	n.failed = err
	n.rights, n.known = 0, false
	if n.dir != nil {
		n.dir.void(n)
	}
	n.cond.Broadcast()
	n.mu.Unlock()
	n.pin()
	if !n.c.spawn(func() { n.c.forgetInKernel(n); n.unpin() }) {
		n.unpin()
	}
}

// wallTime is what files are stamped with.
func wallTime() int64 { return time.Now().UnixNano() }

// note writes a change that goes with a Commit into the intent log.
func (e *early) note(m wire.Message) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.c.met.early.Inc()
	return e.log.add(m)
}

// noted ends the intents of note.
func (e *early) noted(list []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, i := range list {
		e.log.done(i)
	}
}

const (
	idleAfter = 5e9 // ns without an early change after which W on a directory is given back
	idleEvery = time.Second
)

// watch has W on a directory given back when it is not used. The directory's mu
// is held.
func (e *early) watch(n *node) {
	n.directory().used = e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.alone[n]; !known {
		e.alone[n.pin()] = struct{}{}
	}
}

// giveBackIdle gives back W on directories that have not been changed for a
// while: should this mount die, others need not wait for its session to expire.
func (e *early) giveBackIdle() {
	for e.c.sleep(e.c.ctx, idleEvery) {
		e.mu.Lock()
		list := slices.Collect(maps.Keys(e.alone))
		e.mu.Unlock()
		req := &wire.Release{}
		for _, n := range list {
			n.mu.Lock()
			over := n.rest(req)
			if over {
				e.mu.Lock()
				delete(e.alone, n)
				e.mu.Unlock()
			}
			n.mu.Unlock()
			if over {
				n.unpin()
			}
		}
		if len(req.Rights) == 0 {
			continue
		}
		if err := e.c.ses.do(e.c.ctx, req, nil, nil); err != nil && e.c.ctx.Err() == nil {
			e.c.log.Debug("rights on idle directories were not given back", "err", err)
		}
	}
}

// rest gives W on a directory back if it is idle; true: it is not held any more.
// mu is held.
func (n *node) rest(req *wire.Release) bool {
	switch {
	case n.rights&inode.W == 0:
		return true
	case n.early > 0, n.writers > 0, n.recalls > 0, n.c.now()-n.dir.used <= idleAfter, len(req.Rights) == maxHeld:
		return false
	}
	n.rights &^= inode.W
	n.quarantine = n.c.ses.mark() // a reply that is on its way may still say W
	req.Rights = append(req.Rights, wire.Held{Ino: n.ino, Rights: inode.W})
	return true
}
