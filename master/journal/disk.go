package journal

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/varvefs/varve/master/journal/files"
)

// Names in the directory. Files are numbered from 1 on, in hexadecimal.
const (
	suffix    = ".wal"
	spareName = "spare"   // a file that Compact gave up, to be used again
	newName   = "new.tmp" // a file that is being filled with zeros
)

func fileName(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

// listFiles returns the numbers of the log files in dir, ascending.
func listFiles(dir files.Dir) ([]uint64, error) {
	names, err := dir.List()
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		base, ok := strings.CutSuffix(name, suffix)
		if !ok || len(base) != 16 {
			continue
		}
		if n, err := strconv.ParseUint(base, 16, 64); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}

// prepareFile makes log file number in dir with size bytes that have all been
// written and synced: from the spare if there is one, else by writing zeros.
// What a spare still holds cannot be mistaken: its frames have another number.
func prepareFile(dir files.Dir, number uint64, size int64) error {
	from := newName
	if have, err := dir.Size(spareName); err == nil && have == size {
		from = spareName
	} else if err := dir.Fill(newName, size); err != nil {
		return err
	}
	if err := dir.Rename(from, fileName(number)); err != nil {
		return err
	}
	return dir.Sync()
}
