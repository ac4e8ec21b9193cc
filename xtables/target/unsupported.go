package target

import "github.com/hookpath/hookpath/link"

// unsupported is the error of a target that is read and printed but can't be run.
func unsupported(what, why string) error {
	return &link.UnsupportedError{What: what, Why: why}
}
