package elect

import "fmt"

// String is for logs and golden tests.
func (a Action) String() string {
	s := map[Verb]string{
		Forget: "forget the leader", Campaign: "ask for votes", Transfer: fmt.Sprintf("hand over to %d", a.To),
		Hold: fmt.Sprintf("hold the addresses until %d ms", a.Until/1e6), Drop: "drop the addresses",
	}[a.Do]
	if a.Why != "" {
		s += ": " + a.Why
	}
	return s
}
