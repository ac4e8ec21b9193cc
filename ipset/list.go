package ipset

// testList asks the members one after another.
//
// Kernel: net/netfilter/ipset/ip_set_list_set.c, list_set_ktest.
func (a *ask) testList(l *live) int {
	flags := a.flags
	defer func() { a.flags = flags }()
	a.flags &^= MatchCounters
	if a.flags&SkipSubcounters != 0 {
		a.flags |= SkipCounters
	}
	for i, set := range l.refs {
		if a.test(a.sets.sets[set]) > 0 && a.matchExt(l, uint32(i), flags) {
			return 1
		}
	}
	return 0
}

// eachMember adds to, or deletes from, the first member that lets it.
//
// Kernel: list_set_kadd, list_set_kdel.
func (a *ask) eachMember(l *live, do func(*ask, *live) int) int {
	for i, set := range l.refs {
		if a.gone(l, uint32(i)) {
			continue
		}
		if do(a, a.sets.sets[set]) == okay {
			break
		}
	}
	return okay
}
