// Package uml boots a second kernel, Debian's user-mode-linux, as an ordinary
// process, and asks it what package kernel asks this machine's.
//
// It stands beside the packet's way, next to package kernel, whose code runs
// inside: the machine's init is the program that booted it, started again, which
// finds itself to be process 1 and serves requests on a console (Main). So there is
// one home for watching a kernel. The machine sees this file system read-only; it
// has no disk and no network of its own.
//
// A machine lives until Close, or until the process that booted it ends.
package uml
