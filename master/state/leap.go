package state

import (
	"fmt"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/status"
)

// Leap leaves the numbers behind that another history may have given: a changelog
// of which the end was lost, or that of a backup, gives its slots again, and
// chunkservers still have the copies and mounts the files of those that had them.
// Inodes, chunks and sessions made from now on have numbers that were never given.
// Epoch is the term in which the changelog began anew; for one that was left behind
// already nothing is done.
type Leap struct{ Epoch uint64 }

// Code is OpLeap.
func (*Leap) Code() OpCode { return OpLeap }

// Fields encodes and decodes.
func (o *Leap) Fields(c *codec.Codec) { c.U64(&o.Epoch) }

func (o *Leap) String() string { return fmt.Sprintf("LEAP(%d)", o.Epoch) }

// What is left behind at once. A slot can be used maxUses times, so that there is
// room for fifteen leaps; the lost history had to use one slot more often than that
// to give a number again: a file each millisecond for a day and a half.
const (
	leapUses     = 1 << 27
	leapSessions = 1 << 32
)

func (o *Leap) apply(s *State, _ *Entry, _ *Result) {
	if o.Epoch <= s.head.leapt {
		return
	}
	most := s.head.floor
	for slot := range s.inodes.n {
		most = max(most, s.inodes.at(slot).uses)
	}
	for slot := range s.chunks.n {
		most = max(most, s.chunks.at(slot).uses)
	}
	s.head.leapt, s.head.floor = o.Epoch, min(most, maxUses-leapUses)+leapUses
	s.head.session += leapSessions
}

// Adopt gives a chunk that nobody writes the version of its copies, which a writer of the
// lost history has raised. Result: Ino.
type Adopt struct {
	Chunk   chunk.ID
	Version chunk.Version
}

// Code is OpAdopt.
func (*Adopt) Code() OpCode { return OpAdopt }

// Fields encodes and decodes.
func (o *Adopt) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Chunk)
	c.U32((*uint32)(&o.Version))
}

func (o *Adopt) String() string { return fmt.Sprintf("ADOPT(%s,%d)", o.Chunk, o.Version) }

func (o *Adopt) apply(s *State, _ *Entry, r *Result) {
	c := s.chunkOf(o.Chunk)
	switch {
	case c == 0:
		r.Code = status.NoChunk
	case s.leaseOf(c) != 0:
		r.Code = status.Busy
	case uint32(o.Version) <= s.versionOf(c):
		r.Code = status.StaleVersion
	default:
		owner := s.chunks.at(c).owner
		r.Ino = s.inodes.at(owner).number(owner)
		s.setVersion(c, uint32(o.Version))
	}
}

// Leapt is the epoch of the last Leap, 0: there was none.
func (s *State) Leapt() uint64 { return s.head.leapt }

// freshInode finds a slot for an inode with a number that was never given.
func (s *State) freshInode() uint32 {
	slot := s.inodes.alloc()
	if s.inodes.at(slot).uses < s.head.floor {
		s.inodes.mut(slot).uses = s.head.floor
	}
	return slot
}
