package system

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKillChunkserver kills one chunkserver while fio writes and verifies: no
// error reaches the application, and the lost copies are made anew.
func TestKillChunkserver(t *testing.T) {
	needTool(t, "fio")
	if testing.Short() {
		t.Skip("takes half a minute; -short leaves it out")
	}
	c := start(t)
	fio := exec.Command("fio", "--name=a", "--filename="+filepath.Join(c.mnt, "f"), "--size=128m", "--bs=64k", "--rw=randwrite",
		"--loops=3", "--verify=crc32c", "--verify_state_save=0", "--do_verify=1", "--verify_fatal=1", "--max_latency=10s")
	out := new(buffer)
	fio.Stdout, fio.Stderr = out, out
	if err := fio.Start(); err != nil {
		t.Fatal(err)
	}
	c.until(20*time.Second, "fio has written something", func() bool {
		st, err := os.Stat(filepath.Join(c.mnt, "f"))
		return err == nil && st.Size() > 16<<20
	})
	c.kill("chunkd2")
	if err := fio.Wait(); err != nil {
		t.Errorf("fio: %v\n%s", err, out)
	}
	c.healed(2 * time.Minute)
}

// TestFull fills small chunkservers: the writer gets ENOSPC, removing files
// works, and then there is space again.
func TestFull(t *testing.T) {
	if testing.Short() {
		t.Skip("fills disks; -short leaves it out")
	}
	c := start(t, "--limit", "384MiB")
	name := filepath.Join(c.mnt, "big")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	var fault error
	for range 4096 {
		if _, fault = f.Write(b); fault != nil {
			break
		}
		if fault = f.Sync(); fault != nil {
			break
		}
	}
	f.Close()
	if !isErrno(fault, syscall.ENOSPC) {
		t.Fatalf("filling the disks gave %v, want ENOSPC", fault)
	}
	if err := os.Remove(name); err != nil {
		t.Fatalf("remove on full disks: %v", err)
	}
	c.until(time.Minute, "there is space again", func() bool {
		return os.WriteFile(filepath.Join(c.mnt, "after"), b, 0o644) == nil && syncFile(filepath.Join(c.mnt, "after")) == nil
	})
}

func isErrno(err error, want syscall.Errno) bool {
	e, ok := err.(*os.PathError)
	return ok && e.Err == want
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// TestDamage flips bytes of a file's data in one chunkserver's containers: the
// file still reads back right, the damage is counted and repaired.
func TestDamage(t *testing.T) {
	c := start(t, "--servers", "2", "-o", "nonempty")
	name := filepath.Join(c.mnt, "f")
	data := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{2}).Read(data)
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syncFile(name); err != nil {
		t.Fatal(err)
	}
	c.healed(30 * time.Second)
	if n := flip(t, filepath.Join(c.dir, "chunkd1"), data[1<<20:1<<20+64]); n == 0 {
		t.Fatal("the data was not found in chunkd1's containers")
	}
	c.until(time.Minute, "the damage is seen", func() bool {
		other := c.second() // a mount without caches reads from the servers
		got, err := os.ReadFile(filepath.Join(other, "f"))
		c.unmount(other)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read back %d bytes, %v", len(got), err)
		}
		return c.status().Chunks.Damaged > 0
	})
	c.healed(time.Minute)
}

// TestDamageOfAllCopies: bytes that no copy has any more are an error to whoever reads them,
// through the page cache, around it and by -o debug, and never an end of the file.
func TestDamageOfAllCopies(t *testing.T) {
	c := start(t, "--servers", "2")
	name := filepath.Join(c.mnt, "f")
	data := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{5}).Read(data)
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syncFile(name); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"chunkd1", "chunkd2"} {
		if n := flip(t, filepath.Join(c.dir, server), data[1<<20:1<<20+64]); n == 0 {
			t.Fatalf("the data was not found in the containers of %s", server)
		}
	}
	for _, x := range []struct {
		options string
		flags   int
	}{{"rw", 0}, {"rw", syscall.O_DIRECT}, {"debug", 0}} {
		other := c.second("-o", x.options) // a mount without caches reads from the servers
		f, err := os.OpenFile(filepath.Join(other, "f"), os.O_RDONLY|x.flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		c.unmount(other)
		if !isErrno(err, syscall.EIO) || len(got) > 1<<20 || !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("-o %s, flags %#x: read %d bytes, %v; want those in front of the damage and EIO", x.options, x.flags, len(got), err)
		}
	}
}

