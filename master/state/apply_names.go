package state

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

func (*Nop) apply(*State, *Entry, *Result) {}

// check finds what is wrong with a Make, and the directory.
func (o *Make) check(s *State, e *Entry) (dir uint32, code status.Code) {
	if o.Name == "" {
		dir, isDir := s.dirOf(o.Parent)
		switch {
		case dir == 0:
			return 0, status.NotFound
		case !isDir:
			return 0, status.NotDir
		case o.What != inode.File || !o.Hold:
			return 0, status.Invalid
		case s.session(e.Session) == nil:
			return 0, status.Stale
		}
		return dir, o.form(s, e)
	}
	edge, dir, code := s.newNameIn(o.Parent, o.Name)
	switch {
	case code != status.OK:
		return 0, code
	case edge != 0:
		return 0, status.Exists
	case o.What == inode.Dir && s.traitsOf(s.inodes.at(dir)).nlink >= inode.LinkMax:
		return 0, status.TooManyLinks
	}
	return dir, o.form(s, e)
}

// form checks what does not depend on the directory.
func (o *Make) form(s *State, e *Entry) status.Code {
	switch {
	case o.What < inode.File || o.What > inode.BlockDev:
		return status.Invalid
	case o.What == inode.Symlink && len(o.Target) > inode.TargetMax:
		return status.NameTooLong
	case (o.What == inode.Symlink) != (o.Target != ""):
		return status.Invalid
	case o.Lease && o.What != inode.File:
		return status.Invalid
	case o.Lease && s.session(e.Session) == nil:
		return status.Stale
	case o.Ino != 0 && !s.reserved(o.Ino, e.Session):
		return status.Stale
	}
	return status.OK
}

func (o *Make) apply(s *State, e *Entry, r *Result) {
	dir, code := o.check(s, e)
	if code != status.OK {
		r.Code = code
		return
	}
	up := *s.inodes.at(dir)
	perm, acl := s.firstMode(dir, &up, o)
	now := e.moment(o.Time)
	slot := s.newInode(s.newSlot(o.Ino, e.Session), o.What, perm, now)
	n := s.inodes.mut(slot)
	n.goal = up.goal
	s.setTraits(slot, o.traits(s.traitsOf(&up), up.perm()))
	switch o.What {
	case inode.Symlink:
		n.ext, n.size = put(&s.blobs, o.Target), uint64(len(o.Target))
	case inode.CharDev, inode.BlockDev:
		n.ext = o.Rdev
	}
	r.Ino = n.number(slot)
	if acl != nil {
		s.setXattr(slot, XattrAccess, acl)
	}
	if def, ok := s.xattr(dir, XattrDefault); ok && o.What == inode.Dir {
		s.setXattr(slot, XattrDefault, append([]byte(nil), def...))
	}
	if o.Lease {
		r.Chunks = []ChunkSlot{s.slotInfo(s.newLeasedChunk(slot, 0, e.Session))}
	}
	if o.Name == "" {
		s.setLinks(slot, 0)
		n.flags |= nameless
		s.orphans[slot] = []uint64{e.Session}
		return
	}
	s.addName(dir, slot, o.Name)
	if s.modified(dir, now); o.What == inode.Dir {
		s.addLinks(dir, 1)
	}
}

// traits gives those of the new inode, in a directory that has up and perm.
func (o *Make) traits(up *traits, perm uint32) traits {
	t := traits{uid: o.Uid, gid: o.Gid, nlink: 1, trash: up.trash}
	if perm&0o2000 != 0 {
		t.gid = up.gid
	}
	if o.What == inode.Dir {
		t.nlink = 2
	}
	return t
}

// firstMode gives the permission bits of a new inode, and its access ACL when
// the directory's default ACL says more than they can.
func (s *State) firstMode(dir uint32, up *inodeRec, o *Make) (uint32, []byte) {
	if o.What == inode.Symlink {
		return 0o777, nil
	}
	perm := o.Mode & 0o7777
	if o.What == inode.Dir && up.perm()&0o2000 != 0 {
		perm |= 0o2000
	}
	def, ok := s.xattr(dir, XattrDefault)
	if !ok {
		return perm &^ (o.Umask & 0o777), nil
	}
	acl, err := parseACL(def)
	if err != nil {
		panic("BUG: a default ACL that cannot be read was stored")
	}
	if acl.create(&perm) {
		return perm, nil
	}
	return perm, acl.encode()
}

func (o *Remove) apply(s *State, e *Entry, r *Result) {
	edge, dir, code := s.findName(o.Parent, o.Name)
	if code != status.OK {
		r.Code = code
		return
	}
	child := s.edges.at(edge).child
	n := s.inodes.at(child)
	isDir := n.kind() == inode.Dir
	switch {
	case o.Dir && !isDir:
		r.Code = status.NotDir
	case !o.Dir && isDir:
		r.Code = status.IsDir
	case isDir && s.dirs.at(n.ext).names.count > 0:
		r.Code = status.NotEmpty
	}
	if r.Code != status.OK {
		return
	}
	r.Ino = n.number(child)
	now := e.moment(o.Time)
	s.loseName(edge, o.Hold, now, r)
	s.modified(dir, now)
}

// loseName takes a name away, and the inode if it was the last one and nobody
// has it open. The directory's times are the caller's.
func (s *State) loseName(edge uint32, hold []uint64, now int64, r *Result) {
	ref := *s.edges.at(edge)
	s.dropName(edge)
	n := s.changed(ref.child, now)
	if n.kind() == inode.Dir {
		s.setLinks(ref.child, 0)
		s.addLinks(ref.parent, -1)
	} else {
		s.addLinks(ref.child, -1)
	}
	r.Last = s.attr(ref.child)
	if r.Last.Nlink > 0 {
		return
	}
	if holds := s.live(hold); len(holds) > 0 {
		s.orphans[ref.child] = holds
		r.Orphan = true
		return
	}
	s.freeInode(ref.child, r)
}

func (o *Link) apply(s *State, e *Entry, r *Result) {
	slot := s.slotOf(o.Ino)
	if slot == 0 {
		r.Code = status.NotFound
		return
	}
	edge, dir, code := s.newNameIn(o.Parent, o.Name)
	n := s.inodes.at(slot)
	nlink := s.traitsOf(n).nlink
	switch {
	case code != status.OK:
		r.Code = code
	case n.kind() == inode.Dir:
		r.Code = status.Perm
	case edge != 0:
		r.Code = status.Exists
	case nlink >= inode.LinkMax:
		r.Code = status.TooManyLinks
	case nlink == 0 && n.flags&nameless == 0:
		r.Code = status.NotFound
	}
	if r.Code != status.OK {
		return
	}
	delete(s.orphans, slot)
	s.addName(dir, slot, o.Name)
	m := s.changed(slot, e.Time)
	s.addLinks(slot, 1)
	m.flags &^= nameless
	s.modified(dir, e.Time)
	r.Ino = o.Ino
}
