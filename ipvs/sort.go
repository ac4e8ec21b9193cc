package ipvs

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Sort puts services and their real servers into the order in which ipvsadm lists them
// without --nosort. It goes by differences of 32 bits, as ipvsadm does: 200.0.0.1 can come
// before 10.0.0.1, and where three addresses stand far from each other the order hangs on
// how the C library sorts.
func Sort(services []Service) {
	mergeSort(services, compareServices)
	for i := range services {
		mergeSort(services[i].Dests, compareDests)
	}
}

// IsSorted tells whether a list of real servers is one that ipvsadm sorted.
func IsSorted(dests []Dest) bool {
	for i := 1; i < len(dests); i++ {
		if compareDests(&dests[i-1], &dests[i]) > 0 {
			return false
		}
	}
	return true
}

func compareServices(a, b *Service) int32 {
	for _, d := range []int32{difference(a.Mark, b.Mark), int32(a.Family) - int32(b.Family),
		int32(a.Proto) - int32(b.Proto), compareAddrs(&a.Addr, &b.Addr)} {
		if d != 0 {
			return d
		}
	}
	return int32(a.Port) - int32(b.Port)
}

func compareDests(a, b *Dest) int32 {
	if fa, fb := familyOf(a.Addr), familyOf(b.Addr); fa != fb {
		return int32(fa) - int32(fb)
	}
	if d := compareAddrs(&a.Addr, &b.Addr); d != 0 {
		return d
	}
	return int32(a.Port) - int32(b.Port)
}

func familyOf(a packet.Addr) trace.Family {
	if a.Is4() {
		return trace.IPv4
	}
	return trace.IPv6
}

func compareAddrs(a, b *packet.Addr) int32 {
	for i := 0; i < len(a); i += 4 {
		d := difference(binary.BigEndian.Uint32(a[i:]), binary.BigEndian.Uint32(b[i:]))
		if d != 0 {
			return d
		}
	}
	return 0
}

// difference is C's difference of two unsigned numbers, kept in an int.
func difference(a, b uint32) int32 { return int32(a - b) }

// mergeSort is the qsort of glibc before 2.37: the comparison is not transitive, and what
// comes out depends on which two are compared.
func mergeSort[T any](all []T, compare func(a, b *T) int32) {
	if len(all) > 1 {
		mergeInto(all, make([]T, len(all)), compare)
	}
}

func mergeInto[T any](all, room []T, compare func(a, b *T) int32) {
	if len(all) <= 1 {
		return
	}
	left, right := all[:len(all)/2], all[len(all)/2:]
	mergeInto(left, room, compare)
	mergeInto(right, room, compare)
	n := 0
	for ; len(left) > 0 && len(right) > 0; n++ {
		from := &left
		if compare(&left[0], &right[0]) > 0 {
			from = &right
		}
		room[n] = (*from)[0]
		*from = (*from)[1:]
	}
	// What is left of the right half stands where it belongs already.
	n += copy(room[n:], left)
	copy(all, room[:n])
}
