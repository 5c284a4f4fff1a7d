package posix_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/rig"
)

// TestIO is everything about bytes on one mount.
func TestIO(t *testing.T) {
	c := rig.Start(t, rig.Options{Servers: 2})
	mnt := c.Mount(t)
	for name, test := range map[string]func(*testing.T, string){
		"Mmap":             testMmap,
		"MmapAppended":     testMmapAppended,
		"Direct":           testDirect,
		"DirectParallel":   testDirectParallel,
		"DirectAndCached":  testDirectAndCached,
		"AppendAndCached":  testAppendAndCached,
		"AppendSetLater":   testAppendSetLater,
		"Sparse":           testSparse,
		"Allocate":         testAllocate,
		"CopyRange":        testCopyRange,
		"TruncateAndWrite": testTruncateAndWrite,
		"RandomModel":      testRandomModel,
		"OpenTruncated":    testOpenTruncated,
		"SyncFlags":        testSyncFlags,
		"FarAway":          testFarAway,
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(mnt, name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
		})
	}
}

// noise is n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		*(*uint64)(unsafe.Pointer(&b[i])) = r.Uint64()
	}
	return b
}

func testMmap(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	data := noise(1, 3<<20+100)
	must(t, os.WriteFile(name, data, 0o644))
	f := open(t, name, os.O_RDWR)
	m, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	want(t, "mapped bytes", bytes.Equal(m, data), true)
	// What is written through the mapping is read by read(2), and the reverse.
	copy(m[1<<20:], "through the mapping")
	b := make([]byte, 19)
	_, err = f.ReadAt(b, 1<<20)
	must(t, err)
	want(t, "read", string(b), "through the mapping")
	_, err = f.WriteAt([]byte("through the file"), 2<<20)
	must(t, err)
	want(t, "mapped", string(m[2<<20:2<<20+16]), "through the file")
	must(t, unix.Msync(m, unix.MS_SYNC))
	must(t, unix.Munmap(m))
	copy(data[1<<20:], "through the mapping")
	copy(data[2<<20:], "through the file")
	got, err := os.ReadFile(name)
	must(t, err)
	want(t, "bytes at last", bytes.Equal(got, data), true)
}

// A mapping of a file that is open for appending only, as logs are.
func testMmapAppended(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	_, err := f.WriteString("first ")
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(m)
	want(t, "mapped", string(m[:6]), "first ")
	_, err = f.WriteString("second")
	must(t, err)
	want(t, "mapped after an append", string(m[:12]), "first second")
}

// aligned is n bytes whose address is a multiple of 4096.
func aligned(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return b
}

func testDirect(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE|unix.O_DIRECT)
	data := aligned(4 << 20)
	copy(data, noise(2, len(data)))
	n, err := f.WriteAt(data, 0)
	must(t, err)
	want(t, "written", n, len(data))
	got := aligned(len(data))
	n, err = f.ReadAt(got, 0)
	must(t, err)
	want(t, "read back", n == len(got) && bytes.Equal(got, data), true)
	n, err = f.ReadAt(got[:8192], int64(len(data)-4096))
	if n != 4096 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
}

