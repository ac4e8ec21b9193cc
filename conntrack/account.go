package conntrack

// Account turns on the counting of packets and bytes, as loading a rule with the
// connbytes match does whatever nf_conntrack_acct says. It is for the time when a
// host is built.
//
// Kernel: net/netfilter/xt_connbytes.c, connbytes_mt_check.
func (t *Tracker) Account() { t.acct = true }
