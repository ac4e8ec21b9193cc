package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxHops bounds how often a question's frames cross cables.
const maxHops = 1000

// Asker is a scenario laid out in some kernel: a Run, or one in another machine.
// Each method does what Run's does.
type Asker interface {
	Ask(Question) (Answer, error)
	Collect(host string) (map[string]string, error)
	Dump() ([]string, error)
	Close() error
}

// Run is a scenario laid out in this kernel. Its methods are for one goroutine.
type Run struct {
	ctx      context.Context
	scenario Scenario
	thread   *thread
	home     int // the namespace the thread was born in
	backlog  *backlog
	hosts    []*host
	buf      []byte
	seq      string
	asked    bool
	stateful bool

	// NoFlows leaves Answer.Flows nil, which saves a third of the time.
	NoFlows bool
}

// Open lays a scenario out. It needs root. Close removes everything.
func Open(ctx context.Context, sc Scenario) (*Run, error) {
	t, err := startThread()
	if err != nil {
		return nil, err
	}
	r := &Run{ctx: ctx, scenario: sc, thread: t, home: -1, buf: make([]byte, 1<<17)}
	if err := t.do(r.start); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Run) start() error {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.home = home
	if r.backlog, err = openBacklog(r.thread.cpu); err != nil {
		return err
	}
	for _, h := range r.scenario.Hosts {
		r.stateful = r.stateful || stateful(h)
	}
	return r.layOut()
}

func (r *Run) layOut() error {
	for i := range r.scenario.Hosts {
		h, err := newHost(r.ctx, &r.scenario.Hosts[i], r.scenario.Backend)
		if err != nil {
			return err
		}
		r.hosts = append(r.hosts, h)
	}
	return r.plug()
}

// plug connects the cables.
func (r *Run) plug() error {
	for _, h := range r.hosts {
		cables, err := h.cables()
		if err != nil {
			return err
		}
		for dev, peers := range cables {
			t := h.tap(dev)
			for _, p := range peers {
				far := r.host(p.Host)
				if t == nil || far == nil || p.Host == "" {
					continue
				}
				if far.tap(p.Dev) == nil {
					return fmt.Errorf("%s: the cable of %s: host %s has no device %q", h.Name, dev, p.Host,
						p.Dev)
				}
				t.peers = append(t.peers, p)
			}
		}
	}
	return nil
}

// host finds a host by name; an empty name is the only host there is.
func (r *Run) host(name string) *host {
	for _, h := range r.hosts {
		if h.Name == name || name == "" && len(r.hosts) == 1 {
			return h
		}
	}
	return nil
}

// Close removes namespaces, devices and sockets.
func (r *Run) Close() error {
	err := r.thread.do(func() error {
		r.tearDown()
		if r.backlog != nil {
			r.backlog.file.Close()
		}
		if r.home < 0 {
			return nil
		}
		return errors.Join(unix.Setns(r.home, unix.CLONE_NEWNET), unix.Close(r.home))
	})
	r.thread.stop()
	return err
}

func (r *Run) tearDown() {
	for _, h := range r.hosts {
		h.close()
	}
	r.hosts = nil
}

// Ask puts one question. The error is the run's own (a namespace could not be
// entered); what is wrong with the question is Answer.Err.
func (r *Run) Ask(q Question) (Answer, error) {
	a := Answer{ID: q.ID}
	err := r.thread.do(func() error {
		if err := r.turn(q.Seq); err != nil {
			return err
		}
		return r.ask(&q, &a)
	})
	return a, err
}

// turn starts over where the question does not belong to the last sequence.
func (r *Run) turn(seq string) error {
	fresh := r.asked && (seq == "" || seq != r.seq)
	r.seq, r.asked = seq, true
	if !fresh {
		return nil
	}
	again := r.stateful
	for _, h := range r.hosts {
		again = again || h.dirty
		h.dropKept()
		clear(h.table.known)
		if err := h.ctl.flushFlows(); err != nil {
			return fmt.Errorf("%s: flush connections: %w", h.Name, err)
		}
	}
	if !again {
		return nil
	}
	r.tearDown()
	return r.layOut()
}

