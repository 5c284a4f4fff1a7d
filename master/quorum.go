package master

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/varvefs/varve/master/helm"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// join opens the changelog, alone or with the other voters.
func (m *Master) join(meta image.Meta) (err error) {
	cfg, l := m.cfg, m.loop
	jc := journal.Config{
		Dir: filepath.Join(cfg.Dir, logDir), ID: cfg.ID, Applied: meta.Index, AppliedTerm: meta.Term,
		SyncMode: cfg.Sync, Log: cfg.Log, Metrics: cfg.Metrics,
	}
	if len(cfg.Peers) > 0 {
		for id := range cfg.Peers {
			jc.Peers = append(jc.Peers, id)
		}
		slices.Sort(jc.Peers)
		l.describeSelf()
		m.net, err = voters.Start(voters.Config{
			ID: cfg.ID, Own: cfg.Peers[cfg.ID], Listen: cfg.RaftAddr, Peers: cfg.Peers, Key: cfg.Key, Version: cfg.Version,
			Self: m.beat, Images: &imageShelf{cfg.Dir}, Log: cfg.Log, Metrics: cfg.Metrics,
		})
		if err != nil {
			return err
		}
		jc.Transport, l.net = m.net, m.net
		jc.Addrs, jc.Await, jc.Changed = cfg.Peers, true, m.net.Follow
		jc.Fetch = (&voters.Fetcher{
			Net: m.net, Dir: cfg.Dir, Adopt: adoptImage,
			Done: func(index, term uint64) { m.opened.Load().Install(index, term) },
		}).Fetch
	}
	m.log, err = journal.Open(jc)
	if err != nil {
		if m.net != nil {
			m.net.Close()
		}
		return err
	}
	l.log, l.helm = m.log, helm.New(m.log.LeasedIn)
	m.opened.Store(m.log)
	if m.net != nil {
		m.net.Attach(m.log)
	}
	return nil
}

func adoptImage(dir, path string) (index, term uint64, err error) {
	_, meta, err := image.Adopt(dir, path)
	return meta.Index, meta.Term, err
}

