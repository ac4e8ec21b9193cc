package compare

// Excluded are the extensions that are not drawn by default, each with its reason: the
// honest list of what is not held against the kernel.
func Excluded() []struct{ Name, Why string } {
	return []struct{ Name, Why string }{
		{"set", "the engine has no match set yet"},
		{"SET", "the engine has no target SET yet"},
		{"DSCP", "the engine's target DSCP does not read --set-dscp yet"},
		{"ECN", "the engine has no target ECN yet"},
	}
}

// except are the names alone.
func except() []string {
	var out []string
	for _, e := range Excluded() {
		out = append(out, e.Name)
	}
	return out
}
