package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
)

// runningUp is the note that a 'varve up' leaves so that tools of the same user find it.
type runningUp struct {
	Pid    int    `json:"pid"`
	Dir    string `json:"dir"`
	Config string `json:"config"` // its client.toml
	Mount  string `json:"mount"`
}

// notesDir is where the notes of this user are.
func notesDir() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "varve")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("varve-%d", os.Getuid()))
}

// leaveNote writes the note; the returned function takes it away again.
func (u runningUp) leaveNote() (func(), error) {
	dir := notesDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, fmt.Sprintf("up-%d.json", u.Pid))
	return func() { os.Remove(name) }, os.WriteFile(name, b, 0o600)
}

// runningUps reads the notes of those that still run and removes the others.
func runningUps() []runningUp {
	dir := notesDir()
	if st, err := os.Stat(dir); err != nil || st.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		return nil // somebody else's directory under our name is not to be trusted
	}
	names, _ := filepath.Glob(filepath.Join(dir, "up-*.json"))
	var all []runningUp
	for _, name := range names {
		b, err := os.ReadFile(name)
		var u runningUp
		if err != nil || json.Unmarshal(b, &u) != nil {
			continue
		}
		if errors.Is(syscall.Kill(u.Pid, 0), syscall.ESRCH) {
			os.Remove(name)
			continue
		}
		all = append(all, u)
	}
	return all
}

// loadTool is load for tools: without --config a running 'varve up' of this
// user is asked before the system's configuration. Of several the one with this
// master is taken; master may be "".
func (s *settings) loadTool(c *cobra.Command, master string) (*conf.File, error) {
	if s.file != "" {
		return s.load(c)
	}
	ups := runningUps()
	if master != "" {
		ups = slices.DeleteFunc(ups, func(u runningUp) bool {
			f, err := conf.Load(u.Config, nil)
			return err != nil || !slices.Contains(f.Cluster.Masters, master)
		})
	}
	switch len(ups) {
	case 0:
	case 1:
		s.file = ups[0].Config
	default:
		var names []string
		for _, u := range ups {
			names = append(names, "--config "+u.Config)
		}
		return nil, fmt.Errorf("%d clusters of 'varve up' are running; choose one: %s", len(ups), strings.Join(names, " or "))
	}
	return s.load(c)
}
