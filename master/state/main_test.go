package state

import (
	"flag"
	"os"
	"testing"
)

// TestMain gives the random tests enough steps to get somewhere; -rapid.checks
// and -rapid.steps go further.
func TestMain(m *testing.M) {
	flag.Parse()
	defaults := map[string]string{"rapid.checks": "100", "rapid.steps": "150"}
	if testing.Short() {
		defaults["rapid.checks"] = "25"
	}
	flag.Visit(func(f *flag.Flag) { delete(defaults, f.Name) })
	for name, value := range defaults {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
