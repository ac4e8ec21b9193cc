package conntrack

// TCPState is the state of a TCP connection as the tracker sees it.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_tcp.h, tcp_conntrack.
type TCPState uint8

// The states, with the kernel's numbers.
const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
	TCPSynSent2
	tcpInvalid // TCP_CONNTRACK_MAX
	tcpIgnore

	tcpRetrans    = tcpInvalid // timeouts that belong to no state
	tcpUnack      = tcpIgnore
	tcpTimeoutMax = tcpIgnore + 1
)

// String returns the word that `conntrack -L` prints.
func (s TCPState) String() string {
	if int(s) >= len(tcpNames) {
		return "NONE"
	}
	return tcpNames[s]
}

var tcpNames = [...]string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
	"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}

// tcpIndex is what kind of segment it is.
type tcpIndex uint8

const (
	segSyn tcpIndex = iota
	segSynAck
	segFin
	segAck
	segRst
	segNone
)

// The table below uses the kernel's short names.
const (
	sNO = TCPNone
	sSS = TCPSynSent
	sSR = TCPSynRecv
	sES = TCPEstablished
	sFW = TCPFinWait
	sCW = TCPCloseWait
	sLA = TCPLastAck
	sTW = TCPTimeWait
	sCL = TCPClose
	sS2 = TCPSynSent2
	sIV = tcpInvalid
	sIG = tcpIgnore
)

// tcpStates says which state follows, by direction, segment and present state.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks.
var tcpStates = [2][6][10]TCPState{
	{ //          NO   SS   SR   ES   FW   CW   LA   TW   CL   S2
		segSyn:    {sSS, sSS, sIG, sIG, sIG, sIG, sIG, sSS, sSS, sS2},
		segSynAck: {sIV, sIV, sSR, sIV, sIV, sIV, sIV, sIV, sIV, sSR},
		segFin:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		segAck:    {sES, sIV, sES, sES, sCW, sCW, sTW, sTW, sCL, sIV},
		segRst:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		segNone:   {sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV},
	},
	{ //          NO   SS   SR   ES   FW   CW   LA   TW   CL   S2
		segSyn:    {sIV, sS2, sIV, sIV, sIV, sIV, sIV, sSS, sIV, sS2},
		segSynAck: {sIV, sSR, sIG, sIG, sIG, sIG, sIG, sIG, sIG, sSR},
		segFin:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		segAck:    {sIV, sIG, sSR, sES, sCW, sCW, sTW, sTW, sCL, sIG},
		segRst:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
		segNone:   {sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV},
	},
}

// The flags of a TCP header.
const (
	finFlag = 1 << iota
	synFlag
	rstFlag
	pshFlag
	ackFlag
	urgFlag
)

// validFlags tells whether a set of flags (without PSH, ECE, CWR) occurs in
// sound segments.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_valid_flags.
func validFlags(f uint8) bool {
	switch f & (finFlag | synFlag | rstFlag | ackFlag | urgFlag) {
	case synFlag, synFlag | urgFlag, synFlag | ackFlag,
		rstFlag, rstFlag | ackFlag,
		finFlag | ackFlag, finFlag | ackFlag | urgFlag,
		ackFlag, ackFlag | urgFlag:
		return true
	}
	return false
}
