package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/varvefs/varve/test/lan"
)

// voterDirs are the directories of the units that vote.
var voterDirs = map[string]string{"varve-master": "/var/lib/varve/master", "varve-metalogger": "/var/lib/varve/metalogger"}

// NeedsDisks says why Options.Disk cannot be had here; nil: it can.
func NeedsDisks() error {
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("no loop devices: %w", err)
	}
	return nil
}

// mountDisk gives a voter its disk, if it has not got it since its host was
// switched on. The kernel lets go of the loop device when the host goes.
func (p *Plan) mountDisk(h *lan.Host, unit string) error {
	dir := voterDirs[unit]
	if p.o.Disk == 0 || dir == "" {
		return nil
	}
	file := filepath.Join(p.o.Dir, h.Name+".disk")
	if _, err := os.Stat(file); err != nil {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		if err := f.Truncate(p.o.Disk); err != nil {
			return err
		}
		f.Close()
		if _, err := h.Run("mkfs.ext4", "-q", "-m", "0", file); err != nil {
			return err
		}
	}
	if _, err := h.Run("mountpoint", "-q", dir); err == nil {
		return nil
	}
	if _, err := h.Run("sh", "-c", fmt.Sprintf("mkdir -p %s && mount -o loop %s %s && chown 65534:65534 %s && rmdir %s/lost+found 2>/dev/null || mountpoint -q %s", dir, file, dir, dir, dir, dir)); err != nil {
		return fmt.Errorf("a disk for %s: %w", h.Name, err)
	}
	return nil
}

// Rewrite changes a text in varve.toml on all machines; daemons read it when they start.
func (p *Plan) Rewrite(from, to string) error {
	for _, h := range p.Hosts {
		name := h.Path("/etc/varve/varve.toml")
		if root := h.Root(); root != "" {
			name = root + "/etc/varve/varve.toml"
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !strings.Contains(string(b), from) {
			return fmt.Errorf("varve.toml of %s has no %q", h.Name, from)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(b), from, to)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
