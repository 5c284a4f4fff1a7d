package state

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// renaming is a Rename with its parties found.
type renaming struct {
	from, fromDir uint32 // edge, directory
	to, toDir     uint32 // edge of the new name, 0: it is free
	moved, gone   uint32 // inodes
	movedIsDir    bool
	goneIsDir     bool
}

// find looks up all parties and says what is wrong.
func (o *Rename) find(s *State) (p renaming, code status.Code) {
	exchange := o.Flags&RenameExchange != 0
	if o.Flags&^(RenameNoReplace|RenameExchange) != 0 || exchange && o.Flags&RenameNoReplace != 0 {
		return p, status.Invalid
	}
	if p.from, p.fromDir, code = s.findName(o.Parent, o.Name); code != status.OK {
		return p, code
	}
	if p.to, p.toDir, code = s.newNameIn(o.NewParent, o.NewName); code != status.OK {
		return p, code
	}
	p.moved = s.edges.at(p.from).child
	p.movedIsDir = s.inodes.at(p.moved).kind() == inode.Dir
	if p.to != 0 {
		p.gone = s.edges.at(p.to).child
		p.goneIsDir = s.inodes.at(p.gone).kind() == inode.Dir
	}
	switch {
	case p.to != 0 && o.Flags&RenameNoReplace != 0:
		return p, status.Exists
	case p.to == 0 && exchange:
		return p, status.NotFound
	case p.moved == p.gone:
		return p, status.OK
	case p.movedIsDir && s.below(p.toDir, p.moved):
		return p, status.Invalid
	case exchange && p.goneIsDir && s.below(p.fromDir, p.gone):
		return p, status.Invalid
	case exchange || p.to == 0:
		return p, p.fits(s, exchange)
	case p.movedIsDir && !p.goneIsDir:
		return p, status.NotDir
	case !p.movedIsDir && p.goneIsDir:
		return p, status.IsDir
	case p.goneIsDir && s.dirs.at(s.inodes.at(p.gone).ext).names.count > 0:
		return p, status.NotEmpty
	}
	return p, status.OK
}

// fits checks the link counts of the directories.
func (p *renaming) fits(s *State, exchange bool) status.Code {
	full := func(dir uint32) bool { return s.traitsOf(s.inodes.at(dir)).nlink >= inode.LinkMax }
	if p.fromDir != p.toDir && (p.movedIsDir && !p.goneIsDir && full(p.toDir) ||
		exchange && p.goneIsDir && !p.movedIsDir && full(p.fromDir)) {
		return status.TooManyLinks
	}
	return status.OK
}

func (o *Rename) apply(s *State, e *Entry, r *Result) {
	p, code := o.find(s)
	if code != status.OK {
		r.Code = code
		return
	}
	now := e.moment(o.Time)
	r.Ino = s.inodes.at(p.moved).number(p.moved)
	if p.gone != 0 {
		r.Gone = s.inodes.at(p.gone).number(p.gone)
	}
	if p.moved == p.gone {
		// Two names of one inode: POSIX leaves both.
		r.Last = s.attr(p.gone)
		return
	}
	if o.Flags&RenameExchange != 0 {
		s.swapNames(p.from, p.to)
		s.shiftLinks(p.fromDir, p.toDir, p.movedIsDir)
		s.shiftLinks(p.toDir, p.fromDir, p.goneIsDir)
		s.changed(p.gone, now)
		r.Last = s.attr(p.gone)
	} else {
		if p.to != 0 {
			s.loseName(p.to, o.Hold, now, r)
		}
		s.moveName(p.from, p.toDir, o.NewName)
		s.shiftLinks(p.fromDir, p.toDir, p.movedIsDir)
	}
	s.changed(p.moved, now)
	s.modified(p.fromDir, now)
	if p.toDir != p.fromDir {
		s.modified(p.toDir, now)
	}
}

// shiftLinks moves the link that a directory's ".." is from one parent to another.
func (s *State) shiftLinks(from, to uint32, isDir bool) {
	if isDir && from != to {
		s.addLinks(from, -1)
		s.addLinks(to, 1)
	}
}
