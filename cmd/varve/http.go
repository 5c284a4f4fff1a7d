package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// monitor is the HTTP side of a daemon: metrics, health and, for callers on
// this host, profiles.
type monitor struct {
	server *http.Server
	mux    *http.ServeMux
	addr   string
}

// startMonitor listens on addr. ready gives nil once the daemon can do its work;
// sentence is what it lacks. An empty addr means no HTTP at all.
func startMonitor(addr string, set *metrics.Set, ready func() error) (*monitor, error) {
	m := &monitor{mux: http.NewServeMux()}
	if addr == "" {
		return m, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, listenError("http", addr, err)
	}
	m.addr = l.Addr().String()
	m.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
	m.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	m.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	m.mux.HandleFunc("GET /debug/pprof/", loopbackOnly(pprof.Index))
	m.mux.HandleFunc("GET /debug/pprof/profile", loopbackOnly(pprof.Profile))
	m.mux.HandleFunc("GET /debug/pprof/trace", loopbackOnly(pprof.Trace))
	m.server = &http.Server{Handler: m.mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	go m.server.Serve(l)
	return m, nil
}

// loopbackOnly hides a page from other hosts: profiles tell too much.
func loopbackOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "profiles are served to this host only", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

func (m *monitor) close() {
	if m.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m.server.Shutdown(ctx)
	m.server.Close()
}

// listenError says which setting to change when a port cannot be had.
func listenError(key, addr string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("cannot listen on %s: %w; choose another address with --%s or stop what uses it", addr, err, key)
}
