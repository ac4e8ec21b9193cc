// Package kernel asks this machine's Linux kernel what it does with a packet.
//
// It stands beside the engine, not in it: a Scenario (snapshot files and
// questions) is laid out in fresh network namespaces, every question's bytes
// are injected, and an Answer says which rules the packet met, which frames
// left, what passed INPUT and which connections the kernel now knows. Tests and
// the command verify hold the engine against it.
//
// # How a packet is watched
//
// Each interface of ip-link.json is a TAP device of the same index, MAC and
// MTU, whose file descriptor is the wire. A write runs the whole receive path
// inside that system call, on the CPU to which the run's thread is pinned; so
// when the write returns and the CPU's backlog (loopback, multicast copies) is
// empty, the packet is done. Nobody sleeps and nothing is polled with a clock.
//
// A table of our own (inet, name probeTable) sets the trace bit at priority
// -500, which leaves the numbers of the rules under test alone; legacy rules
// then report through nfnetlink_log, nf_tables rules through the trace group.
// A last chain in INPUT logs what was delivered.
//
// # What is left behind
//
// Nothing: namespaces have no name, they live as long as the run's descriptors,
// so the kernel removes them when a test ends, or crashes.
package kernel
