package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/VictoriaMetrics/metrics"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
)

// maxRequest is the most data in one READ or WRITE, bytes. The kernel's limit
// (fs.fuse.max_pages_limit) is usually the same.
const maxRequest = 1 << 20

// Config says what to mount where. Client and Mountpoint must be set.
type Config struct {
	Client     *client.Client // its Root becomes the mount's root; not closed by this package
	Mountpoint string
	Options    Options // see DefaultOptions
	Source     string  // address shown by df; may be empty
	Notifier   *Notifier
	Log        *slog.Logger
	Metrics    *metrics.Set
}

// Server is one mount. It serves from Mount until it is unmounted, by Unmount,
// Abort or umount(8).
type Server struct {
	dir      string
	log      *slog.Logger
	fs       *fileSystem
	requests *requests
	channel  *channel
	cancel   context.CancelFunc
	minor    uint32        // device number, which is the connection's number too
	ended    chan struct{} // closed when everything is over
}

// Mount mounts and begins to serve. Errors about the mount point name a remedy.
// The Notifier must be the one that was given to the client; nil makes one and
// gives it to the client.
func Mount(cfg Config) (*Server, error) {
	dir, err := checkMountPoint(cfg.Mountpoint, cfg.Options.NonEmpty)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Notifier == nil {
		cfg.Notifier = NewNotifier()
		cfg.Client.SetNotifier(cfg.Notifier)
	}
	o := cfg.Options
	if o.FSName == "" {
		o.FSName = "varve"
		if cfg.Source != "" {
			o.FSName += "#" + cfg.Source
		}
	}
	if o.MaxBackground == 0 {
		o.MaxBackground = defaultMaxBackground
	}
	fd, err := mountDevice(dir, &o, maxRequest)
	if err != nil {
		return nil, err
	}
	s, err := newServer(cfg, &o, dir, fd)
	if err != nil {
		return nil, errors.Join(err, detach(dir))
	}
	s.start(&o)
	return s, nil
}

