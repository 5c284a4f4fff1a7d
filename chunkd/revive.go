package chunkd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/segment"
)

// A disk that was pulled and put back goes on where it was, without a restart. What it
// holds may be old by then: the master compares versions and has the rest removed. A disk
// that failed with errors stays out until somebody restarts the server: it would only
// fail again.

// revive looks whether disks that were gone are back.
func (s *Server) revive() {
	for i, d := range s.shelf.all() {
		if d.ok() || !d.gone.Load() || !d.present() {
			continue
		}
		back, err := s.reopen(d)
		if err != nil {
			text := err.Error()
			if old := d.refused.Swap(&text); old == nil || *old != text {
				s.log.Warn("disk is not taken back", "dir", d.path, "err", err)
			}
			continue
		}
		all := slices.Clone(s.shelf.all())
		all[i] = back
		s.shelf.places.Store(&all)
		s.shelf.dropDoubles(&s.cfg)
		n := 0
		back.store.Chunks(func(id chunk.ID, _ segment.Info) bool {
			n++
			s.appeared(id)
			return true
		})
		s.log.Info("disk is back", "dir", back.path, "chunks", n)
	}
}

// present tells whether the directory holds a store, or the device is there: what it holds
// is seen when it is opened.
func (d *disk) present() bool {
	info, err := os.Stat(d.path)
	if err == nil && !info.IsDir() {
		return true
	}
	_, err = os.Stat(filepath.Join(d.path, segment.SuperblockName))
	return err == nil
}

// reopen opens the directory of a disk that was gone and makes sure that it is the same.
func (s *Server) reopen(d *disk) (*disk, error) {
	d.close() // else its lock would be ours already
	back, fresh, err := openDisk(&s.cfg, d.path, s)
	if err != nil {
		return nil, err
	}
	if fresh {
		back.close()
		return nil, errors.New("the directory holds no store any more")
	}
	if err := s.same(d, back); err != nil {
		back.close()
		return nil, err
	}
	return back, nil
}

// same checks that back is the disk that was in its place, and tells it what it missed.
func (s *Server) same(d, back *disk) error {
	id := back.store.Identity()
	s.mu.Lock()
	cluster := s.shelf.cluster
	s.mu.Unlock()
	switch {
	case d.id != 0 && id.Disk != d.id:
		return fmt.Errorf("disk %016x is in the place of disk %016x; restart the chunkserver to take it as a new one", id.Disk, d.id)
	case id.Server != s.shelf.server:
		return fmt.Errorf("it belongs to chunkserver %v, this one is %v", id.Server, s.shelf.server)
	case id.Cluster != "" && cluster != "" && id.Cluster != cluster:
		return fmt.Errorf("it belongs to cluster %s, this server to %s", id.Cluster, cluster)
	}
	for _, o := range s.shelf.all() {
		if o != d && o.store != nil && o.id == back.id {
			return fmt.Errorf("it is a copy of %s (the same disk %016x); use one of them", o.path, o.id)
		}
	}
	if err := back.store.SetEpoch(s.fence.high.Load()); err != nil {
		return err
	}
	if id.Cluster != cluster {
		return back.store.SetCluster(cluster)
	}
	return nil
}