// memories are words in rules, sets and other files whose effect is memory that
// a flush of the connection table does not erase.
var memories = []string{"recent", "hashlimit", "limit", "statistic", "quota", "rateest",
	"SET", "IDLETIMER", "connbytes", "RATEEST", "nfacct", "timeout", "counters"}

// stateful reports whether sequences must start from fresh namespaces.
func stateful(h Host) bool {
	if strings.TrimSpace(h.Files["conntrack"]) != "" || h.Files["ipvsadm-save"] != "" {
		return true
	}
	for _, file := range []string{"iptables-save", "iptables-legacy-save",
		"iptables-nft-save", "ipset-save"} {
		for _, word := range memories {
			if strings.Contains(h.Files[file], word) {
				return true
			}
		}
	}
	return false
}

func (r *Run) ask(q *Question, a *Answer) error {
	if err := r.discard(); err != nil {
		return err
	}
	h := r.host(q.Host)
	if h == nil {
		a.Err = fmt.Sprintf("no host %q", q.Host)
		return nil
	}
	if err := h.enter(); err != nil {
		return err
	}
	h.dirty = h.dirty || q.lingers()
	a.At = time.Now()
	if err := r.put(h, q, a); err != nil {
		a.Err = err.Error()
	}
	if err := r.settle(a); err != nil {
		return err
	}
	return r.flows(a)
}

// lingers reports whether a packet may leave memory outside the connection
// table: an ICMP message a route exception, a fragment a queue.
func (q *Question) lingers() bool {
	p := q.Packet
	if !q.Out && len(q.Frame) > 14 {
		p = q.Frame[14:]
	}
	return len(p) >= 20 && (p[9] == unix.IPPROTO_ICMP || p[6]&0x3f|p[7] != 0)
}

func (r *Run) put(h *host, q *Question, a *Answer) error {
	if q.Out {
		errno, err := h.send(q)
		a.Send = errno
		return err
	}
	t := h.tap(q.In)
	if t == nil {
		return fmt.Errorf("host %s has no wire on device %q", h.Name, q.In)
	}
	return t.inject(q.Frame)
}

