package state

import (
	"fmt"

	"github.com/varvefs/varve/codec"
)

// Entry is one line of the changelog.
type Entry struct {
	Time    int64  // nanoseconds since 1970, by the leader's clock
	Session uint64 // who asked; 0: the master itself
	Seq     uint64 // at-most-once number of the session's request, 0: none
	Done    uint64 // the session has the replies of all Seq up to this one
	Op      Op
}

// Op is one kind of change. All implementations are in this package, in ops_*.go.
type Op interface {
	codec.Fields
	// Code is the number under which the op is written to the changelog.
	Code() OpCode
	// String is the op as in a changelog line: NAME(arguments).
	String() string
	// apply checks everything first and then changes the state; when it sets
	// r.Code it has changed nothing.
	apply(s *State, e *Entry, r *Result)
}

// OpCode numbers the ops in the changelog. A code whose layout must change gets
// a successor; it is never redefined.
type OpCode uint16

// The op codes. They are on disk: append only.
const (
	OpNop OpCode = iota + 1
	OpMake
	OpRemove
	OpRename
	OpLink
	OpSetAttr
	OpSetMany
	OpSetXattr
	OpRemoveXattr
	OpLease
	OpLeaseFail
	OpCommit
	OpLeaseDrop
	OpSessionOpen
	OpSessionClose
	OpReleaseHold
	OpServerSeen
	OpServerForget
	OpSetCluster
	OpReserve
	OpLeap
	OpAdopt
)

// newOp gives an empty op to decode into, or nil when the code is unknown.
func newOp(code OpCode) Op {
	switch code {
	case OpNop:
		return &Nop{}
	case OpMake:
		return &Make{}
	case OpRemove:
		return &Remove{}
	case OpRename:
		return &Rename{}
	case OpLink:
		return &Link{}
	case OpSetAttr:
		return &SetAttr{}
	case OpSetMany:
		return &SetMany{}
	case OpSetXattr:
		return &SetXattr{}
	case OpRemoveXattr:
		return &RemoveXattr{}
	case OpLease:
		return &Lease{}
	case OpLeaseFail:
		return &LeaseFail{}
	case OpCommit:
		return &Commit{}
	case OpLeaseDrop:
		return &LeaseDrop{}
	case OpSessionOpen:
		return &SessionOpen{}
	case OpSessionClose:
		return &SessionClose{}
	case OpReleaseHold:
		return &ReleaseHold{}
	case OpServerSeen:
		return &ServerSeen{}
	case OpServerForget:
		return &ServerForget{}
	case OpSetCluster:
		return &SetCluster{}
	case OpReserve:
		return &Reserve{}
	case OpLeap:
		return &Leap{}
	case OpAdopt:
		return &Adopt{}
	}
	return nil
}

// Fields encodes the op's code, who asked and when, and the op.
func (e *Entry) Fields(c *codec.Codec) {
	var code OpCode
	if !c.Decoding() {
		code = e.Op.Code()
	}
	c.U16((*uint16)(&code))
	c.I64(&e.Time)
	c.U64(&e.Session)
	c.U64(&e.Seq)
	c.U64(&e.Done)
	if c.Decoding() {
		if e.Op = newOp(code); e.Op == nil {
			c.Fail(fmt.Errorf("unknown op code %d", code))
			return
		}
	}
	e.Op.Fields(c)
}

// moment is when an op happened: by the mount's clock when it says so (a mount
// that has shown times before they were logged must find the same ones later),
// otherwise by the leader's.
func (e *Entry) moment(own int64) int64 {
	if own != 0 {
		return own
	}
	return e.Time
}

// AppendEntry encodes e behind dst. Encoded entries can be concatenated: a batch
// is one after the other.
func AppendEntry(dst []byte, e *Entry) []byte { return codec.Append(dst, e) }

// DecodeEntry decodes the first entry of b and returns what follows it.
func DecodeEntry(b []byte) (Entry, []byte, error) {
	var e Entry
	rest, err := codec.DecodePrefix(b, &e)
	if err != nil {
		return Entry{}, nil, err
	}
	return e, rest, nil
}

// DecodeBatch decodes all the entries of b.
func DecodeBatch(b []byte) ([]Entry, error) {
	var list []Entry
	for len(b) > 0 {
		e, rest, err := DecodeEntry(b)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the batch: %w", len(list), err)
		}
		list = append(list, e)
		b = rest
	}
	return list, nil
}

// String is the changelog line: seconds, a bar and the op.
func (e *Entry) String() string {
	return fmt.Sprintf("%d|%s", e.Time/1e9, e.Op)
}

// Line is the changelog line with what came of it, as mfsmaster writes it:
// the inode that was made or touched, or the name of the error.
func (e *Entry) Line(r *Result) string {
	switch {
	case r.Code != 0:
		return fmt.Sprintf("%s:%s", e, r.Code.String())
	case r.Session != 0:
		return fmt.Sprintf("%s:%d", e, r.Session)
	case r.Ino != 0:
		return fmt.Sprintf("%s:%d", e, r.Ino)
	}
	return e.String()
}
