// Package schedule holds the schedulers of package ipvs against those of the kernel in a
// user-mode-linux machine: random services and packets, the same to both, and then the
// same connections in both. All of it is tests.
package schedule
