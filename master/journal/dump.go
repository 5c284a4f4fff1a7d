package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/varvefs/varve/master/journal/files"
	"go.etcd.io/raft/v3/raftpb"
)

// Dump prints the changelog in dir as text, oldest entry first, also while a
// master writes it: a line per file, a line per entry, and below each entry,
// indented, what text makes of its data. The last line says how far the log goes. Damage is said where it is; the rest of
// the files is printed nevertheless, and the first damage is returned.
func Dump(dir string, w io.Writer, text func(data []byte) string) error {
	home := files.Host(dir)
	numbers, err := listFiles(home)
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return fmt.Errorf("%s: no changelog file (*%s) here", dir, suffix)
	}
	d := &dumper{dir: home, w: bufio.NewWriter(w), text: text}
	for i, n := range numbers {
		if err := d.file(n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	if d.prev != nil {
		d.end(d.prev, nil)
	}
	fmt.Fprintf(d.w, "last entry: term %d, index %d; committed up to index %d; now in term %d\n", d.last.Term, d.last.Index, d.hard.Commit, d.hard.Term)
	if err := d.w.Flush(); err != nil {
		return err
	}
	return d.damage
}

type dumper struct {
	dir    files.Dir
	w      *bufio.Writer
	text   func([]byte) string
	prev   *scan // the file before, whose end the next header tells
	number uint64
	last   position
	hard   hard
	damage error
}

// bad prints damage and keeps the first.
func (d *dumper) bad(number uint64, off int64, why string) {
	err := &CorruptError{File: d.dir.Path(fileName(number)), Offset: off, Why: why}
	fmt.Fprintf(d.w, "!! %v\n", err)
	if d.damage == nil {
		d.damage = err
	}
}

func (d *dumper) file(number uint64, last bool) error {
	b, err := d.dir.Read(fileName(number))
	if err != nil {
		return err
	}
	s := scanFile(b, number)
	if !s.headOK {
		switch {
		case len(s.stray) > 0 || !errors.Is(s.why, errBlank) && !last:
			d.bad(number, 0, s.why.Error())
		case last:
			fmt.Fprintf(d.w, "file %s: ready, not used yet\n", fileName(number))
		default:
			d.bad(number, 0, "the file header is missing")
		}
		return nil
	}
	if d.prev != nil {
		d.end(d.prev, &s.head)
	}
	h := &s.head
	d.last = h.Before
	fmt.Fprintf(d.w, "file %s: begun %s by voter %d of %v, behind entry %d of term %d, %d frames, %d of %d bytes\n",
		fileName(number), time.Unix(0, h.Created).UTC().Format(time.RFC3339), h.Node, h.Voters, h.Before.Index, h.Before.Term, len(s.frames), s.end, len(b))
	hs := h.Hard
	for i := range s.frames {
		f := &s.frames[i]
		err := decodeRecords(&f.frame, f.records, func(r *record) error { d.record(f.off, r); return nil })
		if err != nil {
			d.bad(number, f.off, err.Error())
		}
		if f.Hard.Term != hs.Term || f.Hard.Vote != hs.Vote {
			fmt.Fprintf(d.w, "@%d term %d, vote for %d, committed %d\n", f.off, f.Hard.Term, f.Hard.Vote, f.Hard.Commit)
		}
		hs = f.Hard
	}
	fmt.Fprintf(d.w, "committed up to entry %d when last written\n", hs.Commit)
	d.hard = hs
	d.prev, d.number = &s, number
	return nil
}

// end says how a file ends, as the next header or, for the newest, the bytes
// behind it tell.
func (d *dumper) end(s *scan, next *header) {
	switch {
	case next != nil && (uint64(s.end) != next.PrevEnd || s.sum != next.PrevSum):
		d.bad(d.number, s.end, fmt.Sprintf("%v; the next file says that this one ends at %d", s.why, next.PrevEnd))
	case next == nil && s.proof != "":
		d.bad(d.number, s.end, fmt.Sprintf("%v; %s", s.why, s.proof))
	case next == nil && !errors.Is(s.why, errBlank):
		fmt.Fprintf(d.w, "torn tail at offset %d, to be cut at the next start\n", s.end)
	}
	d.prev = nil
}

func (d *dumper) record(off int64, r *record) {
	d.last = position{Index: r.Index, Term: r.Term}
	switch {
	case r.Kind == recordMark:
		fmt.Fprintf(d.w, "@%d the log goes on behind entry %d of term %d (an image was taken over)\n", off, r.Index, r.Term)
	case r.Type != 0:
		var cc raftpb.ConfChangeV2
		if err := unmarshal(r.Data, &cc); err != nil {
			fmt.Fprintf(d.w, "@%d entry %d term %d: change of the membership: %v\n", off, r.Index, r.Term, err)
			return
		}
		fmt.Fprintf(d.w, "@%d entry %d term %d: change of the membership: %v %s\n", off, r.Index, r.Term, cc.GetChanges(), cc.GetContext())
	case len(r.Data) == 0:
		fmt.Fprintf(d.w, "@%d entry %d term %d: a leader's first\n", off, r.Index, r.Term)
	default:
		fmt.Fprintf(d.w, "@%d entry %d term %d: %d bytes\n", off, r.Index, r.Term, len(r.Data))
		for line := range strings.Lines(d.text(r.Data)) {
			fmt.Fprintf(d.w, "\t%s\n", strings.TrimRight(line, "\n"))
		}
	}
}
