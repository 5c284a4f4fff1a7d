package segment

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// Identity says whose disk this is.
type Identity struct {
	Disk    uint64       // drawn when the store is made, never changes; 0 at creation: draw one
	Server  chunk.Server // chunkserver that the disk belongs to
	Cluster string       // cluster that its chunks belong to, "" until one has taken it
}

// SuperblockName is the file by which a store is known.
const SuperblockName = superName

const (
	superName    = "superblock"
	superMagic   = 0x5055535645565241 // "ARVEVSUP"
	superCopies  = 4
	superStride  = 16 << 10 // bytes from copy to copy
	superFile    = superCopies * superStride
	maxCluster   = 256     // bytes of Identity.Cluster
	lsnStride    = 1 << 40 // LSNs that one change of the superblock sets aside
	minSegment   = 64 << 10
	maxSegment   = 1 << 30
	maxContainer = 1 << 12 // segments of one container
)

// super is the superblock: what a disk must know before its log is read. A change
// writes two of the four copies, those that the change before did not write, so that
// the last state stays whole whatever happens to the new one.
type super struct {
	generation uint64
	id         Identity
	epoch      uint64
	lsn        uint64 // LSNs below this may have been used
	segment    uint32 // bytes of a segment
	perFile    uint32 // segments of a container
	containers uint32 // containers in use
	created    int64  // nanoseconds since 1970
	scrub      scrubMark
}

