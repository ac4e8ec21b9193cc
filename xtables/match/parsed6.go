package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// The matches of this file look at IPv6 extension headers, which are read and
// printed and not looked into yet.

// headers is what they have in common.
type headers struct{ name string }

// Validate implements xtables.Validator.
func (h headers) Validate(*xtables.Build) error {
	return unsupported("-m "+h.name, "IPv6 extension headers are not looked into")
}

// Pred implements xtables.Match.
func (h headers) Pred(*xtables.Build) field.Pred { return field.Never() }

// ah6 matches the authentication header of IPv6.
//
// Kernel: net/ipv6/netfilter/ip6t_ah.c, ah_mt6.
type ah6 struct {
	headers
	SPI            xtables.Span
	Len            number
	Res            bool
	NotSPI, NotLen bool
}

func newAH6() xtables.Match {
	return &ah6{headers: headers{"ah"}, SPI: xtables.Span{Hide: true}}
}

// Options implements xtables.Match.
func (m *ah6) Options(s *xtables.Spec) {
	s.Var("ahspi", &m.SPI).Not(&m.NotSPI)
	s.Var("ahlen", &m.Len).Not(&m.NotLen)
	s.Flag("ahres", &m.Res)
}

// frag matches the fragment header.
//
// Kernel: net/ipv6/netfilter/ip6t_frag.c, frag_mt6.
type frag struct {
	headers
	ID                     xtables.Span
	Len                    number
	Res, First, More, Last bool
	NotID, NotLen          bool
}

func newFrag() xtables.Match {
	return &frag{headers: headers{"frag"}, ID: xtables.Span{Hide: true}}
}

// Options implements xtables.Match.
func (m *frag) Options(s *xtables.Spec) {
	s.Var("fragid", &m.ID).Not(&m.NotID)
	s.Var("fraglen", &m.Len).Not(&m.NotLen)
	s.Flag("fragres", &m.Res)
	s.Flag("fragfirst", &m.First)
	s.Flag("fragmore", &m.More)
	s.Flag("fraglast", &m.Last)
	s.OneOf("fragmore", "fraglast")
}

// hopOpts matches the hop-by-hop or the destination options.
//
// Kernel: net/ipv6/netfilter/ip6t_hbh.c, hbh_mt6.
type hopOpts struct {
	headers
	Len  number
	Opts optList
	Not  bool
}

func newHBH() xtables.Match { return &hopOpts{headers: headers{"hbh"}} }
func newDst() xtables.Match { return &hopOpts{headers: headers{"dst"}} }

// Options implements xtables.Match.
func (m *hopOpts) Options(s *xtables.Spec) {
	s.Var(m.name+"-len", &m.Len).Not(&m.Not)
	s.Var(m.name+"-opts", &m.Opts)
}

// optList is TYPE[:LENGTH],...
type optList []ipv6Opt

type ipv6Opt struct {
	typ, len uint8
	hasLen   bool
}

// optsMost is IP6T_OPTS_OPTSNR.
const optsMost = 16

// Parse implements xtables.Value.
func (v *optList) Parse(a *xtables.Args) error {
	for _, word := range strings.Split(a.Word, ",") {
		typ, length, has := strings.Cut(word, ":")
		n, err := xtables.ParseUint(typ, 255)
		if err != nil {
			return err
		}
		o := ipv6Opt{typ: uint8(n), hasLen: has}
		if has {
			if n, err = xtables.ParseUint(length, 255); err != nil {
				return err
			}
			o.len = uint8(n)
		}
		if len(*v) == optsMost {
			return fmt.Errorf("more than %d options", optsMost)
		}
		*v = append(*v, o)
	}
	return nil
}

// Append implements xtables.Value.
func (v *optList) Append(b []byte, _ trace.Family) []byte {
	for i, o := range *v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(o.typ), 10)
		if o.hasLen {
			b = strconv.AppendUint(append(b, ':'), uint64(o.len), 10)
		}
	}
	return b
}

// Unset implements xtables.Value.
func (v *optList) Unset() bool { return len(*v) == 0 }

