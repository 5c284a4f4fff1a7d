package guard

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Variable names the descriptor of the socket in the child's environment.
const Variable = "VARVE_GUARD_FD"

// dropPatience is how long a drop may take before the master goes on without it.
const dropPatience = time.Second

// Line is the master's end. A nil Line is that of a master without a supervisor.
type Line struct {
	conn net.Conn

	mu   sync.Mutex
	term uint64 // that was said last
	seq  uint64
	wait map[uint64]chan error
	err  error

	concerns map[string]time.Time // and when each was heard last
}

// concernLasts is how long a concern counts that is not heard again.
const concernLasts = 25 * time.Second

// Concerns are the supervisor's sentences for operators.
func (l *Line) Concerns() (list []string) {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for text, at := range l.concerns {
		if time.Since(at) < concernLasts {
			list = append(list, text)
		} else {
			delete(l.concerns, text)
		}
	}
	slices.Sort(list)
	return list
}

// Attach connects with the supervisor that started this process; nil if none did.
func Attach() (*Line, error) {
	text, ok := os.LookupEnv(Variable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(Variable)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%q is not a descriptor", Variable, text)
	}
	f := os.NewFile(uintptr(fd), "supervisor")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Variable, err)
	}
	return newLine(c), nil
}

func newLine(c net.Conn) *Line {
	l := &Line{conn: c, wait: map[uint64]chan error{}, concerns: map[string]time.Time{}}
	go l.read()
	return l
}

func (l *Line) read() {
	r := bufio.NewScanner(l.conn)
	for r.Scan() {
		word, rest, _ := strings.Cut(r.Text(), " ")
		if word == "concern" {
			l.mu.Lock()
			l.concerns[rest] = time.Now()
			l.mu.Unlock()
			continue
		}
		number, why, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if word != "done" || err != nil {
			continue
		}
		var failed error
		if why != "" {
			failed = errors.New(why)
		}
		l.mu.Lock()
		c := l.wait[n]
		delete(l.wait, n)
		l.mu.Unlock()
		if c != nil {
			c <- failed
		}
	}
	l.mu.Lock()
	l.err = errors.New("the supervisor is gone")
	for n, c := range l.wait {
		c <- l.err
		delete(l.wait, n)
	}
	l.mu.Unlock()
}

func (l *Line) say(format string, args ...any) error {
	_, err := fmt.Fprintf(l.conn, format+"\n", args...)
	return err
}

// Leads tells which term this master leads. It does nothing if that was said already.
func (l *Line) Leads(term uint64) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	said := l.term == term
	l.term = term
	l.mu.Unlock()
	if said {
		return nil
	}
	return l.say("leads %d", term)
}

// Hold says that the addresses are this master's up to the given boot time.
func (l *Line) Hold(until time.Duration) error {
	if l == nil {
		return nil
	}
	return l.say("hold %d", until)
}

// Drop gives the addresses up; they are gone when it returns without error.
func (l *Line) Drop() error {
	if l == nil {
		return nil
	}
	done := make(chan error, 1)
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return l.err
	}
	l.seq++
	n := l.seq
	l.wait[n] = done
	l.mu.Unlock()
	if err := l.say("drop %d", n); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(dropPatience):
		return errors.New("the supervisor does not answer")
	}
}
