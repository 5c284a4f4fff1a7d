package metalog

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/master/image"
)

// spareRoom is what shall stay free on the disk beside room for one more image:
// the next files of the log.
const spareRoom = 64 << 20

// prune removes what is no longer needed and old enough, on a disk that is nearly full
// before its time: history is worth less than a vote. The log always joins the oldest
// image.
func (m *Metalogger) prune() error {
	list, err := image.List(m.cfg.Dir)
	if err != nil || len(list) == 0 {
		return err
	}
	keep, least := m.keep(list), imagesKept
	if keep == 0 {
		least = 1
	}
	if err := image.Prune(m.cfg.Dir, least, keep); err != nil {
		return err
	}
	if list, err = image.List(m.cfg.Dir); err != nil || len(list) == 0 {
		return err
	}
	if oldest := list[len(list)-1].Index; oldest <= m.log.Status().Applied {
		return m.log.CompactOld(oldest, keep)
	}
	return nil
}

// keep is how long what is in the directory may be kept now: as long as was asked for,
// or half the age of the oldest, and half of that the next time, until there is room.
func (m *Metalogger) keep(images []image.File) time.Duration {
	var st unix.Statfs_t
	if err := unix.Statfs(m.cfg.Dir, &st); err != nil {
		m.cfg.Log.Warn("metalogger: free space is not known", "dir", m.cfg.Dir, "err", err)
		return m.cfg.Keep
	}
	free, least := int64(st.Bavail)*int64(st.Bsize), spareRoom+images[0].Size
	if free >= least {
		m.short = false
		return m.cfg.Keep
	}
	if m.short {
		m.kept = shorter(m.kept)
		return m.kept
	}
	oldest := m.log.Oldest()
	if info, err := os.Stat(images[len(images)-1].Path); err == nil && info.ModTime().Before(oldest) {
		oldest = info.ModTime()
	}
	m.short, m.kept = true, shorter(min(time.Since(oldest), m.cfg.Keep))
	m.cfg.Log.Warn("metalogger: the disk is nearly full; log and images go before their time", "dir", m.cfg.Dir,
		"free", free, "wanted", least, "asked for", m.cfg.Keep, "kept", m.kept.Round(time.Second))
	return m.kept
}

// shorter is half of the time, and in the end none.
func shorter(keep time.Duration) time.Duration {
	if keep < 2*collectEvery {
		return 0
	}
	return keep / 2
}
