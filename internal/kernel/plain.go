package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A kernel without nf_tables for IP (user-mode-linux) is watched by plain means: legacy
// rules of our own at the heads of chains, which are counted out of the trace, and raw
// sockets, which get a copy of each packet that is delivered.

// plainProbe is one of our rules, with the chain at whose head it stands.
type plainProbe struct{ table, chain, target string }

// plainProbes lists our rules. INPUT's is for protocols that nobody handles: a raw socket
// for them would keep the kernel from answering that the protocol is unreachable.
func plainProbes() []plainProbe {
	return []plainProbe{
		{"raw", "PREROUTING", "-j TRACE"},
		{"raw", "OUTPUT", fmt.Sprintf("-j NFLOG --nflog-group %d", groupSent)},
		{"raw", "OUTPUT", "-j TRACE"},
		{"security", "INPUT", fmt.Sprintf("! -p tcp -j NFLOG --nflog-group %d", groupInput)},
	}
}

const probeComment = "-m comment --comment " + probeTable

// plainCounts says how many of our rules each chain begins with.
func plainCounts() map[chainKey]int {
	count := map[chainKey]int{}
	for _, p := range plainProbes() {
		count[chainKey{"ip", p.table, p.chain}]++
	}
	return count
}

// plainTables are the tables of our rules, each with them as iptables-restore reads
// them; verb is "-A" or "-I".
func plainTables(verb string) map[string]string {
	all := map[string]string{}
	count := map[chainKey]int{}
	for _, p := range plainProbes() {
		line := verb + " " + p.chain
		if key := (chainKey{"ip", p.table, p.chain}); verb == "-I" {
			count[key]++
			line += " " + strconv.Itoa(count[key])
		}
		all[p.table] += line + " " + probeComment + " " + p.target + "\n"
	}
	return all
}

// withPlainProbes puts our rules before all others of printed text.
func withPlainProbes(text string) string {
	var b strings.Builder
	left := plainTables("-A")
	rules := ""
	for line := range strings.Lines(text) {
		word := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(word, "*"):
			rules = left[word[1:]]
			delete(left, word[1:])
		case word == "COMMIT", strings.HasPrefix(word, "-A"), strings.HasPrefix(word, "["):
			b.WriteString(rules)
			rules = ""
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	b.WriteString(sections(left))
	return b.String()
}

// sections are whole tables for iptables-restore.
func sections(tables map[string]string) string {
	text := ""
	for _, table := range []string{"raw", "security"} {
		if rules, ok := tables[table]; ok {
			text += "*" + table + "\n" + rules + "COMMIT\n"
		}
	}
	return text
}

// withoutPlainProbes takes our rules off what iptables-save prints, and tables that
// only they made.
func withoutPlainProbes(text string, has func(table string) bool) string {
	var b strings.Builder
	keep := true
	for line := range strings.Lines(text) {
		if table, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
			keep = has(table)
		}
		if keep && !strings.Contains(line, probeComment) {
			b.WriteString(line)
		}
		keep = keep || strings.TrimSpace(line) == "COMMIT"
	}
	return b.String()
}

// withoutOurs takes what is ours off a file that a tool printed.
func (h *host) withoutOurs(file, text string) string {
	switch {
	case h.plain && file == "iptables-save":
		return withoutPlainProbes(text, h.hasTable)
	case h.plain && file == "sockets":
		return withoutInputs(text)
	}
	return text
}

// withoutInputs takes our raw sockets off what ss prints: a line each, and one with a tab.
func withoutInputs(text string) string {
	var b strings.Builder
	ours := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "\t") {
			ours = strings.Contains(line, fmt.Sprintf("fwmark:%#x", inputMark))
		}
		if !ours {
			b.WriteString(line)
		}
	}
	return b.String()
}

// hasTable tells whether the snapshot's rules have a table.
func (h *host) hasTable(table string) bool { return h.tables[table] }

// tablesOf are the tables of iptables-save text.
func tablesOf(text string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(text) {
		if table, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
			all[table] = true
		}
	}
	return all
}

// loadPlain restores the rules together with ours.
func (h *host) loadPlain(ctx context.Context, text string) error {
	if h.backend == NFT {
		return &UnsupportedError{h.Name, "iptables-save", "rules of nf_tables",
			"this kernel has no nf_tables for IP"}
	}
	h.tables = tablesOf(text)
	const program = "iptables-legacy-restore"
	if printed(text) {
		return h.restore(ctx, withPlainProbes(text), program)
	}
	if err := h.restore(ctx, text, program); err != nil {
		return err
	}
	_, err := tool(ctx, sections(plainTables("-I")), program, "--noflush")
	return err
}

// inputMark is on our raw sockets, so that they are told from a snapshot's.
const inputMark = 0x68706b

// inputs are raw sockets of one namespace, one for each protocol that the kernel
// handles. A raw socket of such a protocol changes nothing for anybody else
// (net/ipv4/ip_input.c, ip_protocol_deliver_rcu).
type inputs struct {
	fds       []int
	protocols []int
	snmp      *os.File
	// Of the counters Ip: InUnknownProtos and Icmp: InMsgs, as far as packets account for
	// them.
	noProto, icmp uint64
}

