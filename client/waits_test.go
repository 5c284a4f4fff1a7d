package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// program is the context of a program that can be killed, and its Caller.
type program struct {
	context.Context
	killed, over chan struct{}
}

func newProgram() *program { return &program{bg, make(chan struct{}), make(chan struct{})} }

func (p *program) Done() <-chan struct{} { return p.killed }
func (p *program) Over() <-chan struct{} { return p.over }
func (p *program) Waits()                {}
func (p *program) WaitsDisk()            {}
func (p *program) HasRead()              {}

func (p *program) Err() error {
	select {
	case <-p.killed:
		return ErrKilled
	default:
		return nil
	}
}

func (p *program) Value(key any) any {
	if _, mine := key.(CallerKey); mine {
		return p
	}
	return p.Context.Value(key)
}

// pendingMake returns a Make of a name that waits for a master.
func pendingMake(s *session, name string) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.pending {
		if m, ok := k.req.(*wire.Make); ok && m.Name == name {
			return k
		}
	}
	return nil
}

// What a killed program has asked for is not done if no master knows of it. If one may, the call ends when
// it is known what became of it.
func TestKilledProgram(t *testing.T) {
	cl := startCluster(t, 1, false)
	a := cl.connect(func(c *Config) { c.Intents = "" })
	cl.stopMaster()
	eventually(t, "the connection is lost", func() bool {
		a.ses.mu.Lock()
		defer a.ses.mu.Unlock()
		return a.ses.conn == nil
	})
	made := map[string]chan error{"unsent": nil, "sent": nil, "over": nil}
	programs := make(map[string]*program)
	for name := range made {
		p, done := newProgram(), make(chan error, 1)
		made[name], programs[name] = done, p
		go func() {
			_, err := a.Make(p, wire.Make{Parent: a.Root(), Name: name, What: inode.Dir, Mode: 0o755})
			done <- err
		}()
		eventually(t, name+" waits", func() bool { return pendingMake(a.ses, name) != nil })
		if name != "unsent" {
			k := pendingMake(a.ses, name)
			a.ses.mu.Lock()
			k.sent = true // before the master went, for all that anybody knows
			a.ses.mu.Unlock()
		}
		close(p.killed)
	}
	close(programs["over"].over)
	for _, name := range []string{"unsent", "over"} {
		if err := <-made[name]; !errors.Is(err, status.Interrupted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.Lookup(programs["sent"], a.Root(), "unsent"); err == nil {
		t.Error("something else was done for a program that is killed")
	}
	if pendingMake(a.ses, "unsent") != nil {
		t.Error("it waits for a master though nobody waits for it")
	}
	select {
	case err := <-made["sent"]:
		t.Errorf("the call ended before its outcome was known: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	cl.startMaster()
	if err := <-made["sent"]; err != nil {
		t.Errorf("sent: %v", err)
	}
	b := cl.connect(nil)
	for _, c := range []*Client{a, b} {
		for name, want := range map[string]error{"unsent": status.NotFound, "sent": nil, "over": nil} {
			if _, err := c.Lookup(bg, c.Root(), name); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
	if _, err := a.Make(bg, wire.Make{Parent: a.Root(), Name: "unsent", What: inode.Dir, Mode: 0o755}); err != nil {
		t.Errorf("later: %v", err)
	}
	a.ses.mu.Lock()
	defer a.ses.mu.Unlock()
	if len(a.ses.unanswered) > 0 || a.ses.doneSeq != a.ses.lastSeq {
		t.Errorf("%d changes have no answer, %d of %d are done", len(a.ses.unanswered), a.ses.doneSeq, a.ses.lastSeq)
	}
}
