package master

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
)

// Recovery says what a directory holds, and what Recover makes of it.
type Recovery struct {
	journal.Survivor
	Image image.Meta // of the newest whole image
}

// Survey says what Recover would do, and changes nothing.
func Survey(dir string, id, epoch uint64, log *slog.Logger) (*Recovery, error) {
	return recovery(dir, id, epoch, log, false)
}

// Recover makes the directory of a master or metalogger that of a single master
// after the majority of the voters is lost for good; see journal.Survive, also for the
// number id. Its epoch will be above epoch. Nothing may run on the directory.
func Recover(dir string, id, epoch uint64, log *slog.Logger) (*Recovery, error) {
	return recovery(dir, id, epoch, log, true)
}

func recovery(dir string, id, epoch uint64, log *slog.Logger, change bool) (*Recovery, error) {
	cfg := journal.Config{Dir: filepath.Join(dir, logDir), ID: id, Log: log}
	meta, err := newestImage(dir, cfg, change, log)
	if err != nil {
		return nil, err
	}
	cfg.Applied, cfg.AppliedTerm = meta.Index, meta.Term
	do := journal.Survey
	if change {
		do = journal.Survive
	}
	s, err := do(cfg, epoch)
	if err != nil {
		return nil, err
	}
	return &Recovery{Survivor: *s, Image: meta}, nil
}

// newestImage describes the newest whole image in dir. A young metalogger has none
// yet, but all of the changelog: its first entry follows the image that every master
// begins with, which is made when dir may be changed.
func newestImage(dir string, cfg journal.Config, change bool, log *slog.Logger) (image.Meta, error) {
	list, err := image.List(dir)
	if err != nil {
		return image.Meta{}, err
	}
	for _, f := range list {
		meta, err := verify(f.Path)
		if err == nil {
			return meta, nil
		}
		log.Error("image cannot be used; trying an older one", "file", f.Path, "err", err)
	}
	s, err := journal.Survey(cfg, 0)
	if len(list) > 0 || err != nil || s.Last == 0 {
		return image.Meta{}, fmt.Errorf("there is no whole image in %s, and no changelog that begins with entry 1; put an image.* back", dir)
	}
	if !change {
		return image.Meta{}, nil
	}
	_, meta, _, err := firstImage(dir, time.Now())
	return meta, err
}

// verify reads a whole image.
func verify(path string) (image.Meta, error) {
	r, err := os.Open(path)
	if err != nil {
		return image.Meta{}, err
	}
	defer r.Close()
	return image.Verify(r)
}

// logDir is where, in its directory, a master or metalogger keeps the changelog.
const logDir = "log"

// LogDir is the directory of the changelog in that of a master or metalogger; dir
// itself, when that is a changelog's.
func LogDir(dir string) string {
	if inner := filepath.Join(dir, logDir); isDir(inner) {
		return inner
	}
	return dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Number is the number of the voter whose directory this is, 0 when it is new.
func Number(dir string) (uint64, error) { return journal.Number(filepath.Join(dir, logDir)) }
