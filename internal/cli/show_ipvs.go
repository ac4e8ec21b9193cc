package cli

import (
	"fmt"
	"io"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/report"
)

// showServices prints the load balancer's services as `ipvsadm -L -n --nosort` does, and what
// keeps them from working.
func (n *node) showServices(w io.Writer) {
	c := n.Config()
	if len(c.IPVS.Services) == 0 {
		return
	}
	fmt.Fprintf(w, "services     %d of IPVS, with %d connections and templates\n",
		len(c.IPVS.Services), len(c.IPVS.Conns))
	text := []byte(ipvs.ListHeading)
	for i := range c.IPVS.Services {
		text = c.IPVS.Services[i].AppendList(text)
	}
	_, _ = w.Write(text)
	for _, problem := range report.ServiceProblems(n.Host) {
		fmt.Fprintf(w, "problem      %s\n", problem)
	}
}
