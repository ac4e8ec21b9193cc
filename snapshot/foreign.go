package snapshot

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/walk"
)

// foreign lists what stands on a packet's way and is not run here, as the files
// under foreign/ tell.
func (d *Dir) foreign() ([]walk.Foreign, error) {
	var out []walk.Foreign
	for _, name := range d.sorted("foreign/") {
		found, err := foreignFile(d.file(name), strings.TrimPrefix(name, "foreign/"), d.Files[name])
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// sorted are the names of files in a directory of the snapshot.
func (d *Dir) sorted(prefix string) []string {
	var out []string
	for name := range d.Files {
		if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, ".err") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func foreignFile(file, base string, data []byte) ([]walk.Foreign, error) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, nil
	case strings.Contains(base, "filter"):
		return tcObjects(file, data, "tc filter", func(string) bool { return true })
	case strings.Contains(base, "qdisc"):
		return tcObjects(file, data, "tc qdisc", func(kind string) bool { return kind == "ingress" })
	case strings.Contains(base, "bpf"):
		return bpfNet(file, data)
	case strings.Contains(base, "xfrm"):
		return []walk.Foreign{{What: "IPsec: " + firstWords(data)}}, nil
	}
	return nil, place{file, 1}.unsupported(base, "it is not known what this file tells")
}

func firstWords(data []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte{'\n'})
	return string(line[:min(len(line), 60)])
}

// tcObjects reads `tc -j qdisc` and `tc -j filter`.
func tcObjects(file string, data []byte, what string, counts func(kind string) bool) (
	[]walk.Foreign, error) {
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, err
	}
	var out []walk.Foreign
	for i := range objs {
		kind, dev := objs[i].str("kind"), objs[i].str("dev")
		if !counts(kind) {
			continue
		}
		f := walk.Foreign{What: what + " " + kind, Hook: "ingress"}
		if dev != "" {
			f.What += " on " + dev
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out, nil
}

// bpfNet reads `bpftool -j net`: XDP, tc and netfilter programs.
func bpfNet(file string, data []byte) ([]walk.Foreign, error) {
	var doc []map[string][]map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, place{file, 1}.errorf("%w", err)
	}
	var out []walk.Foreign
	for _, o := range doc {
		for _, kind := range []string{"xdp", "tc", "flow_dissector", "netfilter"} {
			for _, prog := range o[kind] {
				ob := object{place{file, 1}, prog}
				out = append(out, walk.Foreign{What: strings.TrimSpace("BPF program (" + kind + ") " +
					ob.str("devname") + " " + ob.str("name")), Hook: "ingress"})
			}
		}
	}
	return out, nil
}
