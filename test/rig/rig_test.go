package rig

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// What was written is there after every daemon was killed and started again.
func TestClusterOutlivesItsProcesses(t *testing.T) {
	c := Start(t, Options{Servers: 2})
	m := c.MountWith(t, MountOptions{})
	name := filepath.Join(m.Dir, "file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("still here"); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	m.Kill()
	c.KillServer(0)
	c.KillServer(1)
	c.KillMaster()

	c.StartMaster()
	c.StartServer(0)
	c.StartServer(1)
	c.AwaitServers(2)
	m.Start()
	if b, err := os.ReadFile(name); err != nil || string(b) != "still here" {
		t.Errorf("read %q, %v", b, err)
	}
}
