// Package perf measures: bounded workloads on the engine, on a segment store
// and on any mounted directory, with fio beside them where it is installed.
// Only 'varve perf' calls it. It owns the directory it is given for the time of
// a run and removes what it made.
package perf
