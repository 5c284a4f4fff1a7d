package main

import "testing"

func TestOutward(t *testing.T) {
	for _, c := range []struct {
		ips  []string
		want string
	}{
		{[]string{"127.0.1.1", "10.77.0.11"}, "10.77.0.11"},
		{[]string{"10.77.0.11", "10.77.0.12"}, "10.77.0.11"},
		{[]string{"::1", "fd00::1"}, "fd00::1"},
		{[]string{"127.0.0.1"}, "127.0.0.1"},
	} {
		if got := outward(c.ips); got != c.want {
			t.Errorf("of %v: %s", c.ips, got)
		}
	}
}
