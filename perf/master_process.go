package perf

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// masterSecret is the cluster key of a measurement.
type masterSecret struct {
	file string
	key  []byte
}

// masterKey makes the key in dir, or takes the one that is there.
func masterKey(dir string) (masterSecret, error) {
	s := masterSecret{file: filepath.Join(dir, "cluster.key")}
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, 32)
		rand.Read(b)
		b = []byte(hex.EncodeToString(b))
		err = os.WriteFile(s.file, b, 0o600)
	}
	if err == nil {
		s.key, err = hex.DecodeString(strings.TrimSpace(string(b)))
	}
	return s, err
}

// masterProcess is a running master (or, with other voters, its supervisor).
type masterProcess struct {
	cmd            *exec.Cmd
	gone           chan struct{} // closed when it has ended
	id             uint64
	clients, ports string // for mounts and tools; for chunkservers
	http           string
	start          time.Duration // until it was ready
	output         strings.Builder
}

// startLimit bounds how long a master may take to be ready.
const startLimit = 3 * time.Minute

// metaloggerID is the voter that is a metalogger, as in the plan of six machines.
const metaloggerID = 3

// startMaster starts a voter on dir and waits until it serves; with voters (all
// of them by number) it only starts it.
func startMaster(ctx context.Context, program, dir string, key masterSecret, id uint64, voters map[uint64]string) (*masterProcess, error) {
	p := &masterProcess{id: id, gone: make(chan struct{})}
	addrs, err := freeAddrs(3)
	if err != nil {
		return nil, err
	}
	p.clients, p.ports, p.http = addrs[0], addrs[1], addrs[2]
	role := "master"
	if id == metaloggerID {
		role = "metalogger"
	}
	args := []string{
		role, "--dir", dir, "--key-file", key.file, "--http", p.http, "--gossip", "", "--log", "warn", "--name", fmt.Sprintf("perf%d", id),
	}
	if role == "master" {
		args = append(args, "--clients", p.clients, "--chunkservers", p.ports, "--session-lease", "60s")
	}
	if len(voters) > 0 {
		list := make([]string, 0, len(voters))
		for n := range voters {
			list = append(list, fmt.Sprintf("%d=%s", n, voters[n]))
		}
		args = append(args, "--id", strconv.FormatUint(id, 10), "--raft", voters[id], "--voters", strings.Join(list, ","))
	}
	p.cmd = exec.Command(program, args...)
	p.cmd.Stderr, p.cmd.Stdout = &p.output, io.Discard
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig comes when the thread ends: it lives as long as the child
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait()
			close(p.gone)
		}
	}()
	begun := time.Now()
	if err := <-started; err != nil {
		return nil, err
	}
	if len(voters) > 0 {
		return p, nil
	}
	for ; !p.ready(); time.Sleep(5 * time.Millisecond) {
		if p.ended() || ctx.Err() != nil || time.Since(begun) > startLimit {
			p.kill()
			return nil, fmt.Errorf("the master on %s does not come up: %s", dir, p.output.String())
		}
	}
	p.start = time.Since(begun)
	return p, nil
}

func (p *masterProcess) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// freeAddrs finds addresses on loopback that nobody listens on.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // at the end, so that no address is found twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// impatient is for questions to masters that may not be there.
var impatient = http.Client{Timeout: 5 * time.Second}

// ready tells whether the master leads and serves.
func (p *masterProcess) ready() bool {
	r, err := impatient.Get("http://" + p.http + "/readyz")
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// kill ends the master at once, without a last image.
func (p *masterProcess) kill() {
	p.cmd.Process.Kill()
	<-p.gone
}

// end has the master (and its supervisor) stop by itself.
func (p *masterProcess) end() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
	case <-time.After(endLimit):
		p.kill()
	}
}

// endLimit bounds how long a master may take to stop.
const endLimit = 20 * time.Second

// masterFigures are a master's metrics, and some of them by name.
type masterFigures struct {
	all                  map[string]float64
	start                time.Duration
	resident, peak, heap float64 // bytes
}

func (f *masterFigures) at(name string) float64 { return f.all[name] }

// figures asks a master for its metrics.
func (p *masterProcess) figures() (*masterFigures, error) {
	r, err := impatient.Get("http://" + p.http + "/metrics")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	f := &masterFigures{all: map[string]float64{}, start: p.start}
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		name, value, ok := strings.Cut(s.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			f.all[name] = v
		}
	}
	f.resident, f.peak = f.at("process_resident_memory_bytes"), f.at("process_resident_memory_peak_bytes")
	f.heap = f.at("go_memstats_heap_alloc_bytes")
	return f, nil
}

// dialMaster connects to a master.
func dialMaster(ctx context.Context, addr string, key masterSecret, role wire.Role, h link.Handler) (*link.Conn, error) {
	return link.Dial(ctx, "tcp", addr, link.Config{Key: key.key, Role: role, Want: wire.RoleMaster, Client: "varve perf"}, h)
}

// ask asks a master as a tool does.
func ask(ctx context.Context, c *link.Conn, what string, answer any) error {
	var reply wire.AdminReply
	if err := c.Call(ctx, &wire.Admin{What: what}, nil, &reply); err != nil {
		return err
	}
	return json.Unmarshal(reply.JSON, answer)
}

// saveImage has the master write an image and waits for it.
func (p *masterProcess) saveImage(ctx context.Context, key masterSecret) (bytes uint64, err error) {
	c, err := dialMaster(ctx, p.clients, key, wire.RoleAdmin, refuseAll)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var reply wire.SaveReply
	err = ask(ctx, c, wire.AskSnapshot, &reply)
	return reply.Bytes, err
}

var refuseAll = link.HandlerFunc(func(_ *link.Conn, r *link.Request) {
	r.Free()
	r.Fail(status.Unsupported)
})
