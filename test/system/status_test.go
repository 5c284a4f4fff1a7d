package system

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestOperator looks at the cluster as its operator does.
func TestOperator(t *testing.T) {
	c := start(t, "--ha", "--servers", "1", "--goal", "1")
	st := c.status()
	_, port, err := net.SplitHostPort(st.Servers[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.try("server", "forget", "localhost:"+port); err == nil || !strings.Contains(out, "is connected; stop it first") {
		t.Errorf("a chunkserver named by its host: %v\n%s", err, out)
	}
	if out, err := c.try("server", "forget", "localhost:1"); err == nil || strings.Contains(out, "no such file") || !strings.Contains(out, "the cluster does not have it") {
		t.Errorf("a chunkserver that is none: %v\n%s", err, out)
	}
	if text := get(t, "http://"+st.Servers[0].HTTP+"/metrics"); !strings.Contains(text, "varve_chunkd_") {
		t.Error("no metrics of the chunkserver")
	}
	for _, line := range strings.Split(c.varve("status"), "\n") {
		if strings.HasPrefix(line, "MASTER") && !strings.Contains(line, "VERSION") {
			t.Errorf("no versions: %s", line)
		}
	}

	// A goal that the servers cannot meet is no secret.
	c.varve("goal", "set", "2", c.mnt)
	c.sh(`head -c 100000 /dev/urandom > $M/x && sync $M/x`)
	var out string
	c.until(30*time.Second, "status says that copies are missing", func() bool {
		out = c.varve("status")
		return strings.Contains(out, "chunks have fewer copies than their goal") && strings.Contains(out, "Connected chunkservers: 1, and goals ask for up to 2 copies")
	})
	t.Log(out)
}
