package main

// sim is the simulation of whole clusters, with seeds that are always the same.
var sim = []string{"./test/sim", "-run", "^TestSeeds$"}

// quick is one package's tests whose names match.
func quick(pkg, names string) []string { return []string{pkg, "-short", "-run", names} }

// aimed is a mutation with those who should notice: arguments of go test, in turn.
type aimed struct {
	mutation
	tests [][]string
}

// all are the mutations of the segment store, and those of failover.
func all() []aimed {
	var list []aimed
	for _, m := range mutations {
		list = append(list, aimed{m, storeTests})
	}
	return append(list, failoverMutations...)
}

// failoverMutations break what keeps two masters from serving at once, and
// acknowledged changes from being lost.
var failoverMutations = []aimed{
	{mutation{"ha-lease-after-reply", "a reply leaves without a look at the lease after it was made", "master/helm/helm.go",
		"len(h.withheld) == 0 && h.holds() {", "len(h.withheld) == 0 {"},
		[][]string{quick("./master/helm", "TestRepliesWait"), sim}},
	{mutation{"ha-lease-other-term", "a lease counts whatever term it was won in", "master/helm/helm.go",
		"return h.leased(h.epoch)", "return h.leased(0) || h.leased(h.epoch) || h.leased(h.epoch+1) || h.leased(h.epoch+2)"},
		[][]string{quick("./master/helm", "TestLease")}},
	{mutation{"ha-numbers-again", "a recovered changelog gives the numbers again that were given in what is lost", "master/loop.go",
		"case survived > l.st.Leapt():", "case survived > l.st.Leapt() && false:"},
		[][]string{quick("./master", "TestRecoverGivesNoNumberAgain")}},
	{mutation{"ha-serve-before-applied", "a master serves before it has applied what former leaders logged", "master/helm/helm.go",
		"return h.leading && !h.ready && h.caughtUp == h.epoch", "return h.leading && !h.ready"},
		[][]string{quick("./master/helm", "TestCatchesUp"), sim}},
	{mutation{"ha-elected-again", "a master that was deposed and elected again unseen goes on", "master/helm/helm.go",
		"!(change.Leader && change.Term == h.epoch)", "!change.Leader"},
		[][]string{quick("./master/helm", "TestElectedAgain")}},
	{mutation{"ha-epoch-not-persisted", "a chunkserver keeps the epoch in memory only", "chunkd/fence.go",
		"if err := f.persist(epoch); err != nil {", "if err := error(nil); err != nil {"},
		[][]string{quick("./chunkd", "TestEpochs")}},
	{mutation{"ha-epoch-not-checked", "a chunkserver carries out orders of any epoch", "chunkd/fence.go",
		"epoch < high {", "epoch < high && false {"},
		[][]string{quick("./chunkd", "TestEpochs")}},
	{mutation{"ha-vote-not-synced", "a vote is sent before it is on the disk", "master/journal/writer.go",
		"urgent = urgent || h.Term != w.hard.Term || h.Vote != w.hard.Vote", "urgent = false"},
		[][]string{quick("./master/journal", "TestVoteIsDurable"), sim}},
	{mutation{"ha-vote-in-cache", "in quorum mode a vote stays in the page cache", "master/journal/writer.go",
		"if urgent && w.lazy {", "if urgent && w.lazy && false {"},
		[][]string{quick("./master/journal", "TestVoteIsDurable")}},
	{mutation{"ha-entry-not-synced", "an entry is acknowledged while it is in the page cache", "master/journal/writer.go",
		"write := w.f.WriteSync", "write := w.f.Write"},
		[][]string{quick("./master/journal", "TestAcknowledgedIsDurable"), sim}},
	{mutation{"ha-answer-before-write", "what a write promises is sent before the write", "master/journal/driver.go",
		"	if err := l.w.append(msgs); err != nil {\n		return err\n	}\n",
		"	for _, m := range msgs {\n		if !l.single {\n			l.cfg.Transport.Send(m.GetResponses())\n		}\n	}\n	if err := l.w.append(msgs); err != nil {\n		return err\n	}\n"},
		[][]string{sim}},
	{mutation{"ha-cache-trusted", "what a start reads from a cache counts as durable", "master/journal/open.go",
		"if err := r.tail.writeAgain(f); err != nil {", "if err := error(nil); err != nil {"},
		[][]string{quick("./master/journal", "ThenPowerCut"), sim}},
	{mutation{"ha-lease-from-arrival", "the lease counts from when an answer arrived", "master/journal/lease.go",
		"at = int64(binary.LittleEndian.Uint64(b))", "at = log.cfg.Clock()"},
		[][]string{quick("./master/journal", "TestLeaseCounts")}},
	{mutation{"ha-lease-margin", "the lease is as long as a follower's promise, by the leader's clock", "master/journal/lease.go",
		"l.length = int64(d - d/leaseMargin)", "l.length = int64(d)"},
		[][]string{quick("./master/journal", "TestLeaseCounts")}},
	{mutation{"ha-promise", "a voter votes although it has heard a leader just now", "master/journal/lease.go",
		"return l.ticks >= l.lease.mute || string(m.GetContext()) == \"CampaignTransfer\"", "return true"},
		[][]string{quick("./master/journal", "TestRestartKeepsPromise"), sim}},
	{mutation{"ha-promise-forgotten", "a voter that was started again keeps no promise of its former life", "master/journal/lease.go",
		"		l.mute = electionTicks\n", ""},
		[][]string{quick("./master/journal", "TestRestartKeepsPromise"), sim}},
	{mutation{"ha-transfer-keeps-lease", "a leader that hands over keeps its lease", "master/journal/lease.go",
		"		l.lease.until.Store(0)\n	case raftpb.MsgSnap:", "		l.lease.spoiled = false\n	case raftpb.MsgSnap:"},
		[][]string{quick("./master/journal", "TestTransfer"), sim}},
	{mutation{"ha-late-obituary", "an obituary frees from whoever leads now", "master/journal/control.go",
		"if l.term() != term {", "if false {"},
		[][]string{quick("./master/journal", "TestForgetLeader")}},
	{mutation{"ha-amnesia-votes", "a voter that may have forgotten entries votes", "master/journal/amnesia.go",
		"	if !l.amnesia {\n		return false\n	}\n	switch", "	if true {\n		return false\n	}\n	switch"},
		[][]string{quick("./master/journal", "TestAmnesia"), sim}},
	{mutation{"ha-amnesia-same-term", "a leader may go on counting what a voter has forgotten", "master/journal/amnesia.go",
		"	l.w.hard.Term++\n", ""},
		[][]string{sim}},
	{mutation{"ha-wiped-voter", "an empty directory passes for the voter that it was", "master/voters/rules.go",
		"if k.Founder == 0 || k.Founder == b.Founder {", "if k.Founder == 0 || b.Founder != 0 {"},
		[][]string{quick("./master/voters", "TestJudge")}},
	{mutation{"ha-wiped-founded", "an empty directory makes itself one of the members", "master/voters/rules.go",
		"case theirs.Has(own.ID, own.Founder) && named(theirs, own.ID):", "case len(theirs.List) > 0:"},
		[][]string{quick("./master/voters", "TestFounding")}},
	{mutation{"ha-reply-cache", "a request that is sent again is carried out again", "master/state/state.go",
		"if old, ok := ses.find(e.Seq); ok {\n		*r", "if old, ok := ses.find(e.Seq); ok && false {\n		*r"},
		[][]string{quick("./master/state", "TestGolden$|TestRepliesAreBounded"), sim}},
	{mutation{"ha-vip-kept-by-follower", "a master keeps the virtual address when another leads", "elect/machine.go",
		"		out = m.drop(out, \"another voter leads\")\n", ""},
		[][]string{quick("./elect", ".")}},
	{mutation{"ha-vip-kept-without-lease", "a master keeps the virtual address when its lease is over", "elect/machine.go",
		"return m.drop(out, \"the lease ran out\")", "return out"},
		[][]string{quick("./elect", ".")}},
	{mutation{"ha-vip-kept-by-agent", "the virtual address is kept when the right to it has ended", "vip/owner.go",
		"if now >= o.until {", "if now >= o.until && false {"},
		[][]string{quick("./vip", "TestOwner"), sim}},
	{mutation{"ha-vip-kept-by-the-dead", "the supervisor of a dead master keeps its virtual address", "guard/guard.go",
		"	if c.cfg.Addresses != nil {\n		if err := c.cfg.Addresses.Drop(); err", "	if c.cfg.Addresses != nil && false {\n		if err := c.cfg.Addresses.Drop(); err"},
		[][]string{quick("./guard", "TestDeathOfTheLeader")}},
	{mutation{"ha-obituary-of-another", "an obituary counts for any leader", "elect/machine.go",
		"o.Term == v.Term && (v.Leader == o.Voter || v.Leader == 0) && m.orphan != o.Term", "o.Term != 0 && m.orphan != o.Term"},
		[][]string{quick("./elect", ".")}},
}
