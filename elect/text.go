package elect

import "fmt"

// String is for golden tests, whose clock begins at 0.
func (a Action) String() string { return a.text(fmt.Sprintf("until %d ms", a.Until/1e6)) }

// At is for logs: nobody can read a time of the boot clock.
func (a Action) At(now Nanos) string { return a.text(fmt.Sprintf("for %d ms", (a.Until-now)/1e6)) }

func (a Action) text(hold string) string {
	s := map[Verb]string{
		Forget: "forget the leader", Campaign: "ask for votes", Transfer: fmt.Sprintf("hand over to %d", a.To),
		Hold: "hold the addresses " + hold, Drop: "drop the addresses",
	}[a.Do]
	if a.Why != "" {
		s += ": " + a.Why
	}
	return s
}
