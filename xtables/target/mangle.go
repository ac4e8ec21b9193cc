package target

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// checksum fills in a transport checksum that is left to the hardware. A frame in
// a snapshot's world has its checksums, so nothing is left to do.
//
// Kernel: net/netfilter/xt_CHECKSUM.c, checksum_tg.
type checksum struct {
	nothing
	Fill bool
}

func newChecksum() xtables.Target { return &checksum{} }

// Options implements xtables.Target.
func (t *checksum) Options(s *xtables.Spec) {
	s.Flag("checksum-fill", &t.Fill)
	s.ExactlyOne("checksum-fill")
}

// class is major:minor of --set-class, both in hexadecimal.
type class struct {
	n     uint32
	given bool
}

// Parse implements xtables.Value.
func (c *class) Parse(a *xtables.Args) error {
	hi, lo, ok := strings.Cut(a.Word, ":")
	x, err1 := xtables.ParseUint("0x"+hi, 0xffff)
	y, err2 := xtables.ParseUint("0x"+lo, 0xffff)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not major:minor in hexadecimal", a.Word)
	}
	c.n, c.given = uint32(x<<16|y), true
	return nil
}

// Append implements xtables.Value.
func (c *class) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "%04x:%04x", c.n>>16, c.n&0xffff)
}

// Unset implements xtables.Value.
func (c *class) Unset() bool { return !c.given }

// classify sets skb->priority.
//
// Kernel: net/netfilter/xt_CLASSIFY.c, classify_tg.
type classify struct{ Class class }

func newClassify() xtables.Target { return &classify{} }

// Options implements xtables.Target.
func (t *classify) Options(s *xtables.Spec) { s.Var("set-class", &t.Class).Required() }

// Effects implements xtables.Target.
func (t *classify) Effects() []field.Effect {
	return []field.Effect{{Op: field.SetTo, ID: field.Priority, Val: field.U(uint64(t.Class.n))}}
}

// Do implements xtables.Target.
func (t *classify) Do(e *xtables.Env) trace.Verdict {
	e.Packet.Priority = t.Class.n
	return trace.Continue
}

// tos sets the type of service octet under a mask.
//
// Kernel: net/netfilter/xt_DSCP.c, tos_tg.
type tos struct{ X xmark }

func newTOS() xtables.Target { return &tos{} }

var tosWords = map[string]uint32{"Minimize-Delay": 0x10, "Maximize-Throughput": 0x08,
	"Maximize-Reliability": 0x04, "Minimize-Cost": 0x02, "Normal-Service": 0}

// tosForm is an argument of TOS's options.
type tosForm struct{ form }

// Parse implements xtables.Value.
func (f *tosForm) Parse(a *xtables.Args) error {
	if v, ok := tosWords[a.Word]; ok && f.mask {
		*f.x = xmark{Value: v, Mask: 0x3f, given: true}
		return nil
	}
	v, mask, has := strings.Cut(a.Word, "/")
	n, err := xtables.ParseUint(v, 255)
	m := uint64(255)
	if err == nil && has {
		m, err = xtables.ParseUint(mask, 255)
	}
	if err != nil || has && !f.mask {
		return fmt.Errorf("%q is not a TOS value[/mask]", a.Word)
	}
	*f.x = f.make(uint32(n), uint32(m))
	f.x.given = true
	return nil
}

// Append implements xtables.Value.
func (f *tosForm) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "0x%02x/0x%02x", f.x.Value, f.x.Mask)
}

// Options implements xtables.Target.
func (t *tos) Options(s *xtables.Spec) {
	add := func(name string, mask bool, f func(v, m uint32) xmark) *xtables.Option {
		return s.Var(name, &tosForm{form{&t.X, f, mask}})
	}
	add("set-tos", true, func(v, m uint32) xmark { return xmark{Value: v, Mask: m} })
	add("and-tos", false, func(v, _ uint32) xmark { return xmark{Mask: ^v & 0xff} }).Hidden()
	add("or-tos", false, func(v, _ uint32) xmark { return xmark{Value: v, Mask: v} }).Hidden()
	add("xor-tos", false, func(v, _ uint32) xmark { return xmark{Value: v} }).Hidden()
	s.ExactlyOne("set-tos", "and-tos", "or-tos", "xor-tos")
}

// Effects implements xtables.Target.
func (t *tos) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.TOS, Val: field.U(uint64(t.X.Value)),
		Mask: field.U(uint64(t.X.Mask))}}
}