// newServer answers the kernel's INIT on fd, which it takes over.
func newServer(cfg Config, o *Options, dir string, fd int) (*Server, error) {
	ch, err := newChannel(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	fs := &fileSystem{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		client:        cfg.Client,
		nodes:         nodes{root: cfg.Client.Root()},
		notify:        cfg.Notifier,
		dirs:          cfg.Notifier.dirs,
		inodes:        cfg.Notifier.inodes,
		log:           cfg.Log,
		ctx:           ctx,
	}
	fs.meters = newMeters(cfg.Metrics, fs.open.len)
	reqs, err := newRequests(fd, gofuse.NewProtocolServer(fs, protocol(o, cfg.Log)), fs, !o.Debug,
		time.Duration(o.SpinUS)*time.Microsecond, cfg.Metrics, cfg.Log)
	if err != nil {
		cancel()
		ch.close()
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	cfg.Notifier.attach(ch, cfg.Client.Root(), cfg.Log)
	return &Server{
		dir: dir, log: cfg.Log, fs: fs, requests: reqs, channel: ch, cancel: cancel,
		ended: make(chan struct{}),
	}, nil
}

// protocol is what is agreed with the kernel.
func protocol(o *Options, log *slog.Logger) *gofuse.MountOptions {
	level := slog.LevelDebug
	if o.Debug {
		level = slog.LevelInfo
	}
	return &gofuse.MountOptions{
		Name:                 "varve",
		MaxWrite:             maxRequest,
		MaxBackground:        o.MaxBackground,
		Debug:                o.Debug,
		Logger:               slog.NewLogLogger(log.Handler(), level),
		PanicHandler:         func(reason any) gofuse.Status { return panicked(log, reason) },
		EnableLocks:          true,
		EnableAcl:            true,
		EnableSymlinkCaching: true,
		// Pages stay until the Notifier drops them, whatever mtime says.
		ExplicitDataCacheControl: true,
		ExtraCapabilities: gofuse.CAP_ATOMIC_O_TRUNC | // O_TRUNC comes with OPEN
			gofuse.CAP_HANDLE_KILLPRIV_V2 | // no GETXATTR before each WRITE
			gofuse.CAP_DONT_MASK | // the umask yields to default ACLs
			gofuse.CAP_SETXATTR_EXT | // setting an ACL may clear sgid
			gofuse.CAP_READDIRPLUS_AUTO |
			gofuse.CAP_ASYNC_DIO | // pieces of one direct I/O in parallel
			gofuse.CAP_DIRECT_IO_ALLOW_MMAP,
		// Not WRITEBACK_CACHE: with it the kernel takes its own size and times
		// for the truth, and mounts cannot agree.
	}
}

// start runs the request loops and returns when the mount is ready for use.
func (s *Server) start(o *Options) {
	if m, ok := mountedOn(s.dir); ok {
		s.minor = m.minor
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.requests.serve()
	}()
	go func() {
		<-s.requests.dead
		s.cancel() // requests that wait for somebody else need not be answered
		s.fs.waits.end()
		if within(endPatience, served) {
			s.closeAll()
		} else {
			s.log.Warn("requests of an ended mount go on: they write what programs have left", "dir", s.dir)
		}
		s.finish()
	}()
	s.refusePoll()
	s.raiseReadAhead(o)
}

// refusePoll asks for one POLL of a file that go-fuse keeps for this purpose
// and answers with ENOSYS, after which the kernel sends no POLL ever. Otherwise
// a Go program in this very process that opens a file of the mount could hold
// up the scheduler in epoll_ctl while nobody is left to answer.
func (s *Server) refusePoll() {
	fd, err := unix.Open(filepath.Join(s.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.log.Debug("POLL not refused", "dir", s.dir, "err", err)
		return
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	unix.Close(fd)
}

func (s *Server) raiseReadAhead(o *Options) {
	if o.ReadAheadKB == 0 {
		return
	}
	if err := setReadAhead(s.minor, o.ReadAheadKB); err != nil {
		s.log.Debug("read-ahead of the kernel stays small", "dir", s.dir, "err", err)
	}
}

// endPatience is how long requests may take to notice that nobody waits for them any more. What
// holds up the others ends with the client: an fsync may send what others have written.
const endPatience = time.Second

// closeAll closes what is still open after an abort.
func (s *Server) closeAll() {
	for _, h := range s.fs.open.all() {
		if h.file != nil {
			s.fs.closeFile(h)
		} else {
			h.dir.Close()
		}
	}
}

// finish ends the notifications, and the mount.
func (s *Server) finish() {
	s.fs.notify.detach()
	s.channel.close()
	close(s.ended)
}

// Serve returns when the mount is unmounted and all its requests are answered, but for those that
// only the end of the client can end.
func (s *Server) Serve() { <-s.ended }

// Dir is the mount point.
func (s *Server) Dir() string { return s.dir }

// How long Unmount waits for the last close.
const (
	unmountPatience = 2 * time.Second
	unmountPause    = 5 * time.Millisecond
)

// Unmount unmounts and waits for the end of all requests. When the mount is
// still in use after a moment it stays, and the error says so.
func (s *Server) Unmount() error {
	pause := unmountPause
	for begin := time.Now(); ; pause *= 2 {
		err := s.unmountOnce()
		switch {
		case err == nil:
			return s.endElsewhere()
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
			// EINVAL: taken from the tree by umount -l, but still open somewhere.
		default:
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
		if time.Since(begin) > unmountPatience {
			return fmt.Errorf("unmount %s: %w; end the programs that use it (fuser -m %s shows them)", s.dir, unix.EBUSY, s.dir)
		}
		select {
		case <-s.ended:
			return nil
		case <-time.After(pause):
		}
	}
}

// endElsewhere waits for the end after the mount was taken away here. Another mount
// namespace may have a copy, made when it was (a container's): the copy ends too.
func (s *Server) endElsewhere() error {
	select {
	case <-s.requests.dead:
		s.Serve()
		return nil
	case <-time.After(unmountPatience):
	}
	s.log.Warn("unmounted, but another mount namespace still has it; ending it there", "dir", s.dir)
	if err := s.breakConnection(); err != nil {
		return fmt.Errorf("unmount %s: another mount namespace still has it: %w", s.dir, err)
	}
	s.Serve()
	return nil
}

func (s *Server) unmountOnce() error {
	select {
	case <-s.ended:
		return nil // somebody else has
	default:
	}
	err := unix.Unmount(s.dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		return helperUnmount(s.dir, false)
	}
	return err
}

// Abort takes the mount away at once. Programs that use it get ENOTCONN or
// ECONNABORTED; data that the client has accepted is its to keep.
func (s *Server) Abort() error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	// MNT_FORCE breaks the connection, MNT_DETACH takes the mount from the tree.
	err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		err = helperUnmount(s.dir, true)
	}
	if errors.Is(err, unix.EINVAL) {
		err = nil // it is out of the tree already
	}
	if err = errors.Join(err, s.breakConnection()); err != nil {
		return fmt.Errorf("abort %s: %w", s.dir, err)
	}
	s.Serve()
	return nil
}

// breakConnection ends the connection to the kernel if it still stands.
func (s *Server) breakConnection() error {
	select {
	case <-s.requests.dead:
		return nil
	case <-time.After(unmountPause):
	}
	err := abortConnection(s.minor)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has just ended
	}
	return err
}
