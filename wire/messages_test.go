package wire

import (
	"math/rand/v2"
	"reflect"
	"sync/atomic"
)

// messages has one value of each message, in the order of their kinds. A new
// kind without an entry here fails TestEveryKind.
func messages() []Message {
	return []Message{
		&Hello{}, &Challenge{}, &Proof{}, &Welcome{},
		&SessionOpen{}, &SessionReply{}, &SessionClose{}, &Ping{}, &Lookup{}, &EntryReply{}, &GetAttr{}, &AttrReply{},
		&SetAttr{}, &Make{}, &Remove{}, &RemoveReply{}, &Rename{}, &RenameReply{}, &Link{}, &Readlink{}, &BytesReply{},
		&ReadDir{}, &ReadDirReply{}, &GetXattr{}, &SetXattr{}, &RemoveXattr{}, &ListXattr{}, &Acquire{}, &Release{},
		&Reserve{}, &ReserveReply{},
		&Lease{}, &LeaseReply{}, &LeaseFail{}, &Commit{}, &CommitReply{}, &Layout{}, &LayoutReply{}, &Lock{}, &LockReply{},
		&LockCancel{}, &StatFS{}, &StatFSReply{}, &Admin{}, &AdminReply{}, &Empty{}, &Recall{}, &RecallReply{}, &Who{}, &WhoReply{},
		&Register{}, &RegisterReply{}, &Report{}, &Beat{}, &Trouble{}, &Delete{}, &SetVersion{}, &Replicate{}, &Digest{}, &DigestReply{}, &Lead{},
		&Write{}, &WriteReply{}, &Sync{}, &Read{}, &ReadReply{}, &Map{}, &MapReply{}, &Places{}, &PlacesReply{}, &Lend{}, &LendReply{},
		&Raft{}, &VoterBeat{}, &ImageAsk{}, &ImageOffer{}, &ImageRead{}, &VoterTrouble{},
		&Detail{}, // shares KindEmpty: the body of an error
	}
}

// blank makes a new empty message of the same type.
func blank(m Message) Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
}

// filler sets every field of a message, reached by reflection, so that a field
// that Fields forgets is noticed. next gives the numbers.
type filler struct {
	next func() uint64
	list int // elements of a list
}

func (f filler) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		f.fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), f.list, f.list))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.String:
		b := make([]byte, f.list+3)
		for i := range b {
			b[i] = 'a' + byte(f.next()%26)
		}
		v.SetString(string(b))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(f.next()))
	default:
		v.SetUint(f.next() & (1<<v.Type().Bits() - 1))
	}
}

// counted fills with 1, 2, 3, ...: the same bytes in every run.
func counted(m Message) Message {
	var n atomic.Uint64
	filler{next: func() uint64 { return n.Add(1) }, list: 2}.fill(reflect.ValueOf(m))
	return m
}

// random fills from a seed.
func random(m Message, rng *rand.Rand) Message {
	filler{next: rng.Uint64, list: 1 + rng.IntN(5)}.fill(reflect.ValueOf(m))
	return m
}