// discard forgets what happened between questions: retransmissions and such.
func (r *Run) discard() error {
	for _, h := range r.hosts {
		err := h.harvest(r.buf, func(m message) {
			if m.kind == ctNew {
				h.table.learn(m)
			}
		}, func(*tap, []byte) {}, func(Hex, Delivery) {})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle collects what the packet did, carrying frames over cables, until
// nothing moves.
func (r *Run) settle(a *Answer) error {
	for hop := 0; ; hop++ {
		if err := r.backlog.drain(r.ctx); err != nil {
			return err
		}
		crossing, err := r.harvest(a)
		if err != nil || len(crossing) == 0 {
			return err
		}
		if hop >= maxHops {
			a.Err = "frames go round between hosts"
			return nil
		}
		if err := r.cross(crossing, a); err != nil {
			return err
		}
	}
}

// cross puts frames into the hosts at the other ends, first in first out, and
// waits for each before the next.
func (r *Run) cross(frames []crossing, a *Answer) error {
	for _, c := range frames {
		if err := r.host(c.to.Host).tap(c.to.Dev).inject(c.frame); err != nil {
			a.Err = err.Error()
		}
		if err := r.backlog.drain(r.ctx); err != nil {
			return err
		}
	}
	return nil
}

// crossing is a frame on a cable.
type crossing struct {
	to    Port
	frame []byte
}

// harvest collects reports and frames. Frames that enter a cable are returned.
func (r *Run) harvest(a *Answer) ([]crossing, error) {
	var out []crossing
	for _, h := range r.hosts {
		err := h.harvest(r.buf, func(m message) { h.report(m, a) }, func(t *tap, b []byte) {
			f := Frame{Host: h.Name, Dev: t.name, Bytes: append(Hex(nil), b...),
				Cabled: len(t.peers) > 0}
			a.Out = append(a.Out, f)
			h.dirty = h.dirty || isARP(b)
			for _, p := range t.peers {
				out = append(out, crossing{p, f.Bytes})
			}
		}, a.deliver)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// harvest hands on the reports, frames and deliveries that are waiting. One poll tells
// where, since each call into the kernel costs much in user-mode-linux.
func (h *host) harvest(buf []byte, report func(message), frame func(*tap, []byte),
	deliver func(Hex, Delivery)) error {
	waits, err := h.waits()
	if err != nil {
		return err
	}
	if waits[0].Revents != 0 {
		if err := h.events.poll(report); err != nil {
			return err
		}
	}
	for i, t := range h.taps {
		if waits[1+i].Revents == 0 {
			continue
		}
		if err := t.collect(buf, func(b []byte) { frame(t, b) }); err != nil {
			return err
		}
	}
	if h.inputs == nil {
		return nil
	}
	return h.inputs.collect(waits[1+len(h.taps):], buf, func(b Hex, dev int, mark uint32) {
		deliver(b, Delivery{h.Name, h.links[dev], mark, false})
	})
}

// waits polls, without waiting, the events, the taps and the inputs, in this order.
func (h *host) waits() ([]unix.PollFd, error) {
	h.polled = append(h.polled[:0], unix.PollFd{Fd: int32(h.events.fd), Events: unix.POLLIN})
	for _, t := range h.taps {
		h.polled = append(h.polled, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
	}
	if h.inputs != nil {
		for _, fd := range h.inputs.fds {
			h.polled = append(h.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	for {
		_, err := unix.Poll(h.polled, 0)
		if err != unix.EINTR {
			return h.polled, err
		}
	}
}

// deliver files a packet that passed INPUT.
func (a *Answer) deliver(packet Hex, d Delivery) {
	a.Delivered = append(a.Delivered, finishChecksum(packet))
	a.Inputs = append(a.Inputs, d)
}

// isARP reports whether an Ethernet frame is ARP: the neighbour table changed.
func isARP(b []byte) bool { return len(b) >= 14 && b[12] == 0x08 && b[13] == 0x06 }

// report files one message of the namespace.
func (h *host) report(m message, a *Answer) {
	switch m.kind {
	case ctNew:
		h.table.learn(m)
		return
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE:
		if s, ok := h.book.nftStep(m); ok {
			s.Host = h.Name
			a.Steps = append(a.Steps, s)
		}
		return
	case nfulnlMsgPacket:
		h.logged(parseLogged(m), m.family, a)
	}
}

// logged files one message of nfnetlink_log.
func (h *host) logged(l logged, family uint8, a *Answer) {
	switch l.group {
	case groupInput:
		if h.plain && !h.inputs.unseen(l.payload) {
			return
		}
		a.deliver(append(Hex(nil), l.payload...), Delivery{h.Name, h.links[l.inDev], l.mark, h.plain})
	case groupSent:
		a.Sent = append(a.Sent, finishChecksum(append(Hex(nil), l.payload...)))
	case groupTrace:
		s, ok := h.book.legacyStep(familyName(family), l.prefix)
		switch s.Host = h.Name; {
		case !ok:
			a.Logs = append(a.Logs, l.prefix)
		case !h.plain || s.N > 0 && h.hasTable(s.Table):
			a.Steps = append(a.Steps, s)
		}
	}
}

func (r *Run) flows(a *Answer) error {
	if r.NoFlows {
		return nil
	}
	for _, h := range r.hosts {
		lines, err := h.table.flows(h.ctl)
		if err != nil {
			return fmt.Errorf("%s: list connections: %w", h.Name, err)
		}
		a.Flows = append(a.Flows, h.prefix(lines, len(r.hosts))...)
	}
	return nil
}

// Dump lists the connection tables by walking the machine's hash table. It is
// the slow twin of Answer.Flows.
func (r *Run) Dump() ([]string, error) {
	var out []string
	err := r.thread.do(func() error {
		for _, h := range r.hosts {
			lines, err := h.ctl.flows()
			if err != nil {
				return err
			}
			out = append(out, h.prefix(lines, len(r.hosts))...)
		}
		return nil
	})
	return out, err
}

// prefix names the host in each line where there are several.
func (h *host) prefix(lines []string, hosts int) []string {
	if hosts > 1 {
		for i, line := range lines {
			lines[i] = h.Name + " " + line
		}
	}
	return lines
}
