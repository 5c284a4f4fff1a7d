package journal

import (
	"errors"
	"fmt"
)

// CorruptError says where a log file is damaged in a way that no crash explains.
// Nothing is repaired or cut: the operator decides.
type CorruptError struct {
	File   string
	Offset int64
	Why    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: damaged at offset %d: %s", e.File, e.Offset, e.Why)
}

// located is a frame and where it is.
type located struct {
	frame
	off     int64
	records []byte
}

// scan is what one file holds.
type scan struct {
	head   header
	headOK bool
	frames []located
	end    int64   // offset behind the last frame that counts
	sum    uint32  // of that frame, or of the header
	why    error   // what is wrong at end; errBlank at a clean end
	stray  []int64 // offsets of frames of this file behind end
	proof  string  // why what is wrong at end is no torn tail; "" if it may be one
}

// scanFile reads the bytes of file number. It follows the frames from the
// header on, each of which must name the one before it, and then looks for
// frames behind the first gap: they tell a torn tail from damage.
func scanFile(b []byte, number uint64) scan {
	var s scan
	s.head, s.why = decodeHeader(b)
	s.headOK = s.why == nil && s.head.Number == number
	switch {
	case s.headOK:
		s.end, s.sum = page, s.head.sum
		s.follow(b)
		if uint64(len(b)) != s.head.Size {
			s.proof = fmt.Sprintf("the file has %d bytes where its header says %d", len(b), s.head.Size)
		}
	case s.why == nil: // the header of a file that was recycled
		s.why = errBlank
	}
	for off := s.end; off+frameHead <= int64(len(b)); off += page {
		f, err := parseFrame(b[off:], int64(len(b))-off)
		if err != nil || f.Number != number || f.Offset != uint64(off) || s.headOK && f.Nonce != s.head.Nonce {
			continue
		}
		if _, err := checkFrame(&f, b[off:]); err != nil {
			continue
		}
		s.stray = append(s.stray, off)
		if f.Durable > uint64(s.end) && s.proof == "" {
			s.proof = fmt.Sprintf("the frame at offset %d shows that it was durable", off)
		}
	}
	if errors.Is(s.why, errPlace) && s.proof == "" {
		s.proof = "no crash does that"
	}
	return s
}

// follow collects the frames that hang together from the header on.
func (s *scan) follow(b []byte) {
	for {
		f, records, err := s.nextFrame(b)
		if err != nil {
			s.why = err
			return
		}
		s.frames = append(s.frames, located{frame: f, off: s.end, records: records})
		s.end += int64(padded(int(f.Length)))
		s.sum = f.sum
	}
}

// nextFrame reads the frame at s.end and checks that it belongs there.
func (s *scan) nextFrame(b []byte) (frame, []byte, error) {
	if s.end >= int64(len(b)) {
		return frame{}, nil, errBlank
	}
	f, err := parseFrame(b[s.end:], int64(len(b))-s.end)
	if err != nil {
		return f, nil, err
	}
	if f.Number != s.head.Number || f.Nonce != s.head.Nonce {
		return f, nil, errBlank // left by the file's former life
	}
	records, err := checkFrame(&f, b[s.end:])
	switch {
	case err != nil:
		return f, nil, err
	case f.Offset != uint64(s.end):
		return f, nil, fmt.Errorf("%w: it belongs to offset %d", errPlace, f.Offset)
	case f.PrevSum != s.sum:
		return f, nil, fmt.Errorf("%w: it does not follow the frame before it", errPlace)
	}
	return f, records, nil
}