// Several writers with O_DIRECT at once, each on its own blocks.
func testDirectParallel(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	const workers, blocks, size = 8, 32, 4096
	must(t, os.WriteFile(name, make([]byte, workers*blocks*size), 0o644))
	var all sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		all.Go(func() {
			f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
			if err != nil {
				errs <- err
				return
			}
			defer f.Close()
			b := aligned(size)
			for i := range blocks {
				copy(b, noise(uint64(w*blocks+i), size))
				if _, err := f.WriteAt(b, int64((i*workers+w)*size)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	got, err := os.ReadFile(name)
	must(t, err)
	for w := range workers {
		for i := range blocks {
			at := (i*workers + w) * size
			if !bytes.Equal(got[at:at+size], noise(uint64(w*blocks+i), size)) {
				t.Fatalf("worker %d, block %d is wrong", w, i)
			}
		}
	}
}

// Readers through the page cache see what is written around it, at once, also
// when they read the same pages all the time.
func testDirectAndCached(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	must(t, os.WriteFile(name, make([]byte, 8192), 0o644))
	direct := open(t, name, os.O_WRONLY|unix.O_DIRECT)
	cached := open(t, name, os.O_RDONLY)
	stop := readAllTheTime(t, name)
	defer stop()
	b, got := aligned(4096), make([]byte, 4096)
	for i := range 300 {
		for j := range b {
			b[j] = byte(i)
		}
		_, err := direct.WriteAt(b, 4096)
		must(t, err)
		_, err = cached.ReadAt(got, 4096)
		must(t, err)
		if !bytes.Equal(got, b) {
			t.Fatalf("round %d: reads %d", i, got[0])
		}
	}
}

// readAllTheTime reads a file through the page cache until stop is called.
func readAllTheTime(t *testing.T, name string) (stop func()) {
	f := open(t, name, os.O_RDONLY)
	end := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		b := make([]byte, 64<<10)
		for {
			select {
			case <-end:
				return
			default:
				f.ReadAt(b, 0)
			}
		}
	})
	return sync.OnceFunc(func() { close(end); all.Wait() })
}

// The same for appends, which go around the page cache, too.
func testAppendAndCached(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "")
	log := open(t, name, os.O_WRONLY|os.O_APPEND)
	cached := open(t, name, os.O_RDONLY)
	stop := readAllTheTime(t, name)
	defer stop()
	var all []byte
	for i := range 300 {
		line := fmt.Appendf(nil, "line %d\n", i)
		_, err := log.Write(line)
		must(t, err)
		all = append(all, line...)
		got := make([]byte, len(all)+10)
		n, err := cached.ReadAt(got, 0)
		if err != io.EOF || !bytes.Equal(got[:n], all) {
			t.Fatalf("round %d: %d bytes of %d, %v", i, n, len(all), err)
		}
	}
}

// O_APPEND may also be set on an open file.
func testAppendSetLater(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "begin ")
	f := open(t, name, os.O_RDWR)
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_APPEND)
	must(t, err)
	_, err = f.WriteString("end")
	must(t, err)
	wantText(t, name, "begin end")
}

func testSparse(t *testing.T, dir string) {
	const chunk = 64 << 20
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE)
	must(t, f.Truncate(5*chunk))
	for _, off := range []int64{chunk + 4096, 3*chunk - 10} {
		_, err := f.WriteAt(noise(3, 80), off)
		must(t, err)
	}
	must(t, f.Sync())
	if st := stat(t, name); st.Size != 5*chunk || st.Blocks*512 >= st.Size {
		t.Errorf("%d bytes take %d blocks", st.Size, st.Blocks)
	}
	b := make([]byte, 100)
	_, err := f.ReadAt(b, chunk-50)
	must(t, err)
	want(t, "a hole", bytes.Equal(b, make([]byte, 100)), true)
	_, err = f.ReadAt(b[:80], 3*chunk-10)
	must(t, err)
	want(t, "data across chunks", bytes.Equal(b[:80], noise(3, 80)), true)

	data, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	must(t, err)
	if data > chunk+4096 || data <= 0 {
		t.Errorf("first data at %d", data)
	}
	hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	must(t, err)
	if hole < chunk+4096+80 || hole > 3*chunk-10 {
		t.Errorf("the hole behind it at %d", hole)
	}
	end, err := unix.Seek(int(f.Fd()), 4*chunk, unix.SEEK_HOLE)
	must(t, err)
	if end != 4*chunk {
		t.Errorf("hole in a hole at %d", end)
	}
	_, err = unix.Seek(int(f.Fd()), 4*chunk, unix.SEEK_DATA)
	want(t, "data behind all data", err, error(unix.ENXIO))
}

func testAllocate(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	data := noise(4, 1<<20)
	must(t, os.WriteFile(name, data, 0o644))
	f := open(t, name, os.O_RDWR)
	fd := int(f.Fd())
	must(t, unix.Fallocate(fd, 0, 1<<20, 1<<20))
	want(t, "size after allocate", stat(t, name).Size, 2<<20)
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 2<<20, 1<<20))
	want(t, "size after keep size", stat(t, name).Size, 2<<20)
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1000, 10000))
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 500000, 5000))
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 2<<20, 100))
	want(t, "size after zero range", stat(t, name).Size, 2<<20+100)
	clear(data[1000:11000])
	clear(data[500000:505000])
	data = append(data, make([]byte, 1<<20+100)...)
	got, err := os.ReadFile(name)
	must(t, err)
	want(t, "bytes", bytes.Equal(got, data), true)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("collapse: %v", err)
	}
}

