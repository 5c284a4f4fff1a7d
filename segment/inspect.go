package segment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// Inspect prints what the files of a store in dir, or on a device, hold: table of a device, superblock, checkpoints, segments, frames,
// entries; as text, or as JSON with one object a line. With verify it reads all payload
// too and checks it. It only reads, and wants the store to be closed. The error tells
// what could not be read, or how many damages verify has found; all else is printed.
func Inspect(dir string, w io.Writer, asJSON, verify bool) error {
	src, err := openOrigin(dir)
	if err != nil {
		return err
	}
	defer src.close()
	super, err := src.open(superName)
	if err != nil {
		return err
	}
	defer super.Close()
	sb, err := readSuper(super)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	p := &inspector{w: w, json: asJSON, verify: verify, super: sb}
	p.superblock()
	p.table(src)
	for slot := range checkpointSlots {
		if err := p.checkpoint(src, slot); err != nil {
			return err
		}
	}
	for n := range sb.containers {
		if err := p.container(src, n); err != nil {
			return err
		}
	}
	if p.damages > 0 {
		return fmt.Errorf("%s: %d damages found", dir, p.damages)
	}
	return p.err
}

// inspector prints one store.
type inspector struct {
	w       io.Writer
	json    bool
	verify  bool
	super   super
	damages int
	err     error // of w
}

// These are the objects of the JSON form; the text form prints the same fields.
type (
	superView struct {
		Generation uint64    `json:"generation"`
		Disk       string    `json:"disk"`
		Server     string    `json:"server"`
		Cluster    string    `json:"cluster"`
		Epoch      uint64    `json:"epoch"`
		LSN        uint64    `json:"lsn_limit"`
		Segment    uint32    `json:"segment_bytes"`
		PerFile    uint32    `json:"container_segments"`
		Containers uint32    `json:"containers"`
		Created    time.Time `json:"created"`
	}
	tableView struct {
		Generation uint64       `json:"table_generation"`
		Size       int64        `json:"device_bytes"`
		Files      []tableEntry `json:"files"`
	}
	tableEntry struct {
		Name string `json:"name"`
		Off  int64  `json:"off"`
		Size int64  `json:"size"`
	}
	checkpointView struct {
		Slot       int      `json:"checkpoint"`
		Generation uint64   `json:"generation"`
		LSN        uint64   `json:"lsn"`
		Completed  uint64   `json:"completed_lsn"`
		Bytes      uint64   `json:"bytes"`
		Pages      uint32   `json:"pages"`
		Segments   uint32   `json:"segments"`
		Durable    []uint64 `json:"durable"`
		Damage     string   `json:"damage,omitempty"`
	}
	segmentView struct {
		Segment     uint32      `json:"segment"`
		File        string      `json:"file"`
		State       string      `json:"state"` // blank, free, open, sealed, spoiled
		Head        string      `json:"head,omitempty"`
		Incarnation uint64      `json:"incarnation,omitempty"`
		Emptied     uint64      `json:"emptied,omitempty"`
		End         uint32      `json:"end,omitempty"`
		Frames      []frameView `json:"frames,omitempty"`
		Late        int         `json:"frames_behind_end,omitempty"`
		Stop        string      `json:"stop,omitempty"`
	}
	frameView struct {
		Off     uint32      `json:"off"`
		Size    uint32      `json:"size"`
		Seq     uint64      `json:"seq"`
		LSN     uint64      `json:"lsn"`
		Time    time.Time   `json:"time"`
		Durable []uint64    `json:"durable"`
		Entries []entryView `json:"entries"`
		Damage  string      `json:"damage,omitempty"`
	}
	entryView struct {
		Kind    string        `json:"kind"`
		Chunk   chunk.ID      `json:"chunk"`
		LSN     uint64        `json:"lsn"`
		Version chunk.Version `json:"version,omitempty"`
		Writes  uint32        `json:"writes,omitempty"`
		Off     uint32        `json:"off,omitempty"`
		Len     uint32        `json:"len,omitempty"`
		Pre     uint16        `json:"pre,omitempty"`
		Post    uint16        `json:"post,omitempty"`
		Pos     uint32        `json:"pos,omitempty"`
		Import  uint64        `json:"import,omitempty"`
		Hide    uint64        `json:"hide,omitempty"`
		Base    uint64        `json:"base,omitempty"`
		Moved   bool          `json:"moved,omitempty"`
		Sums    int           `json:"sums,omitempty"`
	}
)

var headNames = [heads]string{"small", "bulk", "clean"}

func kindName(kind uint8) string {
	switch kind {
	case kindData:
		return "data"
	case kindZero:
		return "zero"
	case kindState:
		return "state"
	case kindDelete:
		return "delete"
	}
	return fmt.Sprintf("kind-%d", kind)
}

func (p *inspector) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); p.err == nil {
		p.err = err
	}
}

func (p *inspector) object(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: %T is no JSON: %v", v, err))
	}
	p.printf("%s\n", b)
}

func (p *inspector) superblock() {
	s := &p.super
	v := superView{s.generation, fmt.Sprintf("%016x", s.id.Disk), s.id.Server.String(), s.id.Cluster, s.epoch, s.lsn, s.segment, s.perFile,
		s.containers, time.Unix(0, s.created).UTC()}
	if p.json {
		p.object(v)
		return
	}
	p.printf("superblock generation %d: disk %s server %s cluster %q epoch %d lsn-limit %d\n", v.Generation, v.Disk, v.Server, v.Cluster, v.Epoch, v.LSN)
	p.printf("  %d containers of %d segments of %d bytes, created %s\n", v.Containers, v.PerFile, v.Segment, v.Created.Format(time.RFC3339))
}

