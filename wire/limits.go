package wire

// Limits of what one message may hold, checked before anything is allocated.
const (
	maxText     = 4096    // free text, addresses, paths
	maxDetail   = 4096    // text of an error
	maxName     = 1024    // one name; the master answers ENAMETOOLONG above 255
	maxReplicas = 16      // copies of one chunk
	maxGroups   = 65536   // supplementary groups
	maxXattr    = 1 << 20 // bytes of an attribute's value or of a list of names
	maxEntries  = 8192    // directory entries in one reply
	maxItems    = 65536   // elements of any other list
	maxJSON     = 4<<20 - 4096
	maxPieces   = MaxData/4096 + 2
	maxToken    = 64
)
