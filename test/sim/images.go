package sim

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/varvefs/varve/master/image"
)

// Images: who takes them, and how they get to those who need them.

// maySave takes an image now and then, and lets go of the log behind it when it
// is on the disk.
func (p *process) maySave() {
	due := uint64(imageEntries)
	if p.helm.Leading() {
		due *= 2 // a leader leaves it to a standby, unless none does it
	}
	if p.dead || p.st == nil || p.saving || p.index < p.imageAt+due {
		return
	}
	p.saving, p.imageAt = true, p.index
	at := position{p.index, p.term}
	view := p.st.Freeze()
	var b bytes.Buffer
	err := image.Write(&b, view, image.Meta{Index: at.index, Term: at.term})
	view.Release()
	if err != nil {
		p.w.failf("%v: image: %v", p.h, err)
	}
	p.w.after(p.w.between(1*ms, 80*ms), func() {
		p.saving = false
		if !p.dead && p.keepImage(at, b.Bytes()) {
			p.w.stats.Images++
		}
	})
}

// adoptImage puts an image on the disk.
func (p *process) adoptImage(at position, b []byte) bool {
	if slices.ContainsFunc(p.images, func(have position) bool { return have.index == at.index }) {
		return true
	}
	if err := p.h.disk.Replace(imageName(at.index), b); err != nil {
		p.fail(err)
		return false
	}
	p.images = append(p.images, at)
	slices.SortFunc(p.images, func(a, b position) int { return cmp.Compare(b.index, a.index) })
	return true
}

// keepImage puts an image on the disk and removes those before the last.
func (p *process) keepImage(at position, b []byte) bool {
	if !p.adoptImage(at, b) {
		return false
	}
	for len(p.images) > 2 {
		if err := p.h.disk.Remove(imageName(p.images[2].index)); err != nil {
			p.fail(err)
			return false
		}
		p.images = p.images[:2]
	}
	if oldest := p.images[len(p.images)-1].index; oldest <= p.log.Status().Applied {
		if err := p.log.Compact(oldest); err != nil {
			p.w.failf("%v: compact at %d: %v", p.h, oldest, err)
		}
	}
	return true
}

func (p *process) newestImage() uint64 {
	if len(p.images) == 0 {
		return 0
	}
	return p.images[0].index
}

// fetch is journal.Config's Fetch: one transfer at a time.
func (p *process) fetch(from, index uint64) {
	if p.fetching {
		return
	}
	p.fetching = true
	p.transfer(from, index, func(at position) {
		p.log.Install(at.index, at.term)
		p.wakeDriver()
	})
}

// transfer gets the newest image of a voter, if it holds entry index.
func (p *process) transfer(from, index uint64, done func(position)) {
	w := p.w
	w.after(w.between(1*ms, 300*ms), func() {
		p.fetching = false
		h := w.voter(from)
		if p.dead || h == nil || h.proc == nil || w.net.cut[[2]int{h.n, p.h.n}] || w.net.cut[[2]int{p.h.n, h.n}] {
			return
		}
		q := h.proc
		if q.newestImage() < index || index == 0 {
			return
		}
		b, err := h.disk.Read(imageName(q.newestImage()))
		if err != nil {
			return
		}
		meta, err := image.Verify(bytes.NewReader(b))
		if err != nil {
			w.failf("%v: image %d: %v", h, q.newestImage(), err)
		}
		w.stats.Fetched++
		w.notef("%v has fetched the image of %d from %v", p.h, meta.Index, h)
		at := position{meta.Index, meta.Term}
		if p.adoptImage(at, b) {
			done(at)
		}
	})
}

// collect is the metalogger's: it fetches what is newer than what it has.
func (p *process) collect() {
	if p.dead {
		return
	}
	p.w.after(p.h.real(2000*ms), p.collect)
	if p.h.master || p.stopped > p.w.now || p.fetching {
		return
	}
	for _, h := range p.w.hosts {
		if b := p.beats[h.id]; b.ImageAt > p.newestImage() && b.ImageAt <= p.index {
			p.fetching = true
			p.transfer(b.ID, b.ImageAt, func(position) {})
			return
		}
	}
}
