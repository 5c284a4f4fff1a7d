package system

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// webAddr is where the cluster's page is, as 'varve up' prints it.
func (c *cluster) webAddr() string {
	_, rest, _ := strings.Cut(c.out.String(), "web page")
	return strings.TrimSuffix(strings.Fields(rest)[0], "/")
}

// TestWebPage opens the status page in a browser and reads what it shows.
func TestWebPage(t *testing.T) {
	needTool(t, "chromium")
	c := start(t, "--ha")
	c.sh(`head -c 1000000 /dev/urandom > $M/x && sync $M/x`)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(), "--virtual-time-budget=4000", "--window-size=1200,1400"}
	if shot := os.Getenv("VARVE_SCREENSHOT"); shot != "" {
		exec.CommandContext(ctx, "chromium", append(args, "--screenshot="+shot, c.webAddr()+"/")...).Run()
	}
	dom, err := exec.CommandContext(ctx, "chromium", append(args, "--dump-dom", c.webAddr()+"/")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	st := c.status()
	for _, want := range []string{"all is well", st.Cluster, st.Servers[0].Addr, filepath.Join(c.dir, "chunkd1"), "leader", "standby", "metalogger", "last failover", " ms", "goal 2", c.mnt, "connected"} {
		if !strings.Contains(string(dom), want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", dom)
	}
}

// TestMonitors asks each daemon's HTTP side.
func TestMonitors(t *testing.T) {
	c := start(t)
	c.sh(`head -c 1000000 /dev/urandom > $M/x && sync $M/x && cat $M/x | wc -c`)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "varve_master_", "/debug/pprof/": "goroutine"} {
		if text := get(t, c.webAddr()+path); !strings.Contains(text, want) {
			t.Errorf("master %s has no %q:\n%.2000s", path, want, text)
		}
	}
	for _, s := range c.status().Servers {
		text := get(t, "http://"+s.HTTP+"/metrics")
		for _, want := range []string{"varve_chunkd_", "varve_segment_", "process_resident_memory_bytes"} {
			if !strings.Contains(text, want) {
				t.Errorf("chunkserver %s has no %s", s.HTTP, want)
			}
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(b)
}
