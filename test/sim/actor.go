package sim

// actor is one goroutine of a process: it does one thing at a time, in the order
// in which it is asked to, and may be kept from running for a while.
type actor struct {
	p     *life
	until nanos // it does not run before
	todo  []func()
	woken nanos // when it will look for something to do; 0: never
}

// post asks the actor to do something, a moment from now.
func (a *actor) post(do func()) {
	a.todo = append(a.todo, do)
	a.wake(a.p.w.rare(20 * us))
}

func (a *actor) wake(d nanos) {
	at := a.p.w.now + max(d, 0)
	if a.woken != 0 && a.woken <= at {
		return
	}
	a.woken = at
	a.p.w.after(d, a.turn)
}

func (a *actor) turn() {
	if a.woken != a.p.w.now {
		return // it was woken earlier
	}
	a.woken = 0
	w := a.p.w
	if a.p.dead {
		return
	}
	if left := max(a.until, a.p.stopped) - w.now; left > 0 {
		a.wake(left)
		return
	}
	for len(a.todo) > 0 && !a.p.dead && max(a.until, a.p.stopped) <= w.now {
		do := a.todo[0]
		a.todo = a.todo[1:]
		do()
	}
	if len(a.todo) > 0 && !a.p.dead {
		a.wake(max(a.until, a.p.stopped) - w.now)
	}
}

// first puts something before all else.
func (a *actor) first(do func()) {
	a.todo = append([]func(){do}, a.todo...)
	a.wake(max(a.until, a.p.stopped) - a.p.w.now)
}

// delay keeps the actor from running.
func (a *actor) delay(d nanos) { a.until = max(a.until, a.p.w.now+d) }

// life is a process that may be stopped, and that ends.
type life struct {
	w       *world
	dead    bool
	stopped nanos // until then
}

func (l *life) actor() *actor { return &actor{p: l} }
