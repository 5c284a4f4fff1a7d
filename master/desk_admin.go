package master

import (
	"encoding/json"
	"strconv"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxListed bounds the chunks that one FileInfo names.
const maxListed = 8192

// adminDesk serves the connections of tools.
type adminDesk struct{ in *inbox }

var adminDesks = map[wire.Kind]desk{
	wire.KindAdmin:  serve((*loop).admin),
	wire.KindStatFS: serve((*loop).statFS),
	wire.KindWho:    serve((*loop).who),
}

// Serve decodes a question and hands it to the loop.
func (d *adminDesk) Serve(c *link.Conn, r *link.Request) { dispatch(adminDesks, d.in, c, r) }

// Pause has the loop serve what has come.
func (d *adminDesk) Pause(*link.Conn) { d.in.ring() }

// question answers one kind of wire.Admin. Its error becomes the reply's.
type question func(l *loop, q *request, args []byte)

// questions has what a tool may ask.
var questions = map[string]question{
	wire.AskStatus:    ask(func(l *loop, _ struct{}) (*wire.Status, error) { return l.status(), nil }),
	wire.AskPath:      ask((*loop).askPath),
	wire.AskFileInfo:  ask((*loop).askFileInfo),
	wire.AskDirInfo:   ask((*loop).askDirInfo),
	wire.AskCheckFile: ask((*loop).askCheckFile),
	wire.AskGetGoal:   ask((*loop).askGetGoal),
	wire.AskSetGoal:   (*loop).askSetGoal,
	wire.AskForget:    (*loop).askForget,
	wire.AskSnapshot:  (*loop).askSaveImage,
	wire.AskHandover:  (*loop).askHandover,
	wire.AskAddVoter:  (*loop).askAdd,
	wire.AskDropVoter: (*loop).askRemove,
}

// ask makes a question of a function that can answer at once.
func ask[Args, Answer any](f func(*loop, Args) (*Answer, error)) question {
	return func(l *loop, q *request, text []byte) {
		var args Args
		if err := decodeArgs(text, &args); err != nil {
			l.refuse(q, err)
			return
		}
		answer, err := f(l, args)
		l.answer(q, answer, err)
	}
}

func decodeArgs(text []byte, args any) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, args); err != nil {
		return status.Errorf(status.BadMessage, "arguments: %v", err)
	}
	return nil
}

// answer replies in JSON, or with err.
func (l *loop) answer(q *request, answer any, err error) {
	if err != nil {
		l.refuse(q, err)
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		l.refuse(q, err)
		return
	}
	l.reply(q, &wire.AdminReply{JSON: text})
}

// admin answers wire.Admin.
func (l *loop) admin(q *request, m *wire.Admin) {
	f, ok := questions[m.What]
	if !ok {
		l.refuse(q, status.Errorf(status.Unsupported, "question %q", m.What))
		return
	}
	f(l, q, m.Args)
}

func (l *loop) askPath(args wire.PathArgs) (*wire.InoArgs, error) {
	ino, err := l.walk(args.Path)
	return &wire.InoArgs{Ino: uint64(ino)}, err
}

// file finds a file's attributes.
func (l *loop) file(ino uint64) (inode.Attr, error) {
	a, ok := l.st.Attr(inode.Ino(ino))
	switch {
	case !ok:
		return a, status.Errorf(status.NotFound, "inode %d", ino)
	case a.Kind != inode.File:
		return a, status.Errorf(status.Invalid, "inode %d is a %v, not a file", ino, a.Kind)
	}
	return a, nil
}

func (l *loop) askDirInfo(args wire.InoArgs) (*wire.DirInfo, error) {
	ino := inode.Ino(args.Ino)
	c, ok := l.st.Counters(ino)
	if !ok {
		return nil, l.missing(ino, status.NotDir)
	}
	return &wire.DirInfo{
		Ino: args.Ino, Path: l.st.PathOf(ino), Inodes: c.Inodes, Dirs: c.Dirs, Files: c.Files, Links: c.Symlinks,
		Others: c.Others, Chunks: c.Chunks, Length: c.Length, Size: c.Size, Real: c.Real,
	}, nil
}

func (l *loop) askGetGoal(args wire.GoalArgs) (*wire.GoalReply, error) {
	a, ok := l.st.Attr(inode.Ino(args.Ino))
	if !ok {
		return nil, status.Errorf(status.NotFound, "inode %d", args.Ino)
	}
	reply := &wire.GoalReply{Files: map[string]uint64{}, Dirs: map[string]uint64{}}
	goal := strconv.Itoa(int(a.Goal))
	if a.Kind != inode.Dir {
		reply.Files[goal]++
		return reply, nil
	}
	reply.Dirs[goal]++
	if !args.Recursive {
		return reply, nil
	}
	c, _ := l.st.Counters(a.Ino)
	for g := inode.GoalMin; g <= inode.GoalMax; g++ {
		if n := c.GoalFiles[g]; n > 0 {
			reply.Files[strconv.Itoa(g)] += n
		}
		if n := c.GoalDirs[g]; n > 0 {
			reply.Dirs[strconv.Itoa(g)] += n
		}
	}
	return reply, nil
}

// askSaveImage writes an image now and answers when it is durable.
func (l *loop) askSaveImage(q *request, _ []byte) {
	l.saveImage(func(file image.File, err error) {
		l.answer(q, &wire.SaveReply{File: file.Path, Index: file.Index, Bytes: uint64(file.Size)}, err)
	})
}
