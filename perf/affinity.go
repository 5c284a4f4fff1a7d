package perf

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// halves splits the processors: those of clients and leader, and those of the
// other voters, which have machines of their own in earnest. With one processor
// they are the same.
func halves() (near, far unix.CPUSet) {
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		all.Fill()
	}
	n, half := 0, (all.Count()+1)/2
	for cpu := range 8 * len(all) * 8 {
		if !all.IsSet(cpu) {
			continue
		}
		if n++; n <= half {
			near.Set(cpu)
		} else {
			far.Set(cpu)
		}
	}
	if far.Count() == 0 {
		far = near
	}
	return near, far
}

// confine puts a process, all of its threads and children, on processors. What
// they start later follows them.
func confine(pid int, where *unix.CPUSet) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("process %d is not there", pid)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		if err := unix.SchedSetaffinity(tid, where); err != nil && err != unix.ESRCH {
			return os.NewSyscallError("sched_setaffinity", err)
		}
		children, err := os.ReadFile(filepath.Join(task, "children"))
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			if id, err := strconv.Atoi(child); err == nil {
				if err := confine(id, where); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// confineSelf puts this process on processors until restore is called. Children
// that it starts meanwhile have to be confined by themselves.
func confineSelf(where *unix.CPUSet) (restore func(), err error) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	own := func(set *unix.CPUSet) error {
		tasks, err := filepath.Glob("/proc/self/task/*")
		for _, task := range tasks {
			tid, _ := strconv.Atoi(filepath.Base(task))
			if e := unix.SchedSetaffinity(tid, set); e != nil && e != unix.ESRCH && err == nil {
				err = os.NewSyscallError("sched_setaffinity", e)
			}
		}
		return err
	}
	procs := runtime.GOMAXPROCS(where.Count())
	return func() {
		runtime.GOMAXPROCS(procs)
		_ = own(&before) // as it was, and so allowed
	}, own(where)
}
