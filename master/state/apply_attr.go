package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

const allSets = SetTrash<<1 - 1

// check finds what is wrong with a SetAttr, and the inode.
func (o *SetAttr) check(s *State) (uint32, status.Code) {
	slot := s.slotOf(o.Ino)
	switch {
	case slot == 0:
		return 0, status.NotFound
	case o.Valid&^allSets != 0:
		return 0, status.Invalid
	case o.Valid&SetGoal != 0 && (o.Goal < inode.GoalMin || o.Goal > inode.GoalMax):
		return 0, status.Invalid
	case o.Valid&SetSize == 0:
		return slot, status.OK
	}
	if _, code := s.fileOf(o.Ino); code != status.OK {
		return 0, code
	}
	if o.Size > inode.SizeMax {
		return 0, status.TooBig
	}
	return slot, status.OK
}

func (o *SetAttr) apply(s *State, e *Entry, r *Result) {
	slot, code := s.slotOf(o.Ino), status.OK
	if slot, code = o.check(s); code != status.OK {
		r.Code = code
		return
	}
	r.Ino = o.Ino
	now := e.moment(o.Time)
	n := s.inodes.mut(slot)
	if o.Valid&(SetUid|SetGid) != 0 {
		s.setOwner(slot, o.Valid, o.Uid, o.Gid)
		s.kill(slot)
	}
	if o.Valid&SetKill != 0 {
		s.kill(slot)
	}
	if o.Valid&SetMode != 0 {
		n.setPerm(o.Mode)
		s.chmodACL(slot)
	}
	if o.Valid&SetSize != 0 {
		old := s.weigh(slot)
		// A writer may have bytes behind the new size that it has not committed:
		// what is leased is cut even where the size known here grows.
		cut := o.Size <= n.size || s.leasedAt(slot, o.Size)
		s.setSize(slot, o.Size)
		s.freeChunksFrom(slot, beyond(o.Size), r)
		if cut {
			s.clip(slot, o.Size)
		}
		s.reweigh(slot, old)
		n.mtime = now
	}
	o.times(n, now)
	if o.Valid&SetGoal != 0 {
		s.setGoal(slot, o.Goal, r)
	}
	if o.Valid&SetTrash != 0 {
		s.setTrash(slot, o.Trash)
	}
	s.touch(slot)
}

func (o *SetAttr) times(n *inodeRec, now int64) {
	if o.Valid&SetAtime != 0 {
		n.atime = o.Atime
	}
	if o.Valid&SetAtimeNow != 0 {
		n.atime = now
	}
	if o.Valid&SetMtime != 0 {
		n.mtime = o.Mtime
	}
	if o.Valid&SetMtimeNow != 0 {
		n.mtime = now
	}
	n.ctime = now
	if o.Valid&SetCtime != 0 {
		n.ctime = o.Mtime
	}
}

// kill takes from a file what a change of owner or content must not leave: suid,
// sgid when it is executable by the group, and file capabilities.
func (s *State) kill(slot uint32) {
	n := s.inodes.mut(slot)
	if n.kind() == inode.Dir {
		return
	}
	n.mode &^= 0o4000
	if n.mode&0o010 != 0 {
		n.mode &^= 0o2000
	}
	if n.flags&inode.HasCaps != 0 {
		s.removeXattr(slot, XattrCaps)
	}
}

// setGoal changes the goal of one inode and tells which chunks it concerns.
func (s *State) setGoal(slot uint32, goal uint8, r *Result) bool {
	n := s.inodes.mut(slot)
	if n.goal == goal {
		return false
	}
	if dir := s.above(slot); dir != 0 {
		w := s.weigh(slot)
		s.lift(dir, goal, &w)
		s.sink(dir, n.goal, &w)
	}
	n.goal = goal
	if n.kind() == inode.File {
		t := s.chunkTree(n)
		s.treeUp(&t, 0, maxIndex, func(_ uint64, c uint32) bool {
			r.Effects.Goal = append(r.Effects.Goal, chunk.ID(s.chunks.at(c).number(c)))
			return true
		})
	}
	return true
}

func (o *SetMany) apply(s *State, e *Entry, r *Result) {
	goal := o.Valid&SetGoal != 0
	if o.Valid&^(SetGoal|SetTrash) != 0 || goal && (o.Goal < inode.GoalMin || o.Goal > inode.GoalMax) {
		r.Code = status.Invalid
		return
	}
	for _, ino := range o.Inos {
		slot := s.slotOf(ino)
		if slot == 0 {
			continue
		}
		hit := goal && s.setGoal(slot, o.Goal, r)
		if o.Valid&SetTrash != 0 && s.setTrash(slot, o.Trash) {
			hit = true
		}
		if hit {
			s.changed(slot, e.Time)
			r.Count++
		}
	}
}

// check finds what is wrong with a SetXattr, and the inode.
func (o *SetXattr) check(s *State) (uint32, status.Code) {
	slot := s.slotOf(o.Ino)
	if slot == 0 {
		return 0, status.NotFound
	}
	if code := xattrForm(o.Name); code != status.OK {
		return 0, code
	}
	if len(o.Value) > inode.XattrMax {
		return 0, status.AttrTooLarge
	}
	if o.Flags&^(XattrCreate|XattrReplace) != 0 || o.Flags == XattrCreate|XattrReplace {
		return 0, status.Invalid
	}
	_, exists := s.xattr(slot, o.Name)
	switch {
	case exists && o.Flags == XattrCreate:
		return 0, status.Exists
	case !exists && o.Flags == XattrReplace:
		return 0, status.NoAttr
	case !exists && s.xattrNames(slot)+len(o.Name)+1 > maxXattrNames:
		return 0, status.NoSpace
	}
	switch kind := s.inodes.at(slot).kind(); {
	case !isACL(o.Name):
	case kind == inode.Symlink:
		return 0, status.Unsupported
	case o.Name == XattrDefault && kind != inode.Dir:
		return 0, status.Access
	}
	return slot, status.OK
}

func (o *SetXattr) apply(s *State, e *Entry, r *Result) {
	slot, code := o.check(s)
	if code != status.OK {
		r.Code = code
		return
	}
	value := o.Value
	if isACL(o.Name) {
		a, err := parseACL(o.Value)
		if err != nil {
			r.Code = status.Invalid
			return
		}
		if len(a) == 0 {
			value = nil
		} else if o.Name == XattrAccess {
			perm, plain := a.mode()
			n := s.inodes.mut(slot)
			n.setPerm(n.perm()&^0o777 | perm)
			if plain {
				value = nil
			}
		}
	}
	if o.Kill {
		s.inodes.mut(slot).mode &^= 0o2000
	}
	if isACL(o.Name) && value == nil {
		s.removeXattr(slot, o.Name)
	} else {
		s.setXattr(slot, o.Name, value)
	}
	s.changed(slot, e.Time)
	r.Ino = o.Ino
}

func (o *RemoveXattr) apply(s *State, e *Entry, r *Result) {
	slot := s.slotOf(o.Ino)
	if slot == 0 {
		r.Code = status.NotFound
		return
	}
	if r.Code = xattrForm(o.Name); r.Code != status.OK {
		return
	}
	if s.removeXattr(slot, o.Name) {
		s.changed(slot, e.Time)
	} else if !isACL(o.Name) {
		r.Code = status.NoAttr
		return
	}
	r.Ino = o.Ino
}