func testCopyRange(t *testing.T, dir string) {
	data := noise(5, 3<<20)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	must(t, os.WriteFile(from, data, 0o644))
	in, out := open(t, from, os.O_RDONLY), open(t, to, os.O_RDWR|os.O_CREATE)
	offIn, offOut := int64(100), int64(5000)
	for left := 2 << 20; left > 0; {
		n, err := unix.CopyFileRange(int(in.Fd()), &offIn, int(out.Fd()), &offOut, left, 0)
		must(t, err)
		if n == 0 {
			t.Fatal("nothing is copied")
		}
		left -= n
	}
	wantBytes := append(make([]byte, 5000), data[100:100+2<<20]...)
	got, err := os.ReadFile(to)
	must(t, err)
	want(t, "copy", bytes.Equal(got, wantBytes), true)
}

func testTruncateAndWrite(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE)
	_, err := f.Write(noise(6, 10000))
	must(t, err)
	must(t, f.Truncate(3000))
	must(t, f.Truncate(8000))
	_, err = f.WriteAt([]byte("end"), 9000)
	must(t, err)
	wantBytes := make([]byte, 9003)
	copy(wantBytes, noise(6, 10000)[:3000])
	copy(wantBytes[9000:], "end")
	got, err := os.ReadFile(name)
	must(t, err)
	want(t, "bytes", bytes.Equal(got, wantBytes), true)
}

// testRandomModel compares random operations with the same ones in memory.
func testRandomModel(t *testing.T, dir string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	const most = 300 << 10
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE)
	var model []byte
	grow := func(n int) {
		if n > len(model) {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for step := range 1000 {
		off, n := r.IntN(most), 1+r.IntN(20000)
		switch r.IntN(8) {
		case 0, 1, 2:
			b := noise(r.Uint64(), n+8)[:n]
			_, err := f.WriteAt(b, int64(off))
			must(t, err)
			grow(off + n)
			copy(model[off:], b)
		case 3:
			must(t, f.Truncate(int64(off)))
			grow(off)
			model = model[:off:off]
		case 4:
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)))
			if off < len(model) {
				clear(model[off:min(off+n, len(model))])
			}
		case 5:
			must(t, f.Sync())
		default:
			b := make([]byte, n)
			got, err := f.ReadAt(b, int64(off))
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			var wantBytes []byte
			if off < len(model) {
				wantBytes = model[off:min(off+n, len(model))]
			}
			if !bytes.Equal(b[:got], wantBytes) {
				t.Fatalf("step %d: %d bytes at %d are wrong", step, n, off)
			}
		}
	}
	got, err := os.ReadFile(name)
	must(t, err)
	want(t, "bytes at last", bytes.Equal(got, model), true)
}

func testOpenTruncated(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	write(t, name, "a long text")
	old := open(t, name, os.O_RDONLY)
	b := make([]byte, 20)
	old.ReadAt(b, 0)
	f := open(t, name, os.O_RDWR|os.O_TRUNC)
	want(t, "size", stat(t, name).Size, 0)
	if n, err := old.ReadAt(b, 0); n != 0 || err != io.EOF {
		t.Errorf("read of a truncated file: %d, %v", n, err)
	}
	_, err := f.WriteString("short")
	must(t, err)
	wantText(t, name, "short")
}

func testSyncFlags(t *testing.T, dir string) {
	for what, flags := range map[string]int{
		"O_SYNC": os.O_SYNC, "O_DSYNC": unix.O_DSYNC, "O_SYNC|O_APPEND": os.O_SYNC | os.O_APPEND,
	} {
		name := filepath.Join(dir, what)
		f := open(t, name, os.O_WRONLY|os.O_CREATE|flags)
		_, err := f.WriteString("safe")
		must(t, err)
		wantText(t, name, "safe")
	}
	d := open(t, dir, os.O_RDONLY)
	must(t, d.Sync())
}

func testFarAway(t *testing.T, dir string) {
	name := filepath.Join(dir, "file")
	f := open(t, name, os.O_RDWR|os.O_CREATE)
	const far = 1 << 50
	_, err := f.WriteAt([]byte("far"), far)
	must(t, err)
	b := make([]byte, 10)
	n, _ := f.ReadAt(b, far)
	want(t, "far bytes", string(b[:n]), "far")
	want(t, "size", stat(t, name).Size, far+3)
	if _, err := f.WriteAt([]byte("x"), 1<<57); !errors.Is(err, unix.EFBIG) {
		t.Errorf("a write beyond the largest file: %v", err)
	}
	if err := f.Truncate(1<<57 + 1); !errors.Is(err, unix.EFBIG) {
		t.Errorf("truncate beyond the largest file: %v", err)
	}
}
