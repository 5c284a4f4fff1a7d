package segment

import (
	"errors"
	"testing"

	"github.com/varvefs/varve/engine/sim"
)

// TestCreateRestarts cuts the power at every moment of the making of a store. What is left
// is a store, or can be made one; it is never refused.
func TestCreateRestarts(t *testing.T) {
	d := sim.New(sim.Config{Seed: 3, Mode: sim.Manual, Grain: 512})
	crashes, unmade := 0, 0
	explore := func() {
		for e := new(sim.Every); crashes < 3000 && e.Next(); {
			crashes++
			left := d.CrashClone(e)
			cfg := smallConfig(left)
			cfg.step = left.Step
			cfg.Create = nil
			names, err := left.List()
			if err != nil {
				t.Fatal(err)
			}
			empty := len(names) == 0
			if !empty {
				if empty, err = Unmade(left); err != nil {
					t.Fatal(err)
				}
			}
			if empty {
				unmade++
				cfg.Create = &testIdentity
			}
			s, err := Open(cfg)
			if err != nil {
				t.Fatalf("crash %d, store unmade: %v: %v", crashes, empty, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg := smallConfig(d)
	cfg.step = func() bool {
		explore()
		return d.Step()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	explore()
	if made, err := Unmade(d); made || err != nil {
		t.Fatalf("a store counts as unmade: %v, %v", made, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if crashes < 256 || unmade == 0 || unmade == crashes {
		t.Errorf("%d crashes, %d before the store was made", crashes, unmade)
	}
}

// TestDamagedIsNotUnmade: a store whose superblocks are all damaged is refused, not made
// anew.
func TestDamagedIsNotUnmade(t *testing.T) {
	d := sim.New(sim.Config{})
	s := mustOpen(t, smallConfig(d))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(superCopies) {
		d.Poke(superName, i*superStride+100, []byte("damage"))
	}
	if err := d.Remove(containerName(0)); err != nil {
		t.Fatal(err)
	}
	if empty, err := Unmade(d); empty || err != nil {
		t.Fatalf("unmade: %v, %v", empty, err)
	}
	if _, err := Open(smallConfig(d)); err == nil || errors.Is(err, errBlank) {
		t.Fatalf("opened with %v", err)
	}
}
