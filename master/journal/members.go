package journal

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/varvefs/varve/master/journal/files"
	"github.com/varvefs/varve/status"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// membersName is the file with this voter's identity and the membership.
const membersName = "members"

// Member is one voter, or one that is being brought up to date to become one.
type Member struct {
	ID      uint64 `json:"id"`
	Addr    string `json:"addr,omitempty"`    // host:port of its port for other voters
	Learner bool   `json:"learner,omitempty"` // does not vote yet
	// Founder is the random number that was made with its log. A log with another
	// one is not that voter: it has lost what the voter promised. 0: not known.
	Founder uint64 `json:"founder,omitempty"`
}

// Members is the membership as entry Index of the log left it; 0: as founded.
type Members struct {
	Index uint64   `json:"index"`
	List  []Member `json:"members"` // ascending by ID; empty: the log is not founded
}

// Find returns the member with a number.
func (m *Members) Find(id uint64) (Member, bool) {
	for _, k := range m.List {
		if k.ID == id {
			return k, true
		}
	}
	return Member{}, false
}

// Has tells whether voter id with this Founder is a member.
func (m *Members) Has(id, founder uint64) bool {
	k, ok := m.Find(id)
	return ok && (k.Founder == 0 || k.Founder == founder)
}

// Encode makes bytes of it for other voters; DecodeMembers reads them.
func (m *Members) Encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// DecodeMembers reads what Encode made.
func DecodeMembers(b []byte) (m Members, err error) {
	if len(b) == 0 {
		return m, nil
	}
	if err = json.Unmarshal(b, &m); err == nil && len(m.List) > maxVoters {
		err = fmt.Errorf("%d members, at most %d are possible", len(m.List), maxVoters)
	}
	return m, err
}

// with is the membership after k was added or changed, or removed.
func (m *Members) with(k Member, gone bool, index uint64) Members {
	out := Members{Index: index}
	for _, have := range m.List {
		if have.ID != k.ID {
			out.List = append(out.List, have)
		} else if k.Founder == 0 && k.Addr == "" { // a promotion says nothing new
			k.Founder, k.Addr = have.Founder, have.Addr
		}
	}
	if !gone {
		out.List = append(out.List, k)
	}
	slices.SortFunc(out.List, func(a, b Member) int { return int(a.ID) - int(b.ID) })
	return out
}

// conf is what raft works with.
func (m *Members) conf() *raftpb.ConfState {
	c := &raftpb.ConfState{AutoLeave: new(bool)}
	for _, k := range m.List {
		if k.Learner {
			c.Learners = append(c.Learners, k.ID)
		} else {
			c.Voters = append(c.Voters, k.ID)
		}
	}
	return c
}

// identity is the content of the file.
type identity struct {
	Self    uint64 `json:"self"` // Founder of this log
	Members        // as this voter knows it
	// Term is one that the log leaves behind, though it may not say so itself yet:
	// Survive decides that and who the members are in one step. It stays; see Log.Survived.
	Term uint64 `json:"term,omitempty"`
}

// number is the number of the voter whose log this is; 0: it has none yet.
func (id *identity) number() uint64 {
	for _, k := range id.List {
		if k.Founder == id.Self {
			return k.ID
		}
	}
	return 0
}

func (id *identity) save(dir files.Dir) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return dir.Replace(membersName, append(b, '\n'))
}

// loadIdentity reads the file; found is false when there is none.
func loadIdentity(dir files.Dir) (id identity, found bool, err error) {
	b, err := dir.Read(membersName)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err == nil && id.Self == 0 {
		err = errors.New("there is no identity in it")
	}
	if err != nil {
		return id, true, fmt.Errorf("%s: %w", dir.Path(membersName), err)
	}
	return id, true, nil
}

// identify finds out who this voter is and who the others are. A log without
// the file has its voters in the header of its newest file; one that is new is
// founded by Config.Peers, at once or, with Config.Await, by Found.
func (l *Log) identify(r *recovery) error {
	id, found, err := loadIdentity(l.dir)
	if err != nil {
		return err
	}
	if !found {
		if id.Self, err = newFounder(); err != nil {
			return err
		}
		voters := l.cfg.Peers
		if r.tail != nil && len(r.tail.head.Voters) > 0 {
			voters = r.tail.head.Voters
		}
		if r.tail != nil || l.cfg.Applied > 0 || !l.cfg.Await {
			for _, v := range voters {
				k := Member{ID: v, Addr: l.cfg.Addrs[v]}
				if v == l.cfg.ID {
					k.Founder = id.Self
				}
				id.List = append(id.List, k)
			}
		}
		if err := id.save(l.dir); err != nil {
			return err
		}
	}
	if _, ok := id.Find(l.cfg.ID); !ok && len(id.List) > 0 {
		return fmt.Errorf("%s: voter %d is not among the members %v of this log; was it removed, or is its number wrong?", l.cfg.Dir, l.cfg.ID, id.conf().GetVoters())
	}
	if l.single && len(id.List) > 1 {
		return fmt.Errorf("%s: this log belongs to the voters %v, and the configuration says nothing of the others; "+
			"set cluster.voters, or make it a single master with 'varve master recover'", l.cfg.Dir, id.conf().GetVoters())
	}
	if l.single {
		if err := l.settle(&id, r); err != nil {
			return err
		}
	}
	l.identity = id
	l.st.setConf(id.conf())
	return nil
}

