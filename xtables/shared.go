package xtables

// Shared is what several rules of a host have in common under a name, such as the
// list of -m recent or the table of -m hashlimit: the first rule that asks for it
// makes it.
func Shared[T any](b *Build, kind, name string, mk func() T) (v T, made bool) {
	key := kind + "\x00" + name
	if v, ok := b.shared[key].(T); ok {
		return v, false
	}
	v = mk()
	if b.shared == nil {
		b.shared = map[string]any{}
	}
	b.shared[key] = v
	return v, true
}
