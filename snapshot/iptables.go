package snapshot

import (
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// Catalog is every match and target of a family.
func Catalog(f trace.Family) *xtables.Catalog {
	return xtables.NewCatalog(f, match.All(), target.All())
}

// saveFiles are the files that hold rules of a family, legacy first: that is the
// order in which equal priorities run. A nil backend goes by the header.
func saveFiles(f trace.Family) []saveFile {
	p := "iptables"
	if f == trace.IPv6 {
		p = "ip6tables"
	}
	legacy, nft := xtables.Legacy, xtables.NFT
	return []saveFile{{p + "-legacy-save", &legacy}, {p + "-save", nil}, {p + "-nft-save", &nft}}
}

type saveFile struct {
	name    string
	backend *xtables.Backend
}

// Rulesets reads the rules of a family. What it had to assume is in the second
// value.
func (d *Dir) Rulesets(f trace.Family) ([]*xtables.Ruleset, []string, error) {
	var out []*xtables.Ruleset
	var assumed []string
	for _, s := range saveFiles(f) {
		data, ok := d.Files[s.name]
		if !ok {
			continue
		}
		text := string(data)
		rs, err := xtables.Parse(text, d.parseOptions(s.name, f))
		if err != nil {
			return nil, nil, err
		}
		if s.backend != nil {
			rs.Backend, rs.Header = *s.backend, true
		}
		if len(rs.Tables) == 0 && s.backend != nil {
			continue // asked, and nothing loaded
		}
		if !rs.Header {
			assumed = append(assumed, fmt.Sprintf("%s has no header: legacy rules", s.name))
		}
		assumed = append(assumed, rs.Warnings...)
		assumed = append(assumed, d.saveNotes(s.name, text)...)
		out = append(out, rs)
	}
	if len(out) > 1 {
		assumed = append(assumed, "legacy and nft rules at one priority: legacy first")
	}
	return out, assumed, nil
}

func (d *Dir) parseOptions(name string, f trace.Family) xtables.ParseOptions {
	o := xtables.ParseOptions{File: d.file(name), Catalog: Catalog(f)}
	if d.Version != nil {
		o.Version, o.Force = *d.Version, true
	}
	return o
}

// ReadRules reads one file as rules, whatever its name and content say. The family
// is "ip" or "ip6"; empty goes by the file's header, and is ip without one.
func ReadRules(name string, r io.Reader, family string) (*Dir, error) {
	data, err := newCollector(name).read(r, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	kind := "iptables-save"
	if family == "ip6" || family == "" && sniff(data) == "ip6tables-save" {
		kind = "ip6tables-save"
	}
	return &Dir{Name: "host", Files: map[string][]byte{kind: data}, Single: name}, nil
}

// saveNotes are the comments in which iptables-nft-save says what it does not
// print.
func (d *Dir) saveNotes(name, text string) []string {
	var out []string
	_, legacy := d.Files[strings.Replace(name, "tables-save", "tables-legacy-save", 1)]
	for line := range comments(text) {
		switch {
		case strings.Contains(line, "legacy tables present") && !legacy:
			out = append(out, name+": legacy tables are loaded too, and not in the snapshot")
		case strings.Contains(line, "is incompatible, use 'nft' tool"),
			strings.Contains(line, "incompatible base-chains"):
			out = append(out, name+": "+line)
		}
	}
	return out
}

// comments are what stands behind "# " in the lines that begin so.
func comments(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for text != "" {
			if !strings.HasPrefix(text, "# ") {
				i := strings.Index(text, "\n# ")
				if i < 0 {
					return
				}
				text = text[i+1:]
			}
			line, rest, _ := strings.Cut(text[2:], "\n")
			if !yield(strings.TrimSpace(line)) {
				return
			}
			text = rest
		}
	}
}

// file is a file's name for errors: "web1/iptables-save".
func (d *Dir) file(name string) string {
	if d.Single != "" {
		return d.Single
	}
	return d.Name + "/" + name
}

// hookedOf tells which base chains nft has of the tables that iptables-nft made. It
// is nil where nft.json is not there, which is an assumption if rules need it.
func hookedOf(n *nftRules, rules []*xtables.Ruleset, c *walk.Config) {
	nft := false
	for _, rs := range rules {
		nft = nft || rs.Backend == xtables.NFT && len(rs.Tables) > 0
	}
	if n == nil {
		if nft {
			c.Assumed = append(c.Assumed,
				"no nft.json: every base chain that iptables-save prints is hooked")
		}
		return
	}
	c.Hooked = map[string]bool{}
	for i := range n.base {
		ch := &n.base[i]
		if ours(ch, rules) {
			c.Hooked[ch.Table+"/"+ch.Name] = true
			continue
		}
		if ch.onIPv4() {
			c.Foreign = append(c.Foreign, walk.Foreign{What: ch.what(), Hook: ch.hook()})
		}
	}
	for _, f := range n.flowtables {
		c.Foreign = append(c.Foreign, walk.Foreign{What: "nft flowtable " + f})
	}
}

// ours tells whether iptables-nft made a base chain: the save text has it.
func ours(ch *nftChain, rules []*xtables.Ruleset) bool {
	if ch.Family != "ip" || ch.Type == "" {
		return false
	}
	for _, rs := range rules {
		if rs.Backend != xtables.NFT {
			continue
		}
		if t := rs.Table(ch.Table); t != nil {
			c := t.Chain(ch.Name)
			return c != nil && c.Builtin
		}
	}
	return false
}
