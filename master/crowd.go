package master

import (
	"time"

	"github.com/varvefs/varve/inode"
)

// crowdTime is how long after changes by two mounts a directory counts as crowded.
const crowdTime = time.Second

// maxCrowd bounds the directories that are watched.
const maxCrowd = 1 << 16

// crowd knows the directories that more than one mount has changed lately.
// There D is neither granted nor kept: with it, every change of a name would
// have to wait until each of the others has heard of it.
type crowd struct {
	dirs map[inode.Ino]crowdDir
}

type crowdDir struct {
	last  uint64    // session that changed it
	at    time.Time // of the last change
	until time.Time // crowded until then
	row   uint32    // changes by last alone
}

// changed notes that a session changes a name in dir and tells whether dir is crowded.
func (c *crowd) changed(dir inode.Ino, session uint64, now time.Time) bool {
	d, known := c.dirs[dir]
	if known && d.last != session && now.Sub(d.at) < crowdTime {
		d.until = now.Add(crowdTime)
	}
	if len(c.dirs) >= maxCrowd && !known {
		c.sweep(now)
	}
	if d.row++; d.last != session {
		d.row = 1
	}
	d.last, d.at = session, now
	c.dirs[dir] = d
	return now.Before(d.until)
}

// row is how many changes session has made since another mount made one.
func (c *crowd) row(dir inode.Ino, session uint64) uint32 {
	if d := c.dirs[dir]; d.last == session {
		return d.row
	}
	return 0
}

// is tells whether dir is crowded.
func (c *crowd) is(dir inode.Ino, now time.Time) bool {
	d, known := c.dirs[dir]
	return known && now.Before(d.until)
}

// sweep forgets directories that have been quiet, or all when none has.
func (c *crowd) sweep(now time.Time) {
	for dir, d := range c.dirs {
		if now.Sub(d.at) >= crowdTime {
			delete(c.dirs, dir)
		}
	}
	if len(c.dirs) >= maxCrowd {
		clear(c.dirs)
	}
}
