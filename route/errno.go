package route

import "strconv"

// Errno is the error with which a lookup ends, zero for none.
type Errno int

// The errors, with the numbers of include/uapi/asm-generic/errno.h.
const (
	EAGAIN       Errno = 11 // throw, or no route in this table
	EACCES       Errno = 13 // prohibit
	EXDEV        Errno = 18 // reverse path filter
	ENODEV       Errno = 19
	EINVAL       Errno = 22 // blackhole, martian
	ENETUNREACH  Errno = 101
	EHOSTUNREACH Errno = 113 // unreachable, or forwarding is off
)

// String returns the error's name.
func (e Errno) String() string {
	switch e {
	case 0:
		return ""
	case EAGAIN:
		return "EAGAIN"
	case EACCES:
		return "EACCES"
	case EXDEV:
		return "EXDEV"
	case ENODEV:
		return "ENODEV"
	case EINVAL:
		return "EINVAL"
	case ENETUNREACH:
		return "ENETUNREACH"
	case EHOSTUNREACH:
		return "EHOSTUNREACH"
	}
	return "errno " + strconv.Itoa(int(e))
}
