package journal

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger turns raft's log lines into slog records. What raft calls info is
// of interest only when an election is studied.
type raftLogger struct{ log *slog.Logger }

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
func (r *raftLogger) Warning(v ...any) { r.log.Warn("raft: " + fmt.Sprint(v...)) }
func (r *raftLogger) Warningf(format string, v ...any) {
	r.log.Warn("raft: " + fmt.Sprintf(format, v...))
}
func (r *raftLogger) Error(v ...any) { r.log.Error("raft: " + fmt.Sprint(v...)) }
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
