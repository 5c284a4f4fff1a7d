package state

// A tree maps numbers to slots: the place of a name in its directory to the
// edge, the index of a chunk in its file to the chunk. It is a radix tree with
// 16 branches a node, as low as its highest key allows; empty nodes are freed, so
// that its shape depends only on the keys that are in it. A tree of height 0 has
// no node: its root is the value of key 0.
type tree struct {
	root   uint32
	count  uint32
	height uint8
}

// node has 16 slots of values (lowest level) or of nodes; 0: none.
type node [16]uint32

const (
	nodeBits = 4
	nodeMask = 1<<nodeBits - 1
)

// top is the highest key that a tree of a height can hold.
func top(height uint8) uint64 {
	if height >= 16 {
		return ^uint64(0)
	}
	return 1<<(nodeBits*height) - 1
}

func (s *State) treeGet(t *tree, key uint64) uint32 {
	if t.root == 0 || key > top(t.height) {
		return 0
	}
	slot := t.root
	for h := t.height; h > 0 && slot != 0; h-- {
		slot = s.nodes.at(slot)[key>>(nodeBits*(h-1))&nodeMask]
	}
	return slot
}

// treeSet adds a key that is not in the tree. t must not be in a table that the
// call may change, other than nodes.
func (s *State) treeSet(t *tree, key uint64, value uint32) {
	if t.count == 0 {
		t.height = 0
	}
	for key > top(t.height) {
		if t.root != 0 {
			up := s.nodes.alloc()
			s.nodes.mut(up)[0] = t.root
			t.root = up
		}
		t.height++
	}
	t.count++
	if t.height == 0 {
		t.root = value
		return
	}
	if t.root == 0 {
		t.root = s.nodes.alloc()
	}
	slot := t.root
	for h := t.height - 1; h > 0; h-- {
		i := key >> (nodeBits * h) & nodeMask
		next := s.nodes.at(slot)[i]
		if next == 0 {
			next = s.nodes.alloc()
			s.nodes.mut(slot)[i] = next
		}
		slot = next
	}
	s.nodes.mut(slot)[key&nodeMask] = value
}

// treeDel removes a key that is in the tree.
func (s *State) treeDel(t *tree, key uint64) {
	t.count--
	if t.count == 0 {
		s.nodesFree(t.root, t.height)
		t.root, t.height = 0, 0
		return
	}
	var path [16]uint32 // nodes from the root down
	slot := t.root
	for h := t.height; h > 0; h-- {
		path[h-1] = slot
		slot = s.nodes.at(slot)[key>>(nodeBits*(h-1))&nodeMask]
	}
	for h := uint8(0); h < t.height; h++ {
		n := s.nodes.mut(path[h])
		n[key>>(nodeBits*h)&nodeMask] = 0
		if *n != (node{}) {
			break
		}
		s.nodes.release(path[h], node{})
	}
	for t.height > 0 {
		n := *s.nodes.at(t.root)
		low := n[0]
		n[0] = 0
		if n != (node{}) {
			break
		}
		s.nodes.release(t.root, node{})
		t.root = low
		t.height--
	}
}

// nodesFree frees all nodes below and including slot.
func (s *State) nodesFree(slot uint32, height uint8) {
	if height == 0 || slot == 0 {
		return
	}
	n := *s.nodes.at(slot)
	for _, sub := range n {
		s.nodesFree(sub, height-1)
	}
	s.nodes.release(slot, node{})
}

// treeUp calls fn for the keys from..to in ascending order until it returns
// false. fn must not change the tree.
func (s *State) treeUp(t *tree, from, to uint64, fn func(key uint64, value uint32) bool) bool {
	if t.root == 0 || from > top(t.height) {
		return true
	}
	return s.nodeUp(t.root, t.height, 0, from, to, fn)
}

func (s *State) nodeUp(slot uint32, height uint8, base, from, to uint64, fn func(uint64, uint32) bool) bool {
	if height == 0 {
		return fn(base, slot)
	}
	n := s.nodes.at(slot)
	first := uint64(0)
	if from > base {
		first = (from - base) >> (nodeBits * (height - 1))
	}
	for i := first; i < uint64(len(n)); i++ {
		at := base + i<<(nodeBits*(height-1))
		if at > to {
			return true
		}
		if n[i] != 0 && !s.nodeUp(n[i], height-1, at, from, to, fn) {
			return false
		}
	}
	return true
}

// treeDown calls fn for the keys below bound in descending order until it
// returns false. fn must not change the tree.
func (s *State) treeDown(t *tree, bound uint64, fn func(key uint64, value uint32) bool) bool {
	if t.root == 0 || bound == 0 {
		return true
	}
	return s.nodeDown(t.root, t.height, 0, bound, fn)
}

func (s *State) nodeDown(slot uint32, height uint8, base, bound uint64, fn func(uint64, uint32) bool) bool {
	if height == 0 {
		return fn(base, slot)
	}
	n := s.nodes.at(slot)
	last := (bound - 1 - base) >> (nodeBits * (height - 1))
	for i := min(last, nodeMask) + 1; i > 0; {
		i--
		if n[i] == 0 {
			continue
		}
		if !s.nodeDown(n[i], height-1, base+i<<(nodeBits*(height-1)), bound, fn) {
			return false
		}
	}
	return true
}
