package master

import "testing"

func (b *inbox) called() bool {
	select {
	case <-b.wake:
		return true
	default:
		return false
	}
}

func TestInboxRingsOnce(t *testing.T) {
	b, f := newInbox(), func(*loop) {}
	b.ring()
	if b.called() {
		t.Error("rung for nothing")
	}
	b.put(f)
	b.put(f)
	if b.called() {
		t.Error("rung before all were put")
	}
	b.ring()
	b.ring()
	if !b.called() || b.called() {
		t.Error("not rung once")
	}
	if got := len(b.take(nil)); got != 2 {
		t.Errorf("%d functions, want 2", got)
	}
	b.put(f)
	b.post(f) // takes along what was put
	if !b.called() || len(b.take(nil)) != 2 {
		t.Error("post does not ring")
	}
	for range putMost {
		b.put(f)
	}
	if !b.called() {
		t.Error("many functions wait for a ring that may be late")
	}
	b.close()
	if b.put(f) || b.post(f) {
		t.Error("a closed inbox takes functions")
	}
}