// reload takes the state over from an image that came from another voter.
func (l *loop) reload(index uint64) error {
	begun := time.Now()
	st, meta, file, err := image.LoadAt(l.cfg.Dir, index)
	if err != nil {
		return err
	}
	l.st, l.index, l.term = st, meta.Index, meta.Term
	l.images.last, l.images.at, l.images.index, l.images.bytes = file, l.now, meta.Index, 0
	l.slog.Info("state taken over from an image", "file", file.Path, "index", index, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// Log is the changelog, for those who decide about elections.
func (m *Master) Log() *journal.Log { return m.log }

// askAdd makes a voter a member of the quorum; it votes when it has the changelog.
func (l *loop) askAdd(q *request, text []byte) {
	var args wire.VoterArgs
	err := decodeArgs(text, &args)
	switch {
	case err != nil:
	case l.net == nil:
		err = status.Errorf(status.Unsupported, "this master runs alone; set cluster.voters, start it again, and then add others")
	case args.ID == 0 || args.Addr == "":
		err = status.Errorf(status.Invalid, "a voter needs a number and HOST:PORT")
	}
	if m := l.log.Members(); err == nil {
		if k, ok := m.Find(args.ID); ok {
			err = status.Errorf(status.Exists, "voter %d at %s", k.ID, k.Addr)
		}
	}
	if err != nil {
		l.refuse(q, err)
		return
	}
	net, log, in := l.net, l.log, l.in
	net.Invite(args.ID, args.Addr)
	l.background.Go(func() {
		defer net.Dismiss(args.ID)
		err := addMember(net, log, args)
		in.post(func(l *loop) { l.answer(q, &wire.VoterArgs{ID: args.ID, Addr: args.Addr}, err) })
	})
}

// addMember waits until the new voter is heard and a member.
func addMember(net *voters.Net, log *journal.Log, args wire.VoterArgs) error {
	k := journal.Member{ID: args.ID, Addr: args.Addr, Learner: true}
	for end := time.Now().Add(changeWait); k.Founder == 0; time.Sleep(changePoll) {
		for _, b := range net.Beats() {
			if b.ID == args.ID {
				k.Founder = b.Founder
			}
		}
		if time.Now().After(end) {
			return status.Errorf(status.Timeout, "voter %d does not answer at %s; start it first", args.ID, args.Addr)
		}
	}
	return changeMember(log, k, false)
}

// How long a change of the membership is waited for.
const (
	changeWait = 10 * time.Second
	changePoll = 20 * time.Millisecond
)

// changeMember proposes a change and waits until it has happened.
func changeMember(log *journal.Log, k journal.Member, gone bool) error {
	done := make(chan error, 1)
	log.Change(k, gone, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-time.After(changeWait):
		return status.Errorf(status.Timeout, "the changelog does not take the change")
	}
	for end := time.Now().Add(changeWait); ; time.Sleep(changePoll) {
		m := log.Members()
		if _, ok := m.Find(k.ID); ok != gone {
			return nil
		}
		if time.Now().After(end) {
			return status.Errorf(status.Timeout, "the change is not committed; is there a majority?")
		}
	}
}

// askRemove takes a voter out of the quorum.
func (l *loop) askRemove(q *request, text []byte) {
	var args wire.VoterArgs
	err := decodeArgs(text, &args)
	m := l.log.Members()
	_, known := m.Find(args.ID)
	switch {
	case err != nil:
	case args.ID == l.cfg.ID:
		err = status.Errorf(status.Invalid, "voter %d leads; hand over first", args.ID)
	case !known:
		err = status.Errorf(status.NotKnown, "voter %d", args.ID)
	}
	if err != nil {
		l.refuse(q, err)
		return
	}
	log, in := l.log, l.in
	l.background.Go(func() {
		err := changeMember(log, journal.Member{ID: args.ID}, true)
		in.post(func(l *loop) { l.answer(q, &args, err) })
	})
}

// successor chooses who should lead after this master: id, or else the standby
// that has most of the changelog.
func (l *loop) successor(id uint64) (*voters.Beat, error) {
	if l.net == nil {
		return nil, status.Errorf(status.Unsupported, "there is one master only")
	}
	log := l.log.Status()
	var best *voters.Beat
	var match uint64
	for _, b := range l.net.Beats() {
		if b.What != wire.VoterMaster || id != 0 && b.ID != id {
			continue
		}
		for _, p := range log.Peers {
			if p.ID == b.ID && p.Active && !p.Learner && (best == nil || p.Match > match) {
				best, match = &b, p.Match
			}
		}
	}
	switch {
	case best == nil && id != 0:
		return nil, status.Errorf(status.Invalid, "voter %d is no master that answers", id)
	case best == nil:
		return nil, status.Errorf(status.Again, "no standby answers")
	}
	return best, nil
}

// askHandover gives leadership to a standby. The answer leaves before.
func (l *loop) askHandover(q *request, text []byte) {
	var args wire.VoterArgs
	if err := decodeArgs(text, &args); err != nil {
		l.refuse(q, err)
		return
	}
	next, err := l.successor(args.ID)
	if err != nil {
		l.refuse(q, err)
		return
	}
	l.slog.Info("handing over", "to", next.ID, "name", next.Name, "epoch", l.epoch)
	l.answer(q, &wire.HandoverReply{ID: next.ID, Name: next.Name, Addr: next.Clients, Epoch: l.epoch}, nil)
	if e := l.elections.Load(); e != nil {
		(*e).Handover(next.ID)
		return
	}
	l.log.Handover(next.ID, "an operator's order")
}

// Elections is who decides when this master leads: package elect's runner.
type Elections interface {
	// Handover gives up the virtual addresses and then the leadership. It must not block.
	Handover(to uint64)
	// Holds tells whether this host has the virtual addresses.
	Holds() bool
}

// SetElections says who carries out handovers; without, the changelog does it alone.
func (m *Master) SetElections(e Elections) { m.loop.elections.Store(&e) }

// imageShelf gives this master's images to other voters.
type imageShelf struct{ dir string }

// Newest names the newest image.
func (s *imageShelf) Newest() (voters.Image, error) {
	list, err := image.List(s.dir)
	if err != nil {
		return voters.Image{}, err
	}
	if len(list) == 0 {
		return voters.Image{}, fs.ErrNotExist
	}
	f := list[0]
	return voters.Image{Path: f.Path, Index: f.Index, Size: f.Size}, nil
}

// Open opens an image.
func (s *imageShelf) Open(index uint64) (*os.File, error) {
	list, err := image.List(s.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		if f.Index == index {
			return os.Open(f.Path)
		}
	}
	return nil, fs.ErrNotExist
}

// describeSelf publishes what other voters and their tools are told of this one.
func (l *loop) describeSelf() {
	b := &wire.VoterBeat{
		ID: l.cfg.ID, What: wire.VoterMaster, Name: l.cfg.Name, Version: l.cfg.Version, Pid: uint32(os.Getpid()),
		Clients: l.reachable(l.cfg.ClientAddr), Chunkds: l.reachable(l.cfg.ServerAddr), Raft: l.cfg.Peers[l.cfg.ID], HTTP: l.cfg.HTTPAddr,
		ImageAt: l.images.last.Index, Uptime: uint64(time.Since(l.begun)), Memory: memory(),
	}
	l.self.Store(b)
}

// beat is what the other voters hear of this one; any goroutine.
func (m *Master) beat() wire.VoterBeat {
	b := *m.loop.self.Load()
	b.Applied = m.loop.reached.Load()
	if log := m.opened.Load(); log != nil {
		s := log.Status()
		b.Term, b.Leader, b.Commit, b.Last = s.Term, s.Leader, s.Commit, s.Last
	}
	b.Holds, b.Busy = m.loop.holdsVIP(), uint16(1000*m.loop.met.figures.Load().busy)
	return b
}

// reachable makes an address that listens everywhere one that others can use:
// the host is the one that other voters reach this one at.
func (l *loop) reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if own, _, err := net.SplitHostPort(l.cfg.Peers[l.cfg.ID]); err == nil {
			return net.JoinHostPort(own, port)
		}
	}
	return addr
}

// masters lists where mounts and tools find masters, this one first. Alone it
// says nothing: whoever asks has found it.
func (l *loop) masters() []string {
	if l.net == nil {
		return nil
	}
	list := []string{l.reachable(l.cfg.ClientAddr)}
	for _, b := range l.net.Beats() {
		if b.What == wire.VoterMaster && b.Clients != "" {
			list = append(list, b.Clients)
		}
	}
	return list
}