// Do implements xtables.Target.
func (t *tos) Do(e *xtables.Env) trace.Verdict {
	old := e.Packet.TOS()
	e.Deps().Note(field.TOS, field.U(uint64(^t.X.Mask)&0xff))
	if v := old&^uint8(t.X.Mask) ^ uint8(t.X.Value); v != old {
		e.Packet.SetTOS(v)
	}
	return trace.Continue
}

// ttl sets, raises or lowers the time to live.
//
// Kernel: net/netfilter/xt_HL.c, ttl_tg.
type ttl struct {
	Set, Dec, Inc xtables.Uint
	mode          string
}

func newTTL() xtables.Target {
	u := xtables.Uint{Max: 255}
	return &ttl{Set: u, Dec: u, Inc: u}
}

// Options implements xtables.Target.
func (t *ttl) Options(s *xtables.Spec) {
	for _, o := range []struct {
		name string
		u    *xtables.Uint
	}{{"ttl-set", &t.Set}, {"ttl-dec", &t.Dec}, {"ttl-inc", &t.Inc}} {
		opt := s.Var(o.name, o.u)
		if t.mode == o.name {
			opt.Always()
		}
	}
	s.ExactlyOne("ttl-set", "ttl-dec", "ttl-inc")
	s.Check(t.check)
}

func (t *ttl) check(c *xtables.Context) error {
	for _, name := range []string{"ttl-set", "ttl-dec", "ttl-inc"} {
		if c.Spec.Given(name) {
			t.mode = name
		}
	}
	if t.mode != "ttl-set" && t.Dec.N+t.Inc.N == 0 {
		return fmt.Errorf("--%s 0 does nothing", t.mode)
	}
	return nil
}

// Effects implements xtables.Target.
func (t *ttl) Effects() []field.Effect {
	if t.mode == "ttl-set" {
		return []field.Effect{{Op: field.SetTo, ID: field.TTL, Val: field.U(t.Set.N)}}
	}
	return []field.Effect{{Op: field.Forget, ID: field.TTL}}
}

// Do implements xtables.Target.
func (t *ttl) Do(e *xtables.Env) trace.Verdict {
	old := int(e.Packet.TTL())
	now := int(t.Set.N)
	switch t.mode {
	case "ttl-dec":
		now = max(old-int(t.Dec.N), 0)
	case "ttl-inc":
		now = min(old+int(t.Inc.N), 255)
	}
	if t.mode != "ttl-set" {
		e.Deps().Note(field.TTL, field.Ones(8))
	}
	if now != old {
		e.Packet.SetTTL(uint8(now))
	}
	return trace.Continue
}

// tcpmss sets TCP's MSS option, or clamps it to the path's.
//
// Kernel: net/netfilter/xt_TCPMSS.c, tcpmss_mangle_packet.
type tcpmss struct {
	MSS   xtables.Uint
	Clamp bool
	set   bool
}

func newTCPMSS() xtables.Target { return &tcpmss{MSS: xtables.Uint{Max: 65535}} }

// Options implements xtables.Target.
func (t *tcpmss) Options(s *xtables.Spec) {
	o := s.Var("set-mss", &t.MSS)
	if t.set {
		o.Always()
	}
	s.Flag("clamp-mss-to-pmtu", &t.Clamp)
	s.ExactlyOne("set-mss", "clamp-mss-to-pmtu")
	s.Check(func(c *xtables.Context) error {
		t.set = c.Spec.Given("set-mss")
		if c.Proto() != packet.TCP || !asksSYN(c) {
			return fmt.Errorf("needs -p tcp with a test for SYN (--syn)")
		}
		return nil
	})
}

// asksSYN tells whether the rule takes only segments with SYN, as the kernel demands.
//
// Kernel: net/netfilter/xt_TCPMSS.c, find_syn_match.
func asksSYN(c *xtables.Context) bool {
	text := string(xtables.AppendRule(nil, c.Family, c.Rule))
	_, flags, ok := strings.Cut(text, " --tcp-flags ")
	f := strings.Fields(flags)
	return ok && len(f) > 1 && strings.Contains(f[1], "SYN") && !strings.Contains(text, "! --tcp-flags")
}

// Effects implements xtables.Target.
func (t *tcpmss) Effects() []field.Effect {
	return []field.Effect{{Op: field.Forget, ID: field.TCPMSS}, {Op: field.Forget, ID: field.Len}}
}