func (s *super) put(b []byte, copy int) {
	clear(b[:blockSize])
	le.PutUint64(b[0:], superMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint32(b[16:], uint32(copy))
	le.PutUint32(b[20:], s.segment)
	le.PutUint32(b[24:], s.perFile)
	le.PutUint32(b[28:], s.containers)
	le.PutUint64(b[32:], s.generation)
	le.PutUint64(b[40:], s.id.Disk)
	le.PutUint64(b[48:], uint64(s.id.Server))
	le.PutUint64(b[56:], s.epoch)
	s.scrub.put(b)
	le.PutUint64(b[64:], s.lsn)
	le.PutUint64(b[72:], uint64(s.created))
	le.PutUint32(b[80:], uint32(len(s.id.Cluster)))
	n := 84
	for i := range len(s.id.Cluster) {
		b[n+i] = s.id.Cluster[i]
	}
	le.PutUint32(b[8:], chunk.Sum(b[:blockSize]))
}

var errFormat = errors.New("made by another version of varve")

// decodeSuper reads and checks one copy.
func decodeSuper(b []byte, copy int) (super, error) {
	var s super
	if len(b) < blockSize {
		return s, fmt.Errorf("superblock of %d bytes", len(b))
	}
	b = b[:blockSize]
	if le.Uint64(b) != superMagic {
		if blank(b) {
			return s, errBlank
		}
		return s, fmt.Errorf("magic %#x is not that of a superblock", le.Uint64(b))
	}
	sum := chunk.Sum(b[:8])
	sum = chunk.SumUpdate(sum, make([]byte, 4))
	if sum = chunk.SumUpdate(sum, b[12:]); sum != le.Uint32(b[8:]) {
		return s, fmt.Errorf("checksum of the superblock is %08x, it says %08x", sum, le.Uint32(b[8:]))
	}
	if v := le.Uint32(b[12:]); v != formatVersion {
		return s, fmt.Errorf("format %d, this program knows %d: %w", v, formatVersion, errFormat)
	}
	if c := le.Uint32(b[16:]); c != uint32(copy) {
		return s, fmt.Errorf("copy %d of the superblock lies where copy %d belongs", c, copy)
	}
	s = super{
		segment: le.Uint32(b[20:]), perFile: le.Uint32(b[24:]), containers: le.Uint32(b[28:]), generation: le.Uint64(b[32:]),
		id:    Identity{Disk: le.Uint64(b[40:]), Server: chunk.Server(le.Uint64(b[48:]))},
		epoch: le.Uint64(b[56:]), lsn: le.Uint64(b[64:]), created: int64(le.Uint64(b[72:])),
	}
	n := le.Uint32(b[80:])
	if n > maxCluster || s.geometry() != nil {
		return s, fmt.Errorf("superblock: name of %d bytes, %w", n, s.geometry())
	}
	s.id.Cluster = string(b[84 : 84+n])
	s.scrub.get(b)
	return s, nil
}

// geometry refuses sizes that a store cannot have.
func (s *super) geometry() error {
	if s.segment < minSegment || s.segment > maxSegment || s.segment%blockSize != 0 || s.perFile == 0 || s.perFile > maxContainer ||
		uint64(s.containers)*uint64(s.perFile) >= uint64(noSegment) {
		return fmt.Errorf("%d containers of %d segments of %d bytes", s.containers, s.perFile, s.segment)
	}
	return nil
}

// readSuper finds the newest valid copy. It returns errBlank if there never was one: the
// copies that the second generation goes to are blank, and what was to be the first
// generation is, at most, torn.
func readSuper(f engine.File) (super, error) {
	if f.Size() < superFile {
		return super{}, fmt.Errorf("%s: %d bytes, %d expected", superName, f.Size(), superFile)
	}
	var best super
	var errs []error
	unborn := 0
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	for i := range superCopies {
		err := f.ReadAt(b, int64(i)*superStride)
		var s super
		if err == nil {
			if s, err = decodeSuper(b, i); err == errBlank || err != nil && i >= superCopies/2 {
				unborn++
			}
		}
		switch {
		case err == errBlank:
		case errors.Is(err, errFormat):
			return best, fmt.Errorf("%s: %w", superName, err)
		case err != nil:
			errs = append(errs, fmt.Errorf("copy %d: %w", i, err))
		case s.generation > best.generation:
			best = s
		}
	}
	switch {
	case best.generation != 0:
		return best, nil
	case unborn == superCopies:
		return best, errBlank
	}
	return best, fmt.Errorf("%s: no valid copy: %w", superName, errors.Join(errs...))
}

// write makes s the newest state, durably. s.generation must have been raised. Copies
// 0 and 1 hold even generations, copies 2 and 3 odd ones.
func (s *super) write(f engine.File, step func() bool) error {
	first := int(s.generation%2) * 2
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	for i := first; i < first+2; i++ {
		s.put(b, i)
		if err := do(f, engine.WriteSync, b, int64(i)*superStride, step); err != nil {
			return fmt.Errorf("%s: %w", superName, err)
		}
	}
	return nil
}

// openSuper reads the superblock, or makes one on a disk that has none.
func openSuper(cfg *Config) (engine.File, super, error) {
	f, err := cfg.Disk.Open(superName)
	if errors.Is(err, fs.ErrNotExist) {
		return createSuper(cfg)
	}
	if err != nil {
		return nil, super{}, err
	}
	s, err := readSuper(f)
	if err == errBlank && cfg.Create == nil {
		err = fmt.Errorf("%s: it was never written: %w", superName, fs.ErrNotExist)
	} else if err == errBlank {
		// Creation was cut short before there was anything to keep, unless there are containers.
		if err = noContainers(cfg.Disk); err == nil {
			if err = f.Close(); err == nil {
				err = cfg.Disk.Remove(superName)
			}
			if err == nil {
				return createSuper(cfg)
			}
			return nil, s, err
		}
	}
	if err != nil {
		return nil, s, errors.Join(err, f.Close())
	}
	return f, s, nil
}

// Unmade tells whether a disk that has files is yet to become a store: creation was cut
// short before its superblock was written, and there is nothing else. Open with
// Config.Create makes the store then, as it does on an empty disk.
func Unmade(d engine.Disk) (bool, error) {
	names, err := d.List()
	if err != nil || len(names) != 1 || names[0] != superName {
		return false, err
	}
	f, err := d.Open(superName)
	if err != nil {
		return false, err
	}
	_, err = readSuper(f)
	return err == errBlank, f.Close()
}

func createSuper(cfg *Config) (engine.File, super, error) {
	if err := noContainers(cfg.Disk); err != nil {
		return nil, super{}, err
	}
	if cfg.Create == nil {
		return nil, super{}, fmt.Errorf("%s: the disk holds no store: %w", superName, fs.ErrNotExist)
	}
	if len(cfg.Create.Cluster) > maxCluster {
		return nil, super{}, fmt.Errorf("cluster name of %d bytes, at most %d are possible", len(cfg.Create.Cluster), maxCluster)
	}
	s := super{id: *cfg.Create, lsn: 1, segment: cfg.SegmentSize, perFile: cfg.ContainerSegments, created: time.Now().UnixNano()}
	if err := s.geometry(); err != nil {
		return nil, s, err
	}
	for s.id.Disk == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, s, err
		}
		s.id.Disk = le.Uint64(b[:])
	}
	f, err := cfg.Disk.Create(superName, superFile)
	if err != nil {
		return nil, s, err
	}
	s.generation = 1
	if err := s.write(f, cfg.step); err != nil {
		return nil, s, errors.Join(err, f.Close())
	}
	return f, s, nil
}

// noContainers refuses a disk that holds data but no superblock.
func noContainers(d engine.Disk) error {
	names, err := d.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := containerNumber(name); ok {
			return fmt.Errorf("%s is there, but no %s: not overwriting what may be a damaged store", name, superName)
		}
	}
	return nil
}
