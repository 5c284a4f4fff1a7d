package link

import (
	"log/slog"
	"sync"
	"time"
)

// rateLog writes at most one line a second, so that a stranger who knocks on
// the port cannot fill the log. What was left out is counted in the next line.
type rateLog struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

func (l *rateLog) warn(log *slog.Logger, msg string, args ...any) {
	l.mu.Lock()
	if !l.last.IsZero() && time.Since(l.last) < time.Second {
		l.skipped++
		l.mu.Unlock()
		return
	}
	l.last = time.Now()
	n := l.skipped
	l.skipped = 0
	l.mu.Unlock()
	if n > 0 {
		args = append(args, "left_out", n)
	}
	log.Warn(msg, args...)
}
