// Package segment stores chunks in append-only segments on one disk.
//
// A [Store] turns writes, deletions and version changes into entries of frames.
// A frame is one I/O: a 4 KiB header that validates itself, and its payload.
// Frames fill segments, segments lie in preallocated container files. FORMAT.md
// says what every byte means. While frames are in flight the next one fills, so
// that many writers share one sync; nothing is acknowledged before its frame, and
// all older frames of the same head, are on the medium. Which bytes of a chunk lie
// where is known to an index in memory that is rebuilt from the log at Open.
//
// chunkd calls it, one Store for each disk; cmd and tests call [Inspect], [InspectIndex]
// and [Check], which open a store on an overlay and change nothing on disk. It calls
// engine and imports the nouns chunk and status.
//
// Checkpoints bound the time of Open: the index is saved now and then, while writes go
// on, and recovery replays only what came after.
//
// Heads. There are three places where the log grows: one for small writes and
// everything that is not data, one for bulk data, one for what the cleaner keeps.
// Each is a sequence of its own. Entries of one chunk stay in one head as long as
// one of them is not durable, so that after a crash a chunk is a prefix of what was
// done to it.
//
// State and locks. Store.mu guards everything that is not said to be constant:
// index, segment table, heads, open frames. It is held for memory work only, never
// for I/O and never while a caller's function runs; functions that want it held say
// so in their comment. Store.superMu orders changes of the superblock and is
// taken before mu. What must happen outside of mu (handing frames to the engine,
// calling back those who wait, giving back buffers that were on loan) is queued and done by Store.unlock.
//
// Goroutines. keeper grows the store, cleans and erases segments; preparer fills new
// segments with zeros; the taker of checkpoints saves the index; scrubLoop checks what
// is stored; watch looks how quick the disk is. Everything else runs in the callers'
// goroutines and in the engine's completions.
package segment