// rt matches the routing header.
//
// Kernel: net/ipv6/netfilter/ip6t_rt.c, rt_mt6.
type rt struct {
	headers
	Type, Len               number
	Left                    xtables.Span
	Res                     bool
	Addrs                   addrList
	Loose                   bool
	NotType, NotLen, NotSeg bool
}

func newRT() xtables.Match {
	return &rt{headers: headers{"rt"}, Left: xtables.Span{Hide: true}}
}

// Options implements xtables.Match.
func (m *rt) Options(s *xtables.Spec) {
	s.Var("rt-type", &m.Type).Not(&m.NotType)
	s.Var("rt-segsleft", &m.Left).Not(&m.NotSeg)
	s.Var("rt-len", &m.Len).Not(&m.NotLen)
	s.Flag("rt-0-res", &m.Res).Needs("rt-type")
	s.Var("rt-0-addrs", &m.Addrs).Needs("rt-type")
	s.Flag("rt-0-not-strict", &m.Loose).Needs("rt-0-addrs")
	s.Check(func(*xtables.Context) error {
		if (m.Res || len(m.Addrs) > 0) && (m.Type.n != 0 || m.NotType) {
			return fmt.Errorf("--rt-0-res and --rt-0-addrs need --rt-type 0")
		}
		return nil
	})
}

// addrList is a list of IPv6 addresses.
type addrList []packet.Addr

// addrsMost is IP6T_RT_HOPS.
const addrsMost = 16

// Parse implements xtables.Value.
func (v *addrList) Parse(a *xtables.Args) error {
	for _, word := range strings.Split(a.Word, ",") {
		addr, err := xtables.ParseAddr(word, a.Family)
		if err != nil {
			return err
		}
		if len(*v) == addrsMost {
			return fmt.Errorf("more than %d addresses", addrsMost)
		}
		*v = append(*v, addr)
	}
	return nil
}

// Append implements xtables.Value.
func (v *addrList) Append(b []byte, f trace.Family) []byte {
	for i, a := range *v {
		if i > 0 {
			b = append(b, ',')
		}
		b = (&xtables.Host{Addr: a, Mask: xtables.MaskOf(128, f)}).Append(b, f)
	}
	return b
}

// Unset implements xtables.Value.
func (v *addrList) Unset() bool { return len(*v) == 0 }

// mh matches the type of a mobility header.
//
// Kernel: net/ipv6/netfilter/ip6t_mh.c, mh_mt6.
type mh struct {
	headers
	Type mhSpan
	Not  bool
}

func newMH() xtables.Match {
	return &mh{headers: headers{"mh"}, Type: mhSpan{xtables.Span{Max: 255, Hide: true, Strict: true}}}
}

// Options implements xtables.Match.
func (m *mh) Options(s *xtables.Spec) { s.Var("mh-type", &m.Type).Not(&m.Not) }

// mhSpan is a span whose ends may be names.
type mhSpan struct{ xtables.Span }

var mhNames = [...]struct {
	name string
	n    int
}{
	{"binding-refresh-request", 0}, {"brr", 0}, {"home-test-init", 1}, {"hoti", 1},
	{"careof-test-init", 2}, {"coti", 2}, {"home-test", 3}, {"hot", 3}, {"careof-test", 4},
	{"cot", 4}, {"binding-update", 5}, {"bu", 5}, {"binding-acknowledgement", 6}, {"ba", 6},
	{"binding-error", 7}, {"be", 7},
}

// Parse implements xtables.Value.
func (v *mhSpan) Parse(a *xtables.Args) error {
	words := strings.Split(a.Word, ":")
	for i, w := range words {
		for _, n := range mhNames {
			if n.name == lower(w) {
				words[i] = strconv.Itoa(n.n)
			}
		}
	}
	b := *a
	b.Word = strings.Join(words, ":")
	return v.Span.Parse(&b)
}

// ipv6header matches which extension headers a packet has.
//
// Kernel: net/ipv6/netfilter/ip6t_ipv6header.c, ipv6header_mt6.
type ipv6header struct {
	headers
	List xtables.Bits
	Soft bool
	Not  bool
}