// Do implements xtables.Target.
func (t *tcpmss) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	l4 := p.L4()
	if p.FragOff() != 0 {
		return trace.Continue
	}
	if len(l4) < 20 {
		return trace.DropIt
	}
	n := int(l4[12]>>4) * 4
	if n < 20 || n > len(l4) {
		return trace.DropIt
	}
	e.Deps().Note(field.TCPMSS, field.Ones(16))
	mss := uint16(t.MSS.N)
	if t.Clamp {
		mtu := min(e.MTU, e.ReverseMTU(p))
		if mtu <= 40 {
			return trace.DropIt
		}
		mss = uint16(mtu - 40)
	}
	if at := findMSS(l4[20:n]); at >= 0 {
		lowerMSS(l4, 20+at+2, mss)
		return trace.Continue
	}
	// Without the option the kernel adds one to a segment without payload.
	if len(l4) > n || n == 60 {
		return trace.Continue
	}
	addMSS(p, min(mss, 536))
	return trace.Continue
}

// findMSS is where the MSS option begins, -1 without one.
func findMSS(opts []byte) int {
	for i := 0; i+4 <= len(opts); {
		if opts[i] == 2 && opts[i+1] == 4 {
			return i
		}
		if opts[i] < 2 || opts[i+1] == 0 {
			i++
			continue
		}
		i += int(opts[i+1])
	}
	return -1
}

// lowerMSS writes a smaller value; a clamped one is never raised, nor is a set one.
func lowerMSS(l4 []byte, at int, mss uint16) {
	old := [2]byte{l4[at], l4[at+1]}
	if binary.BigEndian.Uint16(old[:]) <= mss {
		return
	}
	binary.BigEndian.PutUint16(l4[at:], mss)
	packet.Replace(l4[16:18], old[:], l4[at:at+2])
}

// addMSS puts the option behind the fixed header, and mends lengths and checksums.
func addMSS(p *packet.Packet, mss uint16) {
	ip := clone(p.IP())
	n := int(ip[0]&0xf) * 4
	out := append(ip[:n+20:n+20], 2, 4, byte(mss>>8), byte(mss))
	out = append(out, ip[n+20:]...)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	packet.FixIP4(out)
	l4 := out[n:]
	l4[12] += 1 << 4
	l4[16], l4[17] = 0, 0
	sum := packet.PseudoSum(p.Src(), p.Dst(), packet.TCP, len(l4))
	binary.BigEndian.PutUint16(l4[16:], packet.Fold(packet.Sum16(l4, sum)))
	p.SetIP(out)
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// tproxy hands a packet to a local socket without touching its bytes.
//
// Kernel: net/netfilter/xt_TPROXY.c, tproxy_tg4.
type tproxy struct {
	Port xtables.Uint
	IP   xtables.Host
	Mark xtables.Masked
}

func newTPROXY() xtables.Target { return &tproxy{Port: xtables.Uint{Max: 65535}} }

// Options implements xtables.Target.
func (t *tproxy) Options(s *xtables.Spec) {
	s.Var("on-port", &t.Port).Required()
	s.Var("on-ip", &t.IP)
	s.Var("tproxy-mark", &t.Mark)
	s.Check(func(c *xtables.Context) error {
		if p := c.Proto(); p != packet.TCP && p != packet.UDP {
			return fmt.Errorf("needs -p tcp or -p udp")
		}
		return nil
	})
}

// Effects implements xtables.Target.
func (t *tproxy) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.Mark, Val: field.U(uint64(t.Mark.Value)),
		Mask: field.U(uint64(t.Mark.Mask))}}
}

// Do implements xtables.Target.
func (t *tproxy) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	sport, dport, ok := p.Ports()
	if !ok {
		return trace.DropIt
	}
	s, found := e.Sockets.Transparent(e.World, p.Protocol(), p.Src(), sport, p.Dst(), dport, p.In)
	if !found || s.State != socket.Connected {
		addr := t.IP.Addr
		if addr.IsAny() {
			addr = e.FirstAddr(p.In, p.Dst())
		}
		port := uint16(t.Port.N)
		if port == 0 {
			port = dport
		}
		s, found = e.Sockets.Lookup(e.World, p.Protocol(), p.Src(), sport, addr, port, p.In)
	}
	if !found || !s.Transparent {
		return trace.DropIt
	}
	p.Mark = p.Mark&^t.Mark.Mask ^ t.Mark.Value
	p.Socket = s.ID
	return trace.Accept
}
