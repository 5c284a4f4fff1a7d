package inode

import "testing"

func TestKinds(t *testing.T) {
	for k := File; k <= BlockDev; k++ {
		if KindOf(k.ModeType()|0o644) != k {
			t.Errorf("%v becomes %v", k, KindOf(k.ModeType()))
		}
	}
	if KindOf(0o600) != File {
		t.Error("a mode without type is not a file")
	}
	if Kind(99).String() != "kind(99)" || Dir.String() != "dir" {
		t.Error("wrong names")
	}
	if (R|D).String() != "RD" || Rights(0).String() != "-" {
		t.Error("wrong rights")
	}
}
