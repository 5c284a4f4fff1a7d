package raw

import (
	"hash/crc32"
)

// Resum makes the sums of the first copy right, so that a fuzzer comes past them.
func Resum[M interface {
	~[]byte
	Source
}](m M) M {
	if n := int(le.Uint32(m[40:])); n <= (len(m)-headerSize)/entrySize {
		le.PutUint32(m[44:], crc32.Checksum(m[headerSize:headerSize+n*entrySize], castagnoli))
	}
	sum := crc32.Checksum(m[:8], castagnoli)
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	le.PutUint32(m[8:], crc32.Update(sum, castagnoli, m[12:headerSize]))
	return m
}
