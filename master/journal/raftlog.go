package journal

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// raftLogger turns raft's log lines into slog records. What raft calls info is
// of interest only when an election is studied.
type raftLogger struct {
	log    *slog.Logger
	said   string // the last warning, which is not repeated before saidAt is long ago
	saidAt time.Time
}

// repeatAfter is when raft may say again what it has just said. Whoever asks for votes in
// vain does so fifty times a second, and has the same reason each time.
const repeatAfter = 30 * time.Second

// again tells whether text was the last warning, a moment ago.
func (r *raftLogger) again(text string) bool {
	if text == r.said && time.Since(r.saidAt) < repeatAfter {
		return true
	}
	r.said, r.saidAt = text, time.Now()
	return false
}

func (r *raftLogger) warn(text string) {
	if !r.again(text) {
		r.log.Warn("raft: " + text)
	}
}

func (r *raftLogger) Debug(v ...any)                 {}
func (r *raftLogger) Debugf(format string, v ...any) {}
func (r *raftLogger) Info(v ...any) {
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("raft: " + fmt.Sprint(v...))
	}
}
func (r *raftLogger) Infof(format string, v ...any) {
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("raft: " + fmt.Sprintf(format, v...))
	}
}
func (r *raftLogger) Warning(v ...any)                 { r.warn(fmt.Sprint(v...)) }
func (r *raftLogger) Warningf(format string, v ...any) { r.warn(fmt.Sprintf(format, v...)) }
func (r *raftLogger) Error(v ...any)                   { r.log.Error("raft: " + fmt.Sprint(v...)) }
func (r *raftLogger) Errorf(format string, v ...any) {
	r.log.Error("raft: " + fmt.Sprintf(format, v...))
}

// Fatal and Panic mean that raft's own invariants are broken.
func (r *raftLogger) Fatal(v ...any) { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (r *raftLogger) Fatalf(format string, v ...any) {
	panic("BUG: raft: " + fmt.Sprintf(format, v...))
}
func (r *raftLogger) Panic(v ...any) { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (r *raftLogger) Panicf(format string, v ...any) {
	panic("BUG: raft: " + fmt.Sprintf(format, v...))
}
