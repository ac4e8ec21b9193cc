package gen

import (
	"slices"
	"strings"
)

// NATForms are the forms of a NAT target in a rule's words, as "DNAT addr"; none for
// rules with another target.
func NATForms(words []string) []string {
	at := slices.Index(words, "-j")
	if at < 0 || at+1 >= len(words) || !slices.Contains(natNames(), words[at+1]) {
		return nil
	}
	name, words := words[at+1], words[at+2:]
	var out []string
	for i, w := range words {
		switch w {
		case "--to-destination", "--to-source":
			out = append(out, mappingForms(words[i+1])...)
		case "--to-ports":
			out = append(out, portForm(words[i+1]))
		case "--random", "--random-fully", "--persistent", "--to":
			out = append(out, w)
		}
	}
	if len(out) == 0 {
		out = []string{"plain"}
	}
	for i := range out {
		out[i] = name + " " + out[i]
	}
	return out
}

func natNames() []string {
	return []string{"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"}
}

// mappingForms are the forms of "A-B:P-Q".
func mappingForms(text string) []string {
	addrs, ports, ok := strings.Cut(text, ":")
	var out []string
	switch {
	case strings.Contains(addrs, "-"):
		out = append(out, "addr-addr")
	case addrs != "":
		out = append(out, "addr")
	}
	if ok {
		out = append(out, portForm(ports))
	}
	return out
}

func portForm(text string) string {
	if strings.Contains(text, "-") {
		return ":port-port"
	}
	return ":port"
}

// AllNATForms lists the forms that are drawn.
func AllNATForms() []string {
	var out []string
	for _, name := range []string{"DNAT", "SNAT"} {
		for _, form := range []string{"addr", "addr-addr", ":port", ":port-port", "--random",
			"--persistent"} {
			out = append(out, name+" "+form)
		}
	}
	return append(out, "SNAT --random-fully", "MASQUERADE plain", "MASQUERADE :port-port",
		"MASQUERADE --random", "MASQUERADE --random-fully", "REDIRECT plain", "REDIRECT :port",
		"REDIRECT :port-port", "REDIRECT --random", "NETMAP --to")
}

func natSubjects() []subject {
	var out []subject
	for _, form := range AllNATForms() {
		name, _, _ := strings.Cut(form, " ")
		i := slices.IndexFunc(natTargets(), func(t target) bool { return t.name == name })
		t := natTargets()[i]
		out = append(out, subject{form, weightOf(form), func(g *Gen) {
			dice := g.Random
			g.Random = dice || strings.Contains(form, "--random")
			g.featureTarget(t, form)
			g.Random = dice
		}})
	}
	return out
}
