package compare

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
)

// corpusRules are the IPv4 rulesets of the corpus that load.
func corpusRules(t *testing.T) []Ruleset {
	t.Helper()
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		t.Skip("SKIP: HOOKPATH_CORPUS is not set: nobody's rules were asked")
	}
	f, err := os.Open(filepath.Join(dir, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []Ruleset
	for _, row := range rows {
		if len(row) < 10 || !strings.HasPrefix(row[0], "rulesets/") ||
			row[1] != "iptables-save" || !strings.HasPrefix(row[9], "ok") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(row[0])))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []kernel.Backend{kernel.Legacy, kernel.NFT} {
			out = append(out, Ruleset{row[0] + " " + b.String(), string(text), b})
		}
	}
	return out
}

// Packets of one ruleset: in a short run of some rulesets, and in soak of all.
const (
	shortPackets  = 40
	shortRulesets = 16
	soakPackets   = 200
)

// TestCorpus holds the engine against the kernel with other people's rules and packets
// drawn from them. HOOKPATH_SEED repeats a run, HOOKPATH_RULES picks rulesets by a part
// of their name. As in TestAgreement, soak fails for each disagreement.
func TestCorpus(t *testing.T) {
	needRoot(t)
	all := corpusRules(t)
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	fmt.Printf("HOOKPATH_SEED=%d\n", seed)
	tally := Tally{Keep: os.Getenv("HOOKPATH_KEEP")}
	packets, only := shortPackets, os.Getenv("HOOKPATH_RULES")
	say := t.Errorf
	if os.Getenv("HOOKPATH_SOAK") != "" || only != "" {
		packets = soakPackets
	} else {
		say = t.Logf
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:shortRulesets]
	}
	var total Reach
	for _, r := range all {
		if !strings.Contains(r.Name, only) {
			continue
		}
		before, told := tally.Packets, len(tally.Diffs)
		reach, err := tally.Rules(t.Context(), seed, r, packets)
		if err != nil {
			say("%s: %v", r.Name, err)
			continue
		}
		for _, d := range tally.Diffs[told:] {
			say("%s: %s", r.Name, d)
		}
		t.Logf("%-60s %4d packets, met %d of %d rules", r.Name, tally.Packets-before, reach.Met,
			reach.Rules)
		total.Met, total.Rules = total.Met+reach.Met, total.Rules+reach.Rules
	}
	for what, n := range tally.Unsupported {
		t.Logf("unsupported %d times: %s", n, what)
	}
	t.Logf("%d rulesets, met %d of %d rules", tally.Scenarios, total.Met, total.Rules)
	t.Logf("%d scenarios, %d packets, %d packets agreed with the kernel", tally.Scenarios,
		tally.Packets, tally.Agreed)
	bound(t, &tally, spare)
}
