// Package link is a connection that carries wire frames between two processes
// of a cluster that both know the cluster key.
//
// Master, chunkd, client and admin call it; it calls wire and status. Either
// end may call the other: calls are pipelined, replies come in any order and
// are matched by id. A connection owns one read goroutine, which runs the
// Handler and the callbacks of Start in the order of the frames, and one write
// goroutine, which flushes whatever has gathered with one writev. A small frame
// on an idle connection is written by the caller itself without blocking.
//
// Back-pressure. A call with data blocks while sendLimit bytes of call data
// wait on its connection; calls and notices without data never block, nor do
// replies. Instead, the read goroutine takes no further frame while replyLimit
// bytes of replies wait, so that a peer that asks and does not listen is held.
// A handler that forwards data to another connection from the read goroutine
// must see to it that such waits form no circle.
//
// Life. Each side sends a frame at least every keepAlive interval (a notice of
// kind Empty when it has nothing to say) and closes a connection on which
// nothing arrived for Config.IdleTimeout. When a connection dies, every call
// that has no reply yet ends with an error, after the last callback for a frame.
//
// Handshake (wire/handshake.go): Hello, Challenge, Proof, Welcome. Both ends
// prove that they have the key; it never travels. What is not a frame, has
// another protocol version or another key is answered with a status where
// possible and closed, and logged at a bounded rate.
//
// Lock order: Conn.calls.mu and Conn.out.mu are never held together, and no
// callback runs under either.
package link
