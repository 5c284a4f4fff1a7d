package client

// links are an element's neighbours in an lru.
type links[T any] struct{ older, newer *T }

// lru is a list of elements by their last use, through links that lie in them:
// it makes no garbage, and an element can be in one of them.
type lru[T any] struct {
	newest, oldest *T
	of             func(*T) *links[T] // where the links lie
}

// front puts an element, which is in none, before all others.
func (o *lru[T]) front(e *T) {
	*o.of(e) = links[T]{older: o.newest}
	if o.newest != nil {
		o.of(o.newest).newer = e
	}
	o.newest = e
	if o.oldest == nil {
		o.oldest = e
	}
}

// unlink takes an element out.
func (o *lru[T]) unlink(e *T) {
	l := o.of(e)
	if l.newer != nil {
		o.of(l.newer).older = l.older
	} else {
		o.newest = l.older
	}
	if l.older != nil {
		o.of(l.older).newer = l.newer
	} else {
		o.oldest = l.newer
	}
}