var ipv6Headers = []xtables.Bit{
	{Word: "hop-by-hop", N: 1 << 7}, {Word: "ipv6-opts", N: 1 << 6},
	{Word: "ipv6-route", N: 1 << 5}, {Word: "ipv6-frag", N: 1 << 4},
	{Word: "ah", N: 1 << 3}, {Word: "esp", N: 1 << 2},
	{Word: "ipv6-nonxt", N: 1 << 1}, {Word: "protocol", N: 1 << 0},
}

// ipv6HeaderAliases are shorter words, and numbers.
var ipv6HeaderAliases = [...][2]string{
	{"hop", "hop-by-hop"}, {"0", "hop-by-hop"}, {"dst", "ipv6-opts"}, {"60", "ipv6-opts"},
	{"route", "ipv6-route"}, {"43", "ipv6-route"}, {"frag", "ipv6-frag"}, {"44", "ipv6-frag"},
	{"auth", "ah"}, {"51", "ah"}, {"50", "esp"}, {"none", "ipv6-nonxt"}, {"59", "ipv6-nonxt"},
	{"prot", "protocol"}, {"255", "protocol"},
}

func newIPv6Header() xtables.Match {
	return &ipv6header{headers: headers{"ipv6header"}, List: xtables.Bits{Words: ipv6Headers}}
}

// Options implements xtables.Match.
func (m *ipv6header) Options(s *xtables.Spec) {
	s.Var("header", &headerList{&m.List}).Not(&m.Not).Required()
	s.Flag("soft", &m.Soft)
}

// headerList reads the aliases of headers too.
type headerList struct{ *xtables.Bits }

// Parse implements xtables.Value.
func (v *headerList) Parse(a *xtables.Args) error {
	words := strings.Split(a.Word, ",")
	for i, w := range words {
		for _, alias := range ipv6HeaderAliases {
			if alias[0] == w {
				words[i] = alias[1]
			}
		}
	}
	b := *a
	b.Word = strings.Join(words, ",")
	return v.Bits.Parse(&b)
}

// eui64 matches addresses that the sender made of its MAC address.
//
// Kernel: net/ipv6/netfilter/ip6t_eui64.c, eui64_mt6.
type eui64 struct{ headers }

func newEUI64() xtables.Match { return &eui64{headers{"eui64"}} }

// Options implements xtables.Match.
func (m *eui64) Options(*xtables.Spec) {}

// srh matches the segment routing header.
//
// Kernel: net/ipv6/netfilter/ip6t_srh.c, srh1_mt6.
type srh struct {
	headers
	nums  [len(srhNames)]number
	nots  [len(srhNames)]bool
	addrs [len(srhAddrs)]xtables.Host
	notA  [len(srhAddrs)]bool
}

var (
	srhNames = [...]string{"next-hdr", "hdr-len-eq", "hdr-len-gt", "hdr-len-lt", "segs-left-eq",
		"segs-left-gt", "segs-left-lt", "last-entry-eq", "last-entry-gt", "last-entry-lt", "tag"}
	srhAddrs = [...]string{"psid", "nsid", "lsid"}
)

func newSRH() xtables.Match {
	m := &srh{headers: headers{"srh"}}
	for i := range m.nums {
		m.nums[i].Max = 255
	}
	m.nums[len(m.nums)-1].Max = 65535
	return m
}

// Options implements xtables.Match.
func (m *srh) Options(s *xtables.Spec) {
	for i, n := range srhNames {
		s.Var("srh-"+n, &m.nums[i]).Not(&m.nots[i])
	}
	for i, n := range srhAddrs {
		s.Var("srh-"+n, &sidPrefix{&m.addrs[i]}).Not(&m.notA[i])
	}
}

// sidPrefix is an address that is printed with its mask even where it is whole.
type sidPrefix struct{ *xtables.Host }

// Append implements xtables.Value.
func (v *sidPrefix) Append(b []byte, f trace.Family) []byte {
	b = v.Host.Append(b, f)
	if v.Mask == xtables.MaskOf(128, f) {
		b = append(b, "/128"...)
	}
	return b
}
