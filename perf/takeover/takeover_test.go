package main

import (
	"math"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var v []float64
	for i := range 50 {
		v = append(v, float64(i+1))
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 25, 0.98: 49, 0.99: 50, 1: 50} {
		if got := quantile(v, q); got != want {
			t.Errorf("%v: %v, not %v", q, got, want)
		}
	}
}

// A trace is in order, whatever order the logs were read in.
func TestTrace(t *testing.T) {
	zero, text, ok := split(`time=2026-11-22T17:02:11.082Z level=WARN msg="journal: elected" term=7`)
	if !ok || text != `msg="journal: elected" term=7` || !telling.MatchString(text) {
		t.Fatalf("%v %q %v", zero, text, ok)
	}
	if _, _, ok := split("panic: no line of the log"); ok {
		t.Error("a line without a time has one")
	}
	var list []event
	for _, ms := range []int{30, -5, 12, 0, 12} {
		list = merge(list, zero, event{}, zero.Add(time.Duration(ms)*time.Millisecond))
	}
	last := math.Inf(-1)
	for _, e := range list {
		if e.Ms < last {
			t.Fatalf("out of order: %+v", list)
		}
		last = e.Ms
	}
}
