package demos_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
)

// TestKernel asks this machine's kernel where the packet of each demo gets to, and
// whether the remedy helps.
func TestKernel(t *testing.T) {
	needRoot(t)
	compare(t, func(t *testing.T, name string, files map[string]string) string {
		t.Helper()
		host := kernel.Host{Name: name, Files: plain(t, files)}
		r, err := kernel.Open(t.Context(), kernel.Scenario{Hosts: []kernel.Host{host}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		dev, b := frame(t, files)
		a, err := r.Ask(kernel.Question{In: dev, Frame: b})
		if err != nil || a.Err != "" {
			t.Fatal(err, a.Err)
		}
		return answerText(&a)
	})
}

func answerText(a *kernel.Answer) string {
	var out []string
	for i := len(a.Steps) - 1; i >= 0 && len(out) == 0; i-- {
		if s := a.Steps[i]; s.Kind == "rule" {
			out = append(out, fmt.Sprintf("%s %s %d", s.Table, s.Chain, s.N))
		}
	}
	for _, f := range a.Out {
		out = append(out, frameText(f.Dev, f.Bytes))
	}
	return strings.Join(out, "; ")
}

func needRoot(t *testing.T) {
	t.Helper()
	_, err := os.Stat("/dev/net/tun")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root and /dev/net/tun")
	}
	t.Skip("SKIP: needs root and /dev/net/tun")
}

// plain makes files that can be laid out anywhere: tables by number, since their names
// are this machine's affair, and interfaces in place of bridges and their ports, so
// that what is sent to a bridge leaves there.
func plain(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, text := range files {
		out[name] = text
	}
	for line := range strings.Lines(files["rt_tables"]) {
		f := strings.Fields(line)
		if len(f) != 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if n := f[1]; n != "local" && n != "main" && n != "default" {
			re := regexp.MustCompile(`(table |"table":")` + regexp.QuoteMeta(n) + `\b`)
			out["ip-route"] = re.ReplaceAllString(out["ip-route"], "${1}"+f[0])
			out["ip-rule.json"] = re.ReplaceAllString(out["ip-rule.json"], "${1}"+f[0])
		}
	}
	var links []map[string]any
	if err := json.Unmarshal([]byte(files["ip-link.json"]), &links); err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		delete(l, "linkinfo")
		delete(l, "master")
	}
	b, err := json.Marshal(links)
	if err != nil {
		t.Fatal(err)
	}
	out["ip-link.json"] = string(b)
	return out
}
