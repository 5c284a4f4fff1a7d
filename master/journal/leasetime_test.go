package journal

import (
	"testing"
	"time"

	"github.com/varvefs/varve/test/sim/disk"
	"go.etcd.io/raft/v3/raftpb"
)

// chamber is three voters that a test moves by hand, with one clock.
type chamber struct {
	t      *testing.T
	now    int64
	voters map[uint64]*Manual
	out    map[uint64]*outbox
}

func newChamber(t *testing.T) *chamber {
	c := &chamber{t: t, now: int64(time.Hour), voters: map[uint64]*Manual{}, out: map[uint64]*outbox{}}
	for id := uint64(1); id <= 3; id++ {
		cfg := config("")
		c.out[id] = new(outbox)
		cfg.ID, cfg.Peers, cfg.Transport, cfg.Files, cfg.FileSize = id, []uint64{1, 2, 3}, c.out[id], disk.New(id), 64*page
		cfg.Clock = func() int64 { return c.now }
		l, err := OpenManual(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.voters[id] = l
	}
	return c
}

// settle has the voters do all that they have to, and delivers what they send but
// for what hold keeps back, which it returns.
func (c *chamber) settle(hold func(*raftpb.Message) bool) (held []*raftpb.Message) {
	c.t.Helper()
	for moved := true; moved; {
		moved = false
		for id := uint64(1); id <= 3; id++ {
			turn(c.t, c.voters[id])
			sent := c.out[id].sent
			c.out[id].sent = nil
			for _, m := range sent {
				if hold != nil && hold(m) {
					held = append(held, m)
					continue
				}
				moved = true
				c.deliver(m)
			}
		}
	}
	return held
}

func (c *chamber) deliver(m *raftpb.Message) {
	c.t.Helper()
	if err := c.voters[m.GetTo()].Step(m); err != nil {
		c.t.Fatal(err)
	}
}

// tick is one beat of all clocks.
func (c *chamber) tick() {
	c.t.Helper()
	c.now += int64(c.voters[1].cfg.Tick)
	for id := uint64(1); id <= 3; id++ {
		if err := c.voters[id].Tick(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// The lease counts from when a heartbeat was sent, however late the answer comes,
// and ends before a follower that heard it could vote for somebody else, even if
// its clock is faster by a twentieth and its ticker was late.
func TestLeaseCountsFromSending(t *testing.T) {
	c := newChamber(t)
	c.voters[1].Campaign()
	c.settle(nil)
	lead := c.voters[1]
	if !lead.isLeader() {
		t.Fatal("voter 1 does not lead")
	}
	answer := func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgHeartbeatResp }
	for range 20 {
		c.tick()
		sent := c.now
		held := c.settle(answer)
		if len(held) == 0 {
			continue
		}
		c.now += int64(150 * time.Millisecond)
		for _, m := range held {
			c.deliver(m)
		}
		c.settle(answer)
		longest := int64(leaseTicks*lead.cfg.Tick) * (leaseMargin - 1) / leaseMargin
		if until := lead.Lease(); until > sent+longest {
			t.Fatalf("heartbeats sent at 0, answered after 150 ms, give a lease of %v; at most %v is safe", time.Duration(until-sent), time.Duration(longest))
		}
	}
	if lead.Lease() == 0 {
		t.Error("there was no lease")
	}
}
