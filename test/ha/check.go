package ha

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
)

// pathModel is a path that exists or does not.
var pathModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byPath := map[int][]porcupine.Operation{}
		for _, o := range history {
			p := o.Input.(event).Path
			byPath[p] = append(byPath[p], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byPath {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		there, e, out := state.(bool), input.(event), output.(int)
		switch e.Kind {
		case opCreate:
			return out == outUnknown || (out == outYes) == !there, true
		case opRemove:
			return out == outUnknown || (out == outYes) == there, false
		}
		return out == outUnknown || (out == outYes) == there, there
	},
	Equal: func(a, b any) bool { return a == b },
}

// linearizable checks the load's history. Of an operation with unknown outcome
// nothing is known but that it did not happen before its call; the model lets it
// happen at any time after, or at the end, which is as good as never.
func linearizable(history []event, limit time.Duration) error {
	var ops []porcupine.Operation
	unknown := 0
	for i, e := range history {
		o := porcupine.Operation{ClientId: e.Worker, Input: e, Call: e.Call, Output: e.Out, Return: e.Return}
		if e.Out == outUnknown {
			if e.Kind == opLook {
				continue
			}
			unknown++
			o.ClientId, o.Return = 1000+i, math.MaxInt64
		}
		ops = append(ops, o)
	}
	switch porcupine.CheckOperationsTimeout(pathModel, ops, limit) {
	case porcupine.Illegal:
		return fmt.Errorf("the history of %d operations (%d with unknown outcome) is not linearizable", len(ops), unknown)
	case porcupine.Unknown:
		return fmt.Errorf("the history of %d operations could not be checked within %v", len(ops), limit)
	}
	return nil
}

// conserved checks that every token is in exactly one of the two directories.
func conserved(mount string) error {
	count := map[string]int{}
	for _, d := range []string{"a", "b"} {
		list, err := os.ReadDir(filepath.Join(mount, d))
		if err != nil {
			return err
		}
		for _, e := range list {
			count[e.Name()]++
		}
	}
	for i := range tokens {
		if n := count[fmt.Sprint(i)]; n != 1 {
			return fmt.Errorf("token %d is there %d times", i, n)
		}
	}
	return nil
}

var leadingLine = regexp.MustCompile(`msg=leading epoch=(\d+)`)

// oneServerPerEpoch reads in the masters' logs who served which epoch.
func oneServerPerEpoch(dir string) (epochs int, err error) {
	who := map[string]string{}
	for _, host := range []string{"master1", "master2"} {
		b, err := os.ReadFile(filepath.Join(dir, host+"-varve-master.log"))
		if err != nil {
			return 0, err
		}
		for _, m := range leadingLine.FindAllStringSubmatch(string(b), -1) {
			if other, ok := who[m[1]]; ok {
				return 0, fmt.Errorf("epoch %s was served by %s and by %s", m[1], other, host)
			}
			who[m[1]] = host
		}
	}
	if len(who) == 0 {
		return 0, fmt.Errorf("no master ever led, or its log line has changed")
	}
	return len(who), nil
}

// watcher samples who has the virtual address, every 10 ms.
type watcher struct {
	plan *plan.Plan
	stop chan struct{}
	done chan struct{}

	mu       sync.Mutex
	routes   map[string]*netlink.Handle
	now      []string
	both     time.Time     // since when two hosts have it
	worst    time.Duration // longest time that two had it
	overlaps int
}

func watch(p *plan.Plan) *watcher {
	w := &watcher{plan: p, stop: make(chan struct{}), done: make(chan struct{}), routes: map[string]*netlink.Handle{}}
	for _, name := range []string{"master1", "master2", "metalogger"} {
		w.attach(p.Hosts[name])
	}
	go w.run()
	return w
}

// attach begins to look at a host, also again after it was switched on.
func (w *watcher) attach(h *lan.Host) {
	var route *netlink.Handle
	if err := h.Do(func() (err error) { route, err = netlink.NewHandle(unix.NETLINK_ROUTE); return }); err != nil {
		return
	}
	w.mu.Lock()
	w.routes[h.Name] = route
	w.mu.Unlock()
}

func (w *watcher) detach(h *lan.Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.routes[h.Name]; r != nil {
		r.Close()
	}
	delete(w.routes, h.Name)
}

func (w *watcher) run() {
	defer close(w.done)
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
			w.sample()
		}
	}
}

func (w *watcher) sample() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now[:0]
	for name, r := range w.routes {
		list, err := r.AddrList(nil, unix.AF_INET)
		if err == nil && slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IP.String() == w.plan.VIP.String() }) {
			w.now = append(w.now, name)
		}
	}
	switch {
	case len(w.now) < 2:
		w.both = time.Time{}
	case w.both.IsZero():
		w.both = time.Now()
		w.overlaps++
	default:
		w.worst = max(w.worst, time.Since(w.both))
	}
}

// take gives the longest overlap since the last call.
func (w *watcher) take() (worst time.Duration, overlaps int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	worst, overlaps = w.worst, w.overlaps
	w.worst, w.overlaps = 0, 0
	return worst, overlaps
}

func (w *watcher) holders() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.now, " ")
}

func (w *watcher) end() {
	close(w.stop)
	<-w.done
}