// newFounder makes the random number of a new log.
func newFounder() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1, err
}

// settle makes the log of a single voter one whose membership does not change any
// more. Raft lets nobody lead before all changes of the membership that are
// committed have been applied to its own, which it takes to be as of the image. Ours
// is as of Members.Index: the changes up to there have been carried out, or Survive
// has made them void, and raft need not see them. There may be one behind it, when the
// process ended between deciding and doing it; nobody but this voter has decided it
// (for it has no other to decide with), so that it is void too.
func (l *Log) settle(id *identity, r *recovery) error {
	if r.change > id.Index {
		l.cfg.Log.Warn("journal: a change of the membership was not carried out, and is void now", "entry", r.change)
		id.Index = r.change
		if err := id.save(l.dir); err != nil {
			return err
		}
	}
	l.st.plain = id.Index
	return nil
}

// Self is the random number made with this log.
func (l *Log) Self() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity.Self
}

// Members is the membership that this voter knows. It must not be changed.
func (l *Log) Members() Members {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity.Members
}

// Found makes an empty log one of these members: a new cluster's, when all of
// them are empty too, or those of a cluster that counts this log as its member.
// It does nothing when the log was founded before.
func (l *Log) Found(m Members) {
	l.order(func() {
		if len(l.identity.List) > 0 {
			return
		}
		if err := l.setMembers(m); err != nil {
			l.fail(err)
			return
		}
		for _, k := range m.List {
			l.rn.ApplyConfChange(changeOf(k, false))
		}
		l.cfg.Log.Info("journal: founded", "members", m.conf().GetVoters(), "learners", m.conf().GetLearners())
	})
}

// setMembers makes a membership durable and known. The driver calls it.
func (l *Log) setMembers(m Members) error {
	next := l.identity
	next.Members = m
	if err := next.save(l.dir); err != nil {
		return fmt.Errorf("journal: membership: %w", err)
	}
	l.mu.Lock()
	l.identity = next
	l.mu.Unlock()
	l.st.setConf(m.conf())
	if l.cfg.Changed != nil {
		l.cfg.Changed(m)
	}
	return nil
}

// changeOf is the change that adds or removes a member.
func changeOf(k Member, gone bool) *raftpb.ConfChangeV2 {
	kind := raftpb.ConfChangeAddNode
	switch {
	case gone:
		kind = raftpb.ConfChangeRemoveNode
	case k.Learner:
		kind = raftpb.ConfChangeAddLearnerNode
	}
	b, err := json.Marshal(k)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: kind.Enum(), NodeId: &k.ID}}, Context: b}
}

// Change proposes to add a member, change what is known of it, or remove it. A
// new one is added as a learner, and becomes a voter by itself when it has the
// log. The change has happened when Members says so; done is told, on the driver,
// whether it was proposed.
func (l *Log) Change(k Member, gone bool, done func(error)) {
	l.order(func() {
		err := l.proposeChange(k, gone)
		if done != nil {
			done(err)
		}
	})
}

func (l *Log) proposeChange(k Member, gone bool) error {
	if l.soft.RaftState != raft.StateLeader {
		return status.NotLeader
	}
	if l.changing > 0 && l.ticks < l.changing+changeTicks {
		return status.Errorf(status.Busy, "another change of the membership is under way")
	}
	if err := l.rn.ProposeConfChange(changeOf(k, gone)); err != nil {
		return fmt.Errorf("change of the membership: %w", err)
	}
	l.changing = max(l.ticks, 1)
	return nil
}

// changed carries out a committed change of the membership.
func (l *Log) changed(e *raftpb.Entry) error {
	var cc raftpb.ConfChangeV2
	if err := unmarshal(e.GetData(), &cc); err != nil {
		return fmt.Errorf("journal: entry %d: %w", e.GetIndex(), err)
	}
	if e.GetIndex() <= l.identity.Index || len(cc.GetChanges()) != 1 {
		return nil // it was carried out before
	}
	var k Member
	if err := json.Unmarshal(cc.GetContext(), &k); err != nil {
		return fmt.Errorf("journal: entry %d: %w", e.GetIndex(), err)
	}
	gone := cc.GetChanges()[0].GetType() == raftpb.ConfChangeRemoveNode
	if err := l.setMembers(l.identity.with(k, gone, e.GetIndex())); err != nil {
		return err
	}
	l.rn.ApplyConfChange(&cc)
	l.changing = 0
	l.lease.again()
	l.cfg.Log.Info("journal: membership changed", "voters", l.identity.conf().GetVoters(), "learners", l.identity.conf().GetLearners())
	return nil
}

// changeTicks is how long a change of the membership is waited for before it is
// taken for lost, with a leader that was deposed.
const changeTicks = 4 * electionTicks

// promoteLag is how many entries a learner may lack when it becomes a voter.
const promoteLag = 1000

// promote makes a voter of a learner that has caught up.
func (l *Log) promote(peers []Peer) {
	for _, p := range peers {
		if k, ok := l.identity.Find(p.ID); ok && k.Learner && p.Learner && p.Active && p.Match > 0 && p.Lag < promoteLag && l.changing+changeTicks < l.ticks {
			k.Learner = false
			if err := l.proposeChange(k, false); err != nil {
				l.cfg.Log.Warn("journal: a learner is not promoted", "voter", p.ID, "err", err)
			}
			return
		}
	}
}
