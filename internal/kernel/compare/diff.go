package compare

import (
	"fmt"
	"strings"
)

// Diff is the first place where engine and kernel part.
type Diff struct {
	// What is compared: rules, frames, deliveries, connections, in this order; or
	// engine, when only the kernel had an answer.
	What string `json:"what"`
	// Line counts from 1 in both lists below, where these have an order.
	Line int `json:"line,omitempty"`
	// Engine and Kernel are what each did there; empty for nothing.
	Engine string `json:"engine,omitempty"`
	Kernel string `json:"kernel,omitempty"`
	// Engines and Kernels are all that each did, one line a step, frame or entry.
	Engines []string `json:"engine_all,omitempty"`
	Kernels []string `json:"kernel_all,omitempty"`
}

// newDiff compares two lists line by line. Nil for no difference.
func newDiff(what string, got, want []string) *Diff {
	at := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return ""
	}
	for i := range max(len(got), len(want)) {
		if g, w := at(got, i), at(want, i); g != w {
			return &Diff{What: what, Line: i + 1, Engine: g, Kernel: w, Engines: got, Kernels: want}
		}
	}
	return nil
}

// String tells all of the difference, as a test prints it.
func (d *Diff) String() string {
	if d.What == "engine" {
		return "engine: " + d.Engine
	}
	all := func(list []string) string { return strings.Join(list, "\n    ") }
	return fmt.Sprintf("%s differ\n  first difference, line %d\n  engine %s\n  kernel %s\n"+
		"  engine, all:\n    %s\n  kernel, all:\n    %s\n", d.What, d.Line, orNothing(d.Engine),
		orNothing(d.Kernel), all(d.Engines), all(d.Kernels))
}

func orNothing(s string) string {
	if s == "" {
		return "(nothing)"
	}
	return s
}