// table prints where the files of a device lie.
func (p *inspector) table(src *origin) {
	if src.table == nil {
		return
	}
	v := tableView{src.table.Generation, src.table.Size, []tableEntry{}}
	for _, e := range src.table.Files {
		v.Files = append(v.Files, tableEntry{e.Name, e.Off, e.Size})
	}
	if p.json {
		p.object(v)
		return
	}
	p.printf("table of the device, generation %d: %d files on %d bytes\n", v.Generation, len(v.Files), v.Size)
	for _, e := range v.Files {
		p.printf("  %s %d+%d\n", e.Name, e.Off, e.Size)
	}
}

func (p *inspector) container(src *origin, n uint32) error {
	f, err := src.open(containerName(n))
	if err != nil {
		return err
	}
	defer f.Close()
	if want := int64(p.super.perFile) * int64(p.super.segment); f.Size() != want {
		return fmt.Errorf("%s: %d bytes, %d expected", f.Name(), f.Size(), want)
	}
	for i := range p.super.perFile {
		g := &segment{n: n*p.super.perFile + i, file: f, base: int64(i) * int64(p.super.segment)}
		if err := p.segment(look(g, p.super.segment, p.super.id.Disk)); err != nil {
			return err
		}
	}
	return nil
}

func (p *inspector) segment(fd *found) error {
	v := segmentView{Segment: fd.g.n, File: fd.g.file.Name(), Emptied: fd.emptied, Late: len(fd.late)}
	frames := fd.frames
	switch {
	case fd.sealed != nil:
		v.State, v.End = "sealed", fd.sealed.end
		var err error
		if frames, _, err = loadBody(fd.g, fd.sealed); err != nil {
			return err
		}
	case len(frames) > 0:
		v.State, v.End = "open", frames[len(frames)-1].off+frames[len(frames)-1].size
	case fd.blank:
		v.State = "blank"
	case fd.emptied != 0:
		v.State = "free"
	default:
		v.State = "spoiled"
	}
	if fd.stop != nil && !errors.Is(fd.stop, errBlank) {
		v.Stop = fd.stop.Error()
	}
	if len(frames) > 0 {
		v.Head, v.Incarnation = headNames[frames[0].head], frames[len(frames)-1].incarnation
	}
	if !p.json {
		p.printf("segment %d in %s: %s %s incarnation %d end %d frames %d\n", v.Segment, v.File, v.State, v.Head, v.Incarnation, v.End, len(frames))
		if v.Late > 0 || v.Stop != "" {
			p.printf("  behind the end: %d frames, %s\n", v.Late, v.Stop)
		}
	}
	for _, f := range frames {
		fv, err := p.frame(fd.g, f)
		if err != nil {
			return err
		}
		if p.json {
			v.Frames = append(v.Frames, fv)
		}
	}
	if p.json {
		p.object(v)
	}
	return nil
}

func (p *inspector) frame(g *segment, f *foundFrame) (frameView, error) {
	v := frameView{Off: f.off, Size: f.size, Seq: f.seq, LSN: f.lsn, Time: time.Unix(0, f.time).UTC()}
	for _, m := range f.durable {
		v.Durable = append(v.Durable, m.seq)
	}
	err := decodeEntries(f.bytes, &f.header, func(e *entry, sums []uint32) error {
		v.Entries = append(v.Entries, entryView{kindName(e.kind), e.chunk, e.lsn, e.version, e.writes, e.off, e.len, e.pre, e.post, e.pos,
			e.imp, e.hide, e.base, e.flags&flagMoved != 0, len(sums)})
		return nil
	})
	if err != nil {
		return v, fmt.Errorf("%s: segment %d: frame at %d: %w", g.file.Name(), g.n, f.off, err)
	}
	if p.verify {
		buf := engine.Alloc(int(f.size))
		if err = g.file.ReadAt(buf, g.base+int64(f.off)); err == nil {
			err = verifyPayload(buf, f)
		}
		engine.Free(buf)
		if err != nil {
			v.Damage = err.Error()
			p.damages++
		}
	}
	if !p.json {
		p.printf("  frame %d+%d seq %d lsn %d durable %d\n", v.Off, v.Size, v.Seq, v.LSN, v.Durable)
		for i := range v.Entries {
			p.printf("    %s\n", &v.Entries[i])
		}
		if v.Damage != "" {
			p.printf("    DAMAGED: %s\n", v.Damage)
		}
	}
	return v, nil
}

// String is the entry as text.
func (e *entryView) String() string {
	s := fmt.Sprintf("%s chunk %v lsn %d version %d writes %d", e.Kind, e.Chunk, e.LSN, e.Version, e.Writes)
	switch e.Kind {
	case "data":
		s += fmt.Sprintf(" bytes %d+%d at %d sums %d", e.Off, e.Len, e.Pos, e.Sums)
		if e.Pre|e.Post != 0 {
			s += fmt.Sprintf(" pre %d post %d", e.Pre, e.Post)
		}
	case "zero":
		s += fmt.Sprintf(" bytes %d+%d", e.Off, e.Len)
	case "state":
		s += fmt.Sprintf(" hide %d base %d", e.Hide, e.Base)
	}
	if e.Import != 0 {
		s += fmt.Sprintf(" import %d", e.Import)
	}
	if e.Moved {
		s += " moved"
	}
	return s
}
