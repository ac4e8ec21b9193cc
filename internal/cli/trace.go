package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/report"
)

// traceFlags are the flags of trace.
type traceFlags struct {
	snapshots []string
	demo      string
	host      string
	in        string
	frame     string
	pcap      string
	packets   string
	packet    int
	format    string
	json      bool
	quiet     bool
	allRules  bool
	noReply   bool
	colour    string
	with      []string
	against   string
	log       *report.Log
}

func newTrace(e *Env) *cobra.Command {
	var f traceFlags
	c := &cobra.Command{
		Use:   "trace [-s SNAPSHOT]... [PACKET | --frame HEX | --pcap FILE | --packets FILE]",
		Short: "Walk a packet and say where it goes and why",
		Long: `trace walks a packet through a host. PACKET is a sentence:

  tcp 10.0.0.5:40000 to 10.96.0.1:443 in eth0
  udp 10.0.0.5 to 8.8.8.8:53 out             (sent by a program on the host)
  icmp echo 10.0.0.5 to 10.0.0.1 ttl 1 in eth0

Further words: flags S, mark 0x4000, ttl N, tos N, len N, uid N, gid N, mac AA to BB,
vlan N, ct established, ct related; where a snapshot has no routes: out DEV, forward, local.
A quoted > is read as to. What is left out is
chosen as a client would choose it, and printed as assumed. Where there are several hosts, the one
that owns the source is asked, or the one before a prompt: client# tcp 10.0.0.5 to 10.0.0.1:80.
A lab (see hookpath lab) may have a PACKET of its own.

--pcap FILE walks a capture (docs/captures.md) in order, each packet with what the ones before left
behind, and says what becomes of each conversation:

  hookpath trace -s node1 --pcap eth0.pcap --in eth0
  hookpath trace -s node1 --pcap eth0.pcap --in eth0 --packet 12

Exit status: 0 delivered or forwarded, 1 dropped or rejected, 3 it depends, 2 error.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error { return f.run(e, args) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.snapshots, "snapshot", "s", nil,
		"directory, archive or file to read (repeatable); without it, this machine")
	fl.StringVar(&f.demo, "demo", "", "an embedded host; without PACKET, the packet that shows it")
	fl.StringArrayVar(&f.with, "with", nil, "walk a host that this command has changed: ip rule, "+
		"ip route, ip addr, sysctl -w, iptables, conntrack -D (repeatable; HOST# COMMAND)")
	fl.StringVar(&f.against, "against", "",
		"a kernel's TRACE log, or nft monitor trace: say where kernel and walk part")
	fl.StringVar(&f.host, "host", "", "host of the question, where there are several")
	fl.StringVar(&f.in, "in", "", "interface that --frame or --pcap arrive on")
	fl.StringVar(&f.frame, "frame", "", "an Ethernet frame in hex")
	fl.StringVar(&f.pcap, "pcap", "", "walk a capture in order and say what becomes of each conversation")
	fl.IntVar(&f.packet, "packet", 0, "tell the whole way of this packet of --pcap, by its number")
	fl.StringVar(&f.packets, "packets", "", "JSON lines, one question each; - is standard input")
	f.shape(fl)
	return c
}

// shape adds the flags that say how an answer is told.
func (f *traceFlags) shape(fl *pflag.FlagSet) {
	fl.StringVar(&f.format, "format", "text", "text, json or ktrace")
	fl.BoolVar(&f.json, "json", false, "the same as --format json")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "one line an outcome")
	fl.BoolVar(&f.allRules, "all-rules", false, "show rules that did not match, and why")
	fl.BoolVar(&f.noReply, "one-way", false, "do not walk the answer back")
	fl.StringVar(&f.colour, "colour", "auto", "auto, always or never")
}

func (f *traceFlags) run(e *Env, args []string) error {
	if f.json {
		f.format = "json"
	}
	switch f.format {
	case "text", "json", "ktrace":
	default:
		return fmt.Errorf("--format: %q is not text, json or ktrace", f.format)
	}
	if f.demo != "" {
		var err error
		if args, err = f.fromDemo(e, args); err != nil {
			return err
		}
	}
	if err := f.oneQuestion(args); err != nil {
		return err
	}
	l, err := loadHosts(e, f.snapshots)
	if err != nil {
		return err
	}
	if args, err = f.orLabs(e, l, args); err != nil {
		return err
	}
	if err := f.readLog(); err != nil {
		return err
	}
	if err := l.with(f.with, f.host); err != nil {
		return err
	}
	if f.packets != "" {
		return packets(e, l, f.packets)
	}
	l.infer = true
	if f.pcap != "" {
		return f.capture(e, l)
	}
	qs, err := f.questions(l, args)
	if err != nil {
		return err
	}
	return f.answerAll(e, l, qs)
}

// fromDemo adds the snapshot of --demo, and its packet where none is given. A lab has one of
// its own.
func (f *traceFlags) fromDemo(e *Env, args []string) ([]string, error) {
	f.snapshots = append(f.snapshots, demoPrefix+f.demo)
	if slices.Contains(demos.Labs(), f.demo) {
		return args, nil
	}
	d, err := readDemo(f.demo)
	if err != nil || len(args) > 0 || f.frame != "" || f.pcap != "" || f.packets != "" {
		return args, err
	}
	fmt.Fprintf(e.Out, "%s\n\n", d.Title)
	return []string{d.Packet}, nil
}

// readLog reads what a kernel traced, to hold the walk against it.
func (f *traceFlags) readLog() error {
	if f.against == "" {
		return nil
	}
	if f.format != "text" || f.quiet || f.packets != "" {
		return fmt.Errorf("--against is told in the text: it goes with one question and neither with " +
			"--json, -q nor --packets")
	}
	data, err := os.ReadFile(f.against)
	if err != nil {
		return err
	}
	f.log, err = report.ParseLog(f.against, data)
	return err
}

// oneQuestion checks that the question is put in one way.
func (f *traceFlags) oneQuestion(args []string) error {
	n := 0
	for _, given := range []bool{len(args) > 0, f.frame != "", f.pcap != "", f.packets != ""} {
		if given {
			n++
		}
	}
	switch {
	case n == 0 && len(f.snapshots) == 0: // a lab may have a question of its own
		return errNoPacket
	case n > 1:
		return fmt.Errorf("PACKET, --frame, --pcap and --packets exclude each other")
	case f.packet != 0 && (f.pcap == "" || f.packet < 0):
		return fmt.Errorf("--packet is the number of a packet of --pcap, from 1 on")
	case f.pcap != "" && f.format == "ktrace" && f.packet == 0:
		return fmt.Errorf("--format ktrace tells of one packet: say which by --packet")
	case f.pcap != "" && f.against != "":
		return fmt.Errorf("--against goes with one question, not with --pcap")
	}
	return nil
}

var errNoPacket = errors.New("which packet? For example: hookpath trace " +
	"tcp 10.0.0.5:40000 to 10.0.0.1:80 in eth0")

// orLabs is the question that was put, or the one of the lab.
func (f *traceFlags) orLabs(e *Env, l *hosts, args []string) ([]string, error) {
	if len(args) > 0 || f.frame != "" || f.pcap != "" || f.packets != "" {
		return args, nil
	}
	lab := l.nodes[0].dir.Lab
	if lab == nil || lab.Ask == "" {
		return nil, errNoPacket
	}
	if f.format == "text" && !f.quiet {
		fmt.Fprintf(e.Out, "asked: %s\n\n", lab.Ask)
	}
	return []string{lab.Ask}, nil
}

// told is a question with what was chosen for it.
type told struct {
	q      *question
	text   string
	chosen []string
}

func (f *traceFlags) questions(l *hosts, args []string) ([]told, error) {
	if f.frame != "" {
		return f.oneFrame(l)
	}
	text := strings.Join(args, " ")
	q, chosen, err := l.fromSentence(text, f.host)
	if err != nil {
		return nil, err
	}
	if n, err := l.host(q.Host); err == nil {
		q.Reply = !f.noReply && !n.Config().OpenRoutes
		q.data = q.Reply
	}
	return []told{{q, text, chosen}}, nil
}

// oneFrame makes a question of --frame.
func (f *traceFlags) oneFrame(l *hosts) ([]told, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(f.frame, " ", ""))
	if err != nil {
		return nil, fmt.Errorf("--frame: %w", err)
	}
	if len(b) > maxPacket {
		return nil, fmt.Errorf("--frame has more than %d bytes", maxPacket)
	}
	n, err := l.host(f.host)
	if err != nil {
		return nil, err
	}
	dev := f.in
	var chosen []string
	if dev == "" {
		dev = (&asking{l: l, n: n}).firstDevice()
		chosen = []string{"in " + dev}
	}
	return []told{{&question{Host: n.Name, In: dev, bytes: b}, "", chosen}}, nil
}

// answerAll asks the questions one after another, with the memory of the most
// probable branch carried on, and returns the exit status as an error.
func (f *traceFlags) answerAll(e *Env, l *hosts, qs []told) error {
	from := l.joined().Start()
	worst := exitOK
	for i, t := range qs {
		t.q.skips = f.allRules
		a, err := l.ask(t.q, from)
		if err != nil {
			return err
		}
		a.Question, a.Chosen = t.text, t.chosen
		a.Log = f.log
		if i == 0 && f.format == "text" && !f.quiet {
			l.advise(t.q, a)
		}
		if err := f.print(e, &a.Answer); err != nil {
			return err
		}
		if s := status(&a.Answer); s != exitOK && worst != exitDropped {
			worst = s
		}
		if len(a.after) > 0 {
			from = a.after[0]
		}
	}
	if worst != exitOK {
		return exitError(worst)
	}
	return nil
}

func (f *traceFlags) print(e *Env, a *report.Answer) error {
	var text []byte
	switch {
	case f.format == "json":
		b, err := a.JSON()
		if err != nil {
			return err
		}
		text = append(b, '\n')
	case f.format == "ktrace":
		text = a.KTrace()
	case f.quiet:
		text = a.Lines()
	default:
		colour := f.colour == "always" || f.colour == "auto" && e.Colour
		text = a.Story(report.Style{Width: e.Width, Colour: colour, AllRules: f.allRules})
	}
	_, err := e.Out.Write(text)
	return err
}

// status is the exit status that an answer gives.
func status(a *report.Answer) int {
	seen := map[int]bool{}
	for i := range a.Branches {
		s := exitDropped
		if a.Branches[i].Arrived() {
			s = exitOK
		}
		seen[s] = true
	}
	switch {
	case len(seen) > 1:
		return exitDepends
	case seen[exitOK]:
		return exitOK
	}
	return exitDropped
}
