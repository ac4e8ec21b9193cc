package report

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/trace"
)

// Lines tells each outcome in one line, as -q prints it. What packets on their way set off
// by ARP, and packets that went on as another one, are left out.
func (a *Answer) Lines() []byte {
	var out bytes.Buffer
	for i := range a.Branches {
		b := &a.Branches[i]
		for j := range b.Outcomes {
			o := &b.Outcomes[j]
			if o.Result == trace.Absorbed && o.SKB != 1 && passing(o.Why) || o.WentOn() {
				continue
			}
			if len(a.Branches) > 1 {
				fmt.Fprintf(&out, "%.3g%% ", 100*b.Prob)
			}
			fmt.Fprintf(&out, "%s %s\n", o.Result, o.line())
		}
	}
	return out.Bytes()
}

// passing tells whether a packet was ARP.
func passing(why trace.Why) bool { return why == "arp" || strings.HasPrefix(string(why), "arp-") }

// line says host, place and packet of an outcome.
func (o *Outcome) line() string {
	n := names{o.Host}
	text := o.Host.Name
	switch o.Result {
	case trace.Transmitted:
		return text + " " + n.dev(o.Dev) + " " + packetText(o.Frame, true, o.Free)
	case trace.Delivered:
		return text + " " + n.receiver(o) + " " + packetText(o.Frame, false, o.Free)
	}
	if o.Reason != "" {
		text += " " + string(o.Reason)
	}
	text += " " + string(o.Why)
	if o.By != nil && o.By.Table >= 0 {
		r := n.rule(*o.By)
		text += fmt.Sprintf(" %s %s %d", r.Table, r.Chain, r.Rule)
	}
	return text
}
