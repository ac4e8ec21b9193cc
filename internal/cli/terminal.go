package cli

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// defaultWidth is how wide a story is where the terminal does not say.
const defaultWidth = 100

// isTerminal tells whether a file is a terminal that may show colours.
func isTerminal(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// termWidth is the width of the terminal, between 60 and 140 columns.
func termWidth() int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		return min(max(n, 60), 140)
	}
	ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 {
		return defaultWidth
	}
	return min(max(int(ws.Col), 60), 140)
}
