package state

func (o *Nop) apply(*State, *Entry, *Result)          { panic("not yet") }
func (o *Make) apply(*State, *Entry, *Result)         { panic("not yet") }
func (o *Remove) apply(*State, *Entry, *Result)       { panic("not yet") }
func (o *Rename) apply(*State, *Entry, *Result)       { panic("not yet") }
func (o *Link) apply(*State, *Entry, *Result)         { panic("not yet") }
func (o *SetAttr) apply(*State, *Entry, *Result)      { panic("not yet") }
func (o *SetMany) apply(*State, *Entry, *Result)      { panic("not yet") }
func (o *SetXattr) apply(*State, *Entry, *Result)     { panic("not yet") }
func (o *RemoveXattr) apply(*State, *Entry, *Result)  { panic("not yet") }
func (o *Lease) apply(*State, *Entry, *Result)        { panic("not yet") }
func (o *LeaseFail) apply(*State, *Entry, *Result)    { panic("not yet") }
func (o *Commit) apply(*State, *Entry, *Result)       { panic("not yet") }
func (o *LeaseDrop) apply(*State, *Entry, *Result)    { panic("not yet") }
func (o *SessionOpen) apply(*State, *Entry, *Result)  { panic("not yet") }
func (o *SessionClose) apply(*State, *Entry, *Result) { panic("not yet") }
func (o *ReleaseHold) apply(*State, *Entry, *Result)  { panic("not yet") }
func (o *ServerSeen) apply(*State, *Entry, *Result)   { panic("not yet") }
func (o *ServerForget) apply(*State, *Entry, *Result) { panic("not yet") }
func (o *SetCluster) apply(*State, *Entry, *Result)   { panic("not yet") }
