package demos_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// TestEngine asks the engine what TestKernel asks the kernel.
func TestEngine(t *testing.T) {
	compare(t, func(t *testing.T, name string, files map[string]string) string {
		t.Helper()
		d := &snapshot.Dir{Name: name, Files: map[string][]byte{}}
		for n, text := range plain(t, files) {
			d.Files[n] = []byte(text)
		}
		cfg, err := d.Config(snapshot.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h, _, err := walk.Build(cfg)
		if err != nil {
			t.Fatal(err)
		}
		dev, b := frame(t, files)
		w := h.NewWorld(h.Memory().Fork())
		w.Dice = &world.Dice{}
		k := h.NewWalk(w, &trace.Trace{})
		in := h.Links.ByName(dev)
		if in == nil {
			t.Fatalf("there is no interface %q", dev)
		}
		h.Receive(k, in.Index, b)
		if k.Err != nil {
			t.Fatal(k.Err)
		}
		return walkText(h, k.Trace)
	})
}

func walkText(h *walk.Host, tr *trace.Trace) string {
	last := ""
	var frames []string
	for _, e := range tr.Events {
		switch e := e.(type) {
		case *trace.Rule:
			p := h.Program(e.Ref.Table)
			last = fmt.Sprintf("%s %s %d", p.Name, p.ChainName(e.Ref.Chain), e.Ref.Rule)
		case *trace.Transmit:
			frames = append(frames, frameText(h.Links.ByIndex(e.Dev).Name, e.Frame))
		}
	}
	return strings.Join(append([]string{last}, frames...), "; ")
}