// flip inverts the bytes of data wherever they stand in the files below dir.
func flip(t *testing.T, dir string, data []byte) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a container in the making was renamed meanwhile
		}
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), "segments-") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		i := bytes.Index(text, data)
		if i < 0 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		bad := make([]byte, len(data))
		for j := range bad {
			bad[j] = ^data[j]
		}
		n++
		_, err = f.WriteAt(bad, int64(i))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBadInput gives wrong options and files: a sentence and an exit code that is not 0.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	key := file("key", strings.Repeat("ab", 32)+"\n")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, x := range []struct {
		want string
		args []string
	}{
		{"unknown flag: --nmae", []string{"master", "--nmae", "x"}},
		{"unknown command", []string{"mster"}},
		{"unknown key \"master.nmae\"", []string{"master", "--config", file("a.toml", "[master]\nnmae = 1\n")}},
		{"there is no cluster key file", []string{"master", "--dir", dir, "--key-file", filepath.Join(dir, "none")}},
		{"is not a cluster key", []string{"master", "--dir", dir, "--key-file", file("bad", "xyz")}},
		{"is not HOST:PORT", []string{"master", "--clients", "here"}},
		{"cannot listen on " + busy.Addr().String(), []string{"chunkd", "--key-file", key, "--dirs", filepath.Join(dir, "c"), "--listen", "127.0.0.1:0", "--http", busy.Addr().String()}},
		{busy.Addr().String(), []string{"master", "--key-file", key, "--dir", filepath.Join(dir, "m"), "--clients", busy.Addr().String(), "--chunkservers", "127.0.0.1:0", "--http", ""}},
		{"required flag(s) \"dir\"", []string{"up"}},
		{"--goal 3 needs at least as many --servers", []string{"up", "--dir", dir, "--goal", "3", "--servers", "2"}},
		{"unknown mount option", []string{"mount", "--key-file", key, "-o", "wonder", "127.0.0.1:1", dir}},
		{"not exist", []string{"mount", "--key-file", key, "127.0.0.1:1", filepath.Join(dir, "nowhere")}},
		{"goal \"x\": want 1 to 9", []string{"goal", "set", "x", dir}},
	} {
		cmd := exec.Command(program, x.args...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), x.want) || strings.Contains(string(out), "goroutine ") {
			t.Errorf("varve %s: %v, want ...%s...\n%s", strings.Join(x.args, " "), err, x.want, out)
		}
	}
}

// TestRandomBytes sends noise to every port: connections are closed and everything works on.
func TestRandomBytes(t *testing.T) {
	c := start(t)
	st := c.status()
	addrs := []string{st.Masters[0].Addr}
	for _, s := range st.Servers {
		addrs = append(addrs, s.Addr)
	}
	noise := make([]byte, 1<<16)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	for _, addr := range addrs {
		for _, text := range [][]byte{noise, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), append([]byte("VV\x01\x00"), noise...)} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			conn.Write(text)
			if _, err := conn.Read(make([]byte, 1<<16)); err != nil && os.IsTimeout(err) {
				t.Errorf("%s keeps a connection that sent noise", addr)
			}
			conn.Close()
		}
	}
	c.sh(`echo alive > $M/x && grep -qx alive $M/x`)
	if n := len(c.processes("")); n != 6 {
		t.Errorf("%d processes run, want 6", n)
	}
}

// TestRestartOfEach kills each daemon in turn: it comes back and the mount works on.
func TestRestartOfEach(t *testing.T) {
	c := start(t)
	c.sh(`echo one > $M/x; sync $M/x`)
	for _, role := range []string{"chunkd1", "master", "mount"} {
		c.kill(role)
		c.until(30*time.Second, role+" is back and the mount works", func() bool {
			return len(c.processes(role)) == 1 && exec.Command("timeout", "5", "grep", "-qx", "one", filepath.Join(c.mnt, "x")).Run() == nil
		})
	}
	c.sh(`echo two > $M/y; sync $M/y; grep -qx two $M/y`)
}
