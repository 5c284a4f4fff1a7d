package state

import (
	"encoding/binary"
	"errors"

	"github.com/varvefs/varve/inode"
)

// POSIX access control lists (acl(5)) in the form in which the kernel hands them
// over as extended attributes: a version and entries of tag, permissions, id.
const (
	aclVersion = 2
	aclHeader  = 4
	aclEntry   = 8

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclNoID = 1<<32 - 1
)

type acl []aclRec

type aclRec struct {
	tag  uint16
	perm uint16
	id   uint32
}

var errACL = errors.New("not a valid access control list")

func isACL(name string) bool { return name == XattrAccess || name == XattrDefault }

// parseACL reads a list. An empty one has no entries; any other must be complete
// and in order.
func parseACL(b []byte) (acl, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, errACL
	}
	b = b[aclHeader:]
	a := make(acl, 0, len(b)/aclEntry)
	for ; len(b) > 0; b = b[aclEntry:] {
		r := aclRec{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		if r.tag != aclUser && r.tag != aclGroup {
			r.id = aclNoID
		}
		a = append(a, r)
	}
	return a, a.check()
}

// check wants the owner, users, the group, groups, the mask (when there are
// users or groups) and others, in this order.
func (a acl) check() error {
	if len(a) == 0 {
		return nil
	}
	var seen, last uint16
	for _, r := range a {
		named := r.tag == aclUser || r.tag == aclGroup
		switch {
		case r.perm > 7,
			r.tag == 0 || r.tag&(r.tag-1) != 0 || r.tag > aclOther,
			r.tag < last,
			r.tag == last && !named,
			named && r.id == aclNoID:
			return errACL
		}
		last = r.tag
		seen |= r.tag
	}
	const base = aclUserObj | aclGroupObj | aclOther
	if seen&base != base || seen&(aclUser|aclGroup) != 0 && seen&aclMask == 0 {
		return errACL
	}
	return nil
}

func (a acl) encode() []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, aclHeader+len(a)*aclEntry), aclVersion)
	for _, r := range a {
		b = binary.LittleEndian.AppendUint16(b, r.tag)
		b = binary.LittleEndian.AppendUint16(b, r.perm)
		b = binary.LittleEndian.AppendUint32(b, r.id)
	}
	return b
}

func (a acl) find(tag uint16) *aclRec {
	for i := range a {
		if a[i].tag == tag {
			return &a[i]
		}
	}
	return nil
}

// class is the entry that the mode's group bits stand for.
func (a acl) class() *aclRec {
	if m := a.find(aclMask); m != nil {
		return m
	}
	return a.find(aclGroupObj)
}

// mode gives the permission bits of an access list, and whether they say all of it.
func (a acl) mode() (perm uint32, plain bool) {
	u, g, o := a.find(aclUserObj), a.class(), a.find(aclOther)
	return uint32(u.perm)<<6 | uint32(g.perm)<<3 | uint32(o.perm), len(a) == 3
}

// create turns a default list into the access list of a new inode whose
// creator asked for perm, which becomes what the list grants. It returns whether
// perm says all of it.
func (a acl) create(perm *uint32) (plain bool) {
	u, g, o := a.find(aclUserObj), a.class(), a.find(aclOther)
	u.perm &= uint16(*perm >> 6 & 7)
	g.perm &= uint16(*perm >> 3 & 7)
	o.perm &= uint16(*perm & 7)
	bits, plain := a.mode()
	*perm = *perm&^0o777 | bits
	return plain
}

// chmodACL makes an inode's access list follow its mode.
func (s *State) chmodACL(slot uint32) {
	n := s.inodes.at(slot)
	if n.flags&inode.HasACL == 0 {
		return
	}
	v, ok := s.xattr(slot, XattrAccess)
	if !ok {
		return
	}
	a, err := parseACL(v)
	if err != nil {
		panic("BUG: an access ACL that cannot be read was stored")
	}
	perm := n.perm()
	a.find(aclUserObj).perm = uint16(perm >> 6 & 7)
	a.class().perm = uint16(perm >> 3 & 7)
	a.find(aclOther).perm = uint16(perm & 7)
	s.setXattr(slot, XattrAccess, a.encode())
}
