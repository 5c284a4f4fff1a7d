// Package web is the live status page: files that are part of the binary and
// one address that gives the cluster's status as JSON, which the page asks for
// every second. A master serves it; the package owns no state.
package web

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"

	"github.com/varvefs/varve/wire"
)

//go:embed static
var static embed.FS

// Register adds the page and /api/status to mux. status is asked at each request.
func Register(mux *http.ServeMux, status func() *wire.Status) {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	pages := http.FileServerFS(files)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		pages.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(status())
	})
}