// handledProtocols are those that this kernel hands to somebody, by its modules.
func handledProtocols() ([]int, error) {
	all := []int{unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP,
		unix.IPPROTO_UDPLITE}
	text, err := os.ReadFile("/proc/modules")
	if err != nil {
		return nil, err
	}
	byModule := map[string][]int{"tunnel4": {unix.IPPROTO_IPIP, unix.IPPROTO_IPV6},
		"gre": {unix.IPPROTO_GRE}, "esp4": {unix.IPPROTO_ESP}, "ah4": {unix.IPPROTO_AH},
		"ipcomp": {unix.IPPROTO_COMP}, "sctp": {unix.IPPROTO_SCTP},
		"dccp_ipv4": {unix.IPPROTO_DCCP}}
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, " ")
		all = append(all, byModule[name]...)
	}
	return all, nil
}

func openInputs() (*inputs, error) {
	in := &inputs{}
	var err error
	if in.protocols, err = handledProtocols(); err != nil {
		return nil, err
	}
	if in.snmp, err = os.Open("/proc/thread-self/net/snmp"); err != nil {
		return nil, err
	}
	in.noProto, err = in.counter("Ip:", "InUnknownProtos")
	if err == nil {
		in.icmp, err = in.counter("Icmp:", "InMsgs")
	}
	if err != nil {
		in.close()
		return nil, err
	}
	for _, proto := range in.protocols {
		fd, err := openInput(proto)
		if err != nil {
			in.close()
			return nil, fmt.Errorf("raw socket of protocol %d: %w", proto, err)
		}
		in.fds = append(in.fds, fd)
	}
	return in, nil
}

// soRcvmark is SO_RCVMARK of asm-generic/socket.h.
const soRcvmark = 75

func openInput(proto int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_IP, unix.IP_PKTINFO, 1},
		{unix.SOL_SOCKET, soRcvmark, 1},
		{unix.SOL_SOCKET, unix.SO_MARK, inputMark},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// collect hands on what the sockets got: each packet, the device that its route names,
// and its mark.
func (in *inputs) collect(waits []unix.PollFd, buf []byte, f func(Hex, int, uint32)) error {
	for i, fd := range in.fds {
		if waits[i].Revents == 0 {
			continue
		}
		if err := collectInput(fd, buf, f); err != nil {
			return fmt.Errorf("raw socket of protocol %d: %w", in.protocols[i], err)
		}
	}
	return nil
}

func collectInput(fd int, buf []byte, f func(Hex, int, uint32)) error {
	var oob [256]byte
	for {
		n, m, _, _, err := unix.Recvmsg(fd, buf, oob[:], 0)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
			continue
		default:
			return err
		}
		dev, mark := control(oob[:m])
		f(append(Hex(nil), buf[:n]...), dev, mark)
	}
}

// control reads device and mark of a received packet's ancillary data.
func control(oob []byte) (dev int, mark uint32) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0
	}
	for _, m := range all {
		switch {
		case len(m.Data) < 4:
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO:
			dev = int(binary.NativeEndian.Uint32(m.Data))
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_MARK:
			mark = binary.NativeEndian.Uint32(m.Data)
		}
	}
	return dev, mark
}

// unseen tells whether a packet that passed INPUT went where no raw socket sees it, by the
// kernel's counters: to no protocol, or to ICMP without a whole header, which the filter of
// a raw socket takes for no packet (net/ipv4/raw.c, icmp_filter).
func (in *inputs) unseen(packet []byte) bool {
	const header = 8
	switch {
	case in == nil || len(packet) < 20:
		return false
	case packet[9] == unix.IPPROTO_ICMP:
		short := len(packet) < int(packet[0]&0xf)*4+header
		return in.accounts(&in.icmp, "Icmp:", "InMsgs") && short
	case slices.Contains(in.protocols, int(packet[9])):
		return false
	}
	return in.accounts(&in.noProto, "Ip:", "InUnknownProtos")
}

// accounts takes one packet off what a counter grew by since it was last asked; it is false
// where that is nothing.
func (in *inputs) accounts(seen *uint64, table, name string) bool {
	now, err := in.counter(table, name)
	if err != nil || now == *seen {
		return false
	}
	*seen++
	return true
}

// counter reads one of the namespace's counters in /proc/net/snmp.
func (in *inputs) counter(table, name string) (uint64, error) {
	var buf [4096]byte
	n, err := in.snmp.ReadAt(buf[:], 0)
	if n == 0 {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(buf[:n])) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != table {
			continue
		}
		if i := slices.Index(names, name); i >= 0 && i < len(words) {
			return strconv.ParseUint(words[i], 10, 64)
		}
		names = words
	}
	return 0, fmt.Errorf("snmp does not count %s %s", table, name)
}

func (in *inputs) close() {
	for _, fd := range in.fds {
		unix.Close(fd)
	}
	in.snmp.Close()
}
