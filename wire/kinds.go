package wire

// Handshake of every connection (package link).
const (
	KindHello Kind = iota + 1
	KindChallenge
	KindProof
	KindWelcome
)

// A mount or tool to the master.
const (
	KindSessionOpen Kind = iota + 0x0100
	KindSessionReply
	KindSessionClose
	KindPing
	KindLookup
	KindEntryReply
	KindGetAttr
	KindAttrReply
	KindSetAttr
	KindMake
	KindRemove
	KindRemoveReply
	KindRename
	KindRenameReply
	KindLink
	KindReadlink
	KindBytesReply
	KindReadDir
	KindReadDirReply
	KindGetXattr
	KindSetXattr
	KindRemoveXattr
	KindListXattr
	KindAcquire
	KindRelease
	KindReserve
	KindReserveReply
	KindLease
	KindLeaseReply
	KindLeaseFail
	KindCommit
	KindCommitReply
	KindLayout
	KindLayoutReply
	KindLock
	KindLockReply
	KindLockCancel
	KindStatFS
	KindStatFSReply
	KindAdmin
	KindAdminReply
	KindEmpty
	KindRecall      // master to mount
	KindRecallReply // mount to master
	KindWho
	KindWhoReply
)

// A chunkserver to the master and back.
const (
	KindRegister Kind = iota + 0x0200
	KindRegisterReply
	KindReport
	KindBeat
	KindTrouble
	KindDelete // from here on: orders of the master
	KindSetVersion
	KindReplicate
	KindDigest
	KindDigestReply
	KindLead
)

// A mount or chunkserver to a chunkserver.
const (
	KindWrite Kind = iota + 0x0300
	KindWriteReply
	KindSync
	KindRead
	KindReadReply
	KindMap
	KindMapReply
	KindPlaces
	KindPlacesReply
	KindLend
	KindLendReply
)

// A voter of the changelog to another one.
const (
	KindRaft Kind = iota + 0x0400
	KindVoterBeat
	KindImageAsk
	KindImageOffer
	KindImageRead
	KindVoterTrouble
)
