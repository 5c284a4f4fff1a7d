package main

import "testing"

// TestMutationsApply: each mutation has its place in the code as it is now.
func TestMutationsApply(t *testing.T) {
	if err := check("../..", func(*mutation) {}); err != nil {
		t.Error(err)
	}
}
