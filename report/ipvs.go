package report

import (
	"fmt"
	"net/netip"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/trace"
)

type (
	jsonIPVS struct {
		jsonHead
		Service    string `json:"service,omitempty"`
		Scheduler  string `json:"scheduler,omitempty"`
		Real       string `json:"real,omitempty"`
		Method     string `json:"method,omitempty"`
		Connection string `json:"connection,omitempty"`
		State      string `json:"state,omitempty"`
		New        bool   `json:"new,omitempty"`
		Answer     bool   `json:"answer,omitempty"`
	}
	jsonDecap struct {
		jsonHead
		Method string `json:"method"`
		Dev    string `json:"dev"`
	}
	jsonEncap struct {
		jsonHead
		Method string `json:"method"`
		From   string `json:"from"`
		To     string `json:"to"`
	}
)

func (n names) ipvsJSON(h jsonHead, e *trace.IPVS) any {
	h.Type = "ipvs"
	out := jsonIPVS{jsonHead: h, State: e.State, New: e.New, Answer: e.Back}
	if e.Service >= 0 {
		s := n.h.IPVS.Service(e.Service)
		out.Service, out.Scheduler = s.String(), s.Scheduler
	}
	if !e.Client.Addr.IsZero() {
		out.Method = ipvs.Method(e.Method).String()
		out.Connection = fmt.Sprintf("%s > %s", plainEnd(e.Client), plainEnd(e.Virtual))
	}
	if e.Index >= 0 {
		out.Real = plainEnd(e.Real)
	}
	return out
}

func plainEnd(e trace.Endpoint) string {
	return netip.AddrPortFrom(e.Addr.Netip(), e.Port).String()
}

// ipvs tells what the load balancer did.
func (t *teller) ipvs(e *trace.IPVS) {
	what := "connection"
	if e.Service >= 0 {
		s := t.n.h.IPVS.Service(e.Service)
		what = fmt.Sprintf("%s %s", s, s.Scheduler)
	}
	t.add("ipvs", what, "%s", ipvsWords(e))
}

func ipvsWords(e *trace.IPVS) string {
	method := ipvs.Method(e.Method)
	switch {
	case e.Client.Addr.IsZero():
		return "no real server takes it"
	case e.Back && method == ipvs.Masq:
		return fmt.Sprintf("answer of %s: its source becomes %s (%s)", plainEnd(e.Real),
			plainEnd(e.Virtual), e.State)
	case e.Back:
		return fmt.Sprintf("answer of %s (%s)", plainEnd(e.Virtual), e.State)
	case e.Index < 0:
		return "no real server: it goes on to where it was sent to"
	}
	how := map[ipvs.Method]string{ipvs.Masq: "by NAT, which rewrites the destination alone",
		ipvs.Direct: "as it is, to the server's MAC address", ipvs.Tunnel: "in a tunnel",
		ipvs.LocalNode: "on this host"}[method]
	kind := "known connection"
	if e.New {
		kind = "new connection"
	}
	return fmt.Sprintf("%s to %s %s (%s)", kind, plainEnd(e.Real), how, e.State)
}
